//! Transactions: what conflicts, what doesn't, and how they end.

use gcloud_sdk::google::firestore::v1::{
    self as api, BatchGetDocumentsRequest, RunQueryRequest, TransactionOptions, Write,
    batch_get_documents_request, run_query_request,
    structured_query::{
        CollectionSelector, FieldFilter, FieldReference, Filter, field_filter, filter::FilterType,
    },
    transaction_options::{Mode, ReadOnly, ReadWrite, read_only},
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::support::{
    DATABASE, Raw, commit, int, name, number, number_of, remove, root, set, start, write,
};

async fn begin(raw: &mut Raw, mode: Mode) -> Vec<u8> {
    raw.begin_transaction(api::BeginTransactionRequest {
        database: DATABASE.to_owned(),
        options: Some(TransactionOptions { mode: Some(mode) }),
        ..Default::default()
    })
    .await
    .expect("accepted")
    .into_inner()
    .transaction
}

fn read_write() -> Mode {
    Mode::ReadWrite(ReadWrite::default())
}

/// Reads `n` of the documents in the transaction.
async fn read(
    raw: &mut Raw,
    transaction: &[u8],
    paths: &[&str],
) -> Result<Vec<Option<i64>>, Status> {
    let mut found = raw
        .batch_get_documents(BatchGetDocumentsRequest {
            database: DATABASE.to_owned(),
            documents: paths.iter().map(|path| name(path)).collect(),
            consistency_selector: Some(
                batch_get_documents_request::ConsistencySelector::Transaction(transaction.to_vec()),
            ),
            ..Default::default()
        })
        .await?
        .into_inner();
    let mut numbers = Vec::new();
    while let Some(response) = found.next().await.transpose()? {
        numbers.push(match response.result {
            Some(api::batch_get_documents_response::Result::Found(document)) => {
                number_of(&document)
            }
            _ => None,
        });
    }
    Ok(numbers)
}

async fn commit_in(raw: &mut Raw, transaction: &[u8], writes: Vec<Write>) -> Result<(), Status> {
    let mut request = commit(writes);
    request.transaction = transaction.to_vec();
    raw.commit(request).await.map(|_| ())
}

#[tokio::test]
async fn of_two_that_read_and_write_one_document_the_second_is_aborted_and_may_retry() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(&mut raw, vec![set("a/1", [("n", int(0))])]).await;
    let first = begin(&mut raw, read_write()).await;
    let second = begin(&mut raw, read_write()).await;
    for transaction in [&first, &second] {
        let seen = read(&mut raw, transaction, &["a/1"])
            .await
            .expect("readable");
        assert_eq!(seen, [Some(0)]);
    }
    let one_more = |n| vec![set("a/1", [("n", int(n))])];
    commit_in(&mut raw, &first, one_more(1))
        .await
        .expect("the first wins");
    let aborted = commit_in(&mut raw, &second, one_more(1))
        .await
        .expect_err("it read what has changed");
    assert_eq!(aborted.code(), Code::Aborted);
    let retry = Mode::ReadWrite(ReadWrite {
        retry_transaction: second,
        ..Default::default()
    });
    let third = begin(&mut raw, retry).await;
    assert_eq!(
        read(&mut raw, &third, &["a/1"]).await.expect("readable"),
        [Some(1)]
    );
    commit_in(&mut raw, &third, one_more(2))
        .await
        .expect("nobody interferes");
    assert_eq!(number(&mut raw, "a/1").await, Some(2));
}

#[tokio::test]
async fn a_change_by_anyone_to_a_document_that_was_read_aborts() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    for (interference, aborts) in [
        (set("a/read", [("n", int(5))]), true),
        (remove("a/read"), true),
        (set("a/missing", [("n", int(5))]), true),
        (set("a/other", [("n", int(5))]), false),
    ] {
        write(
            &mut raw,
            vec![set("a/read", [("n", int(0))]), remove("a/missing")],
        )
        .await;
        let transaction = begin(&mut raw, read_write()).await;
        let seen = read(&mut raw, &transaction, &["a/read", "a/missing"])
            .await
            .expect("readable");
        assert_eq!(seen, [Some(0), None]);
        write(&mut raw, vec![interference.clone()]).await;
        let outcome = commit_in(&mut raw, &transaction, vec![set("a/result", [])]).await;
        assert_eq!(
            outcome.err().map(|status| status.code()),
            aborts.then_some(Code::Aborted),
            "{interference:?}"
        );
    }
}

#[tokio::test]
async fn two_that_only_share_what_they_read_both_commit() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(&mut raw, vec![set("a/shared", [("n", int(0))])]).await;
    let first = begin(&mut raw, read_write()).await;
    let second = begin(&mut raw, read_write()).await;
    for transaction in [&first, &second] {
        read(&mut raw, transaction, &["a/shared"])
            .await
            .expect("readable");
    }
    for (transaction, path) in [(&first, "a/first"), (&second, "a/second")] {
        commit_in(&mut raw, transaction, vec![set(path, [])])
            .await
            .expect("no conflict");
    }
}

#[tokio::test]
async fn a_transaction_reads_one_moment_whatever_others_commit() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let both = |n| vec![set("a/1", [("n", int(n))]), set("a/2", [("n", int(n))])];
    write(&mut raw, both(1)).await;
    for mode in [read_write(), Mode::ReadOnly(ReadOnly::default())] {
        let transaction = begin(&mut raw, mode).await;
        let before = read(&mut raw, &transaction, &["a/1"])
            .await
            .expect("readable");
        write(&mut raw, both(before[0].expect("there") + 1)).await;
        let after = read(&mut raw, &transaction, &["a/2"])
            .await
            .expect("readable");
        assert_eq!(before, after);
        commit_in(&mut raw, &transaction, vec![])
            .await
            .expect("a transaction that writes nothing can't conflict");
    }
}

#[tokio::test]
async fn a_document_that_enters_a_queried_range_aborts() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let above = |transaction: &[u8]| RunQueryRequest {
        parent: root(),
        query_type: Some(run_query_request::QueryType::StructuredQuery(
            api::StructuredQuery {
                from: vec![CollectionSelector {
                    collection_id: "a".to_owned(),
                    all_descendants: false,
                }],
                r#where: Some(Filter {
                    filter_type: Some(FilterType::FieldFilter(FieldFilter {
                        field: Some(FieldReference {
                            field_path: "n".to_owned(),
                        }),
                        op: field_filter::Operator::GreaterThan as i32,
                        value: Some(int(10)),
                    })),
                }),
                ..Default::default()
            },
        )),
        consistency_selector: Some(run_query_request::ConsistencySelector::Transaction(
            transaction.to_vec(),
        )),
        ..Default::default()
    };
    for (entering, aborts) in [(5, false), (15, true)] {
        let transaction = begin(&mut raw, read_write()).await;
        let responses: Vec<_> = raw
            .run_query(above(&transaction))
            .await
            .expect("accepted")
            .into_inner()
            .collect()
            .await;
        assert!(responses.iter().flatten().all(|r| r.document.is_none()));
        write(&mut raw, vec![set("a/new", [("n", int(entering))])]).await;
        let outcome = commit_in(&mut raw, &transaction, vec![set("b/result", [])]).await;
        assert_eq!(
            outcome.err().map(|status| status.code()),
            aborts.then_some(Code::Aborted),
            "{entering}"
        );
    }
}

#[tokio::test]
async fn a_transaction_begins_with_its_first_read() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    let mut responses = raw
        .batch_get_documents(BatchGetDocumentsRequest {
            database: DATABASE.to_owned(),
            documents: vec![name("a/1"), name("a/2")],
            consistency_selector: Some(
                batch_get_documents_request::ConsistencySelector::NewTransaction(
                    TransactionOptions::default(),
                ),
            ),
            ..Default::default()
        })
        .await
        .expect("accepted")
        .into_inner();
    let first = responses.next().await.expect("one").expect("accepted");
    let second = responses.next().await.expect("two").expect("accepted");
    assert!(!first.transaction.is_empty());
    assert!(second.transaction.is_empty());
    write(&mut raw, vec![set("a/2", [("n", int(2))])]).await;
    let aborted = commit_in(&mut raw, &first.transaction, vec![set("a/1", [])]).await;
    assert_eq!(aborted.expect_err("a/2 has come").code(), Code::Aborted);
}

#[tokio::test]
async fn a_read_only_transaction_reads_the_time_asked_for_and_writes_nothing() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let first = write(&mut raw, vec![set("a/1", [("n", int(1))])]).await;
    write(&mut raw, vec![set("a/1", [("n", int(2))])]).await;
    let mode = Mode::ReadOnly(ReadOnly {
        consistency_selector: first
            .commit_time
            .map(read_only::ConsistencySelector::ReadTime),
    });
    let transaction = begin(&mut raw, mode).await;
    assert_eq!(
        read(&mut raw, &transaction, &["a/1"])
            .await
            .expect("readable"),
        [Some(1)]
    );
    let refused = commit_in(&mut raw, &transaction, vec![set("a/1", [])])
        .await
        .expect_err("read-only");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_transaction_that_is_over_can_be_rolled_back_but_not_used() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let transaction = begin(&mut raw, read_write()).await;
    let rollback = || api::RollbackRequest {
        database: DATABASE.to_owned(),
        transaction: transaction.clone(),
        ..Default::default()
    };
    raw.rollback(rollback()).await.expect("open");
    raw.rollback(rollback())
        .await
        .expect("over, which is as good");
    let refused = read(&mut raw, &transaction, &["a/1"])
        .await
        .expect_err("over");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = commit_in(&mut raw, &transaction, vec![set("a/1", [])])
        .await
        .expect_err("over");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(number(&mut raw, "a/1").await, None);
    let unknown = raw
        .rollback(api::RollbackRequest {
            database: DATABASE.to_owned(),
            transaction: vec![9; 8],
            ..Default::default()
        })
        .await
        .expect_err("never begun");
    assert_eq!(unknown.code(), Code::InvalidArgument);
}
