//! Reading and writing documents, as the protocol has it.

use gcloud_sdk::google::firestore::v1::{
    self as api,
    document_transform::{
        FieldTransform,
        field_transform::{ServerValue, TransformType},
    },
    precondition::ConditionType,
    value::ValueType,
};
use infrachat_emulators::firestore::History;
use tonic::Code;

use crate::support::{
    DATABASE, commit, document, fields, int, name, number, only_if, remove, root, set, start,
    start_ours, text, value, write,
};

#[tokio::test]
async fn a_commit_applies_all_writes_or_none() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    let refused = raw
        .commit(commit(vec![
            set("a/2", [("n", int(2))]),
            only_if(set("a/1", [("n", int(9))]), ConditionType::Exists(false)),
        ]))
        .await
        .expect_err("the second write must fail");
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(
        refused.message(),
        format!("Document already exists: {}", name("a/1"))
    );
    assert_eq!(number(&mut raw, "a/1").await, Some(1));
    assert_eq!(number(&mut raw, "a/2").await, None);
}

#[tokio::test]
async fn preconditions_have_googles_codes() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let first = write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    let stale = first.write_results[0].update_time.expect("has one");
    write(&mut raw, vec![set("a/1", [("n", int(2))])]).await;
    for (refused, code) in [
        (
            only_if(set("a/2", []), ConditionType::Exists(true)),
            Code::NotFound,
        ),
        (
            only_if(remove("a/2"), ConditionType::Exists(true)),
            Code::NotFound,
        ),
        (
            only_if(set("a/1", []), ConditionType::Exists(false)),
            Code::AlreadyExists,
        ),
        (
            only_if(set("a/1", []), ConditionType::UpdateTime(stale)),
            Code::FailedPrecondition,
        ),
        (
            only_if(remove("a/2"), ConditionType::UpdateTime(stale)),
            Code::FailedPrecondition,
        ),
    ] {
        let status = raw
            .commit(commit(vec![refused.clone()]))
            .await
            .expect_err("the precondition fails");
        assert_eq!(status.code(), code, "{refused:?}");
    }
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_update_time() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let first = write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    let same = write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    let other = write(&mut raw, vec![set("a/1", [("n", int(2))])]).await;
    assert_ne!(same.commit_time, first.commit_time);
    assert_eq!(
        same.write_results[0].update_time,
        first.write_results[0].update_time
    );
    assert_eq!(other.write_results[0].update_time, other.commit_time);
}

#[tokio::test]
async fn a_mask_sets_its_fields_and_deletes_those_without_value() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(
        &mut raw,
        vec![set(
            "a/1",
            [("n", int(1)), ("gone", int(1)), ("kept", int(1))],
        )],
    )
    .await;
    let updated = raw
        .update_document(api::UpdateDocumentRequest {
            document: Some(document("a/1", [("n", int(2)), ("ignored", int(2))])),
            update_mask: Some(api::DocumentMask {
                field_paths: vec!["n".into(), "gone".into()],
            }),
            ..Default::default()
        })
        .await
        .expect("accepted")
        .into_inner();
    assert_eq!(updated.fields, fields([("n", int(2)), ("kept", int(1))]));
    assert_ne!(updated.update_time, updated.create_time);
}

#[tokio::test]
async fn transforms_see_the_writes_before_them_and_tell_their_results() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let increment = |by| FieldTransform {
        field_path: "n".to_owned(),
        transform_type: Some(TransformType::Increment(int(by))),
    };
    let mut first = set("a/1", [("n", int(1))]);
    first.update_transforms = vec![increment(2), increment(3)];
    let mut second = set("a/1", [("n", int(100))]);
    second.update_mask = Some(api::DocumentMask::default());
    second.update_transforms = vec![
        increment(4),
        FieldTransform {
            field_path: "at".to_owned(),
            transform_type: Some(TransformType::SetToServerValue(
                ServerValue::RequestTime as i32,
            )),
        },
    ];
    let answer = write(&mut raw, vec![first, second]).await;
    assert_eq!(answer.write_results[0].transform_results, [int(3), int(6)]);
    assert_eq!(answer.write_results[1].transform_results[0], int(10));
    let committed = answer.commit_time.expect("has one");
    match answer.write_results[1].transform_results[1].value_type {
        Some(ValueType::TimestampValue(at)) => {
            assert!((at.seconds, at.nanos) <= (committed.seconds, committed.nanos));
            assert_eq!(at.nanos % 1_000_000, 0, "milliseconds");
        }
        ref other => panic!("{other:?}"),
    }
    assert_eq!(number(&mut raw, "a/1").await, Some(10));
}

#[tokio::test]
async fn a_created_document_gets_an_id_of_its_own() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let mut names = std::collections::HashSet::new();
    for _ in 0..10 {
        let created = raw
            .create_document(api::CreateDocumentRequest {
                parent: root(),
                collection_id: "a".to_owned(),
                document: Some(api::Document {
                    fields: fields([("n", int(1))]),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .await
            .expect("accepted")
            .into_inner();
        let id = created.name.rsplit('/').next().expect("has one");
        assert_eq!(id.len(), 20);
        names.insert(created.name);
    }
    assert_eq!(names.len(), 10);
}

#[tokio::test]
async fn documents_are_listed_page_by_page_and_missing_ones_on_request() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let mut writes: Vec<_> = (0..5)
        .map(|n| set(&format!("a/{n}"), [("n", int(10 - n))]))
        .collect();
    writes.push(set("a/0ghost/sub/1", []));
    write(&mut raw, writes).await;
    let mut list = async |show_missing, order_by: &str| {
        let (mut ids, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = raw
                .list_documents(api::ListDocumentsRequest {
                    parent: root(),
                    collection_id: "a".to_owned(),
                    page_size: 2,
                    page_token,
                    order_by: order_by.to_owned(),
                    show_missing,
                    ..Default::default()
                })
                .await
                .expect("accepted")
                .into_inner();
            assert!(page.documents.len() <= 2);
            ids.extend(page.documents.into_iter().map(|found| {
                let id = found.name.rsplit('/').next().unwrap_or_default().to_owned();
                (id, found.create_time.is_some())
            }));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return ids;
            }
        }
    };
    let plain =
        |ids: &[&str]| -> Vec<_> { ids.iter().map(|id| ((*id).to_owned(), true)).collect() };
    assert_eq!(list(false, "").await, plain(&["0", "1", "2", "3", "4"]));
    assert_eq!(list(false, "n").await, plain(&["4", "3", "2", "1", "0"]));
    assert_eq!(
        list(false, "n desc").await,
        plain(&["0", "1", "2", "3", "4"])
    );
    let mut with_ghost = plain(&["0", "0ghost", "1", "2", "3", "4"]);
    with_ghost[1].1 = false;
    assert_eq!(list(true, "").await, with_ghost);
}

#[tokio::test]
async fn collection_ids_are_listed_page_by_page() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(
        &mut raw,
        vec![
            set("c/1", []),
            set("a/1", []),
            set("b/1/d/1", []),
            set("e/1", []),
        ],
    )
    .await;
    write(&mut raw, vec![remove("e/1")]).await;
    let mut request = api::ListCollectionIdsRequest {
        parent: root(),
        page_size: 2,
        ..Default::default()
    };
    let first = raw
        .list_collection_ids(request.clone())
        .await
        .expect("accepted")
        .into_inner();
    assert_eq!(first.collection_ids, ["a", "b"]);
    request.page_token = first.next_page_token;
    let second = raw
        .list_collection_ids(request)
        .await
        .expect("accepted")
        .into_inner();
    assert_eq!(second.collection_ids, ["c"]);
    assert_eq!(second.next_page_token, "");
}

#[tokio::test]
async fn a_batch_write_tells_the_fate_of_each_write() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let batch = |writes| api::BatchWriteRequest {
        database: DATABASE.to_owned(),
        writes,
        ..Default::default()
    };
    let answer = raw
        .batch_write(batch(vec![
            set("a/1", [("n", int(1))]),
            only_if(set("a/2", []), ConditionType::Exists(true)),
            set("a/3", [("n", int(3))]),
        ]))
        .await
        .expect("accepted")
        .into_inner();
    let codes: Vec<_> = answer.status.iter().map(|status| status.code).collect();
    assert_eq!(codes, [0, Code::NotFound as i32, 0]);
    assert!(answer.write_results[0].update_time.is_some());
    assert_eq!(number(&mut raw, "a/3").await, Some(3));
    let twice = raw
        .batch_write(batch(vec![set("a/1", []), remove("a/1")]))
        .await
        .expect_err("one document twice");
    assert_eq!(twice.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_past_can_be_read() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let first = write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    write(&mut raw, vec![set("a/1", [("n", int(2))])]).await;
    write(&mut raw, vec![remove("a/1")]).await;
    let then = raw
        .get_document(api::GetDocumentRequest {
            name: name("a/1"),
            consistency_selector: Some(api::get_document_request::ConsistencySelector::ReadTime(
                first.commit_time.expect("has one"),
            )),
            ..Default::default()
        })
        .await
        .expect("it was there")
        .into_inner();
    assert_eq!(then.fields, fields([("n", int(1))]));
    let future = prost_types::Timestamp {
        seconds: first.commit_time.expect("has one").seconds + 3_600,
        nanos: 0,
    };
    let refused = raw
        .get_document(api::GetDocumentRequest {
            name: name("a/1"),
            consistency_selector: Some(api::get_document_request::ConsistencySelector::ReadTime(
                future,
            )),
            ..Default::default()
        })
        .await
        .expect_err("not yet known");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_past_that_is_no_longer_kept_is_refused() {
    let (emulator, _) = start_ours(History {
        versions: 2,
        ..History::default()
    })
    .await;
    let mut raw = emulator.raw().await;
    let first = write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    for n in 2..10 {
        write(&mut raw, vec![set("a/1", [("n", int(n))])]).await;
    }
    let refused = raw
        .get_document(api::GetDocumentRequest {
            name: name("a/1"),
            consistency_selector: first
                .commit_time
                .map(api::get_document_request::ConsistencySelector::ReadTime),
            ..Default::default()
        })
        .await
        .expect_err("eight versions ago");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_reset_over_http_empties_one_database() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    let other = DATABASE.replace("(default)", "other");
    let mut kept = set(
        "a/1",
        [
            ("s", text("kept")),
            ("b", value(ValueType::BooleanValue(true))),
        ],
    );
    if let Some(api::write::Operation::Update(document)) = &mut kept.operation {
        document.name = document.name.replace("(default)", "other");
    }
    raw.commit(api::CommitRequest {
        database: other.clone(),
        writes: vec![kept],
        ..Default::default()
    })
    .await
    .expect("accepted");
    let documents = format!("{}/emulator/v1/{DATABASE}/documents", emulator.url);
    let emptied = reqwest::Client::new().delete(documents).send().await;
    assert!(emptied.expect("an answer").status().is_success());
    assert_eq!(number(&mut raw, "a/1").await, None);
    let found = raw
        .get_document(api::GetDocumentRequest {
            name: format!("{other}/documents/a/1"),
            ..Default::default()
        })
        .await;
    assert!(found.is_ok(), "the other database is as it was");
}
