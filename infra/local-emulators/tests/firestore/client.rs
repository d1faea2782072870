//! Flows of the `firestore` crate.

use std::{sync::Arc, time::Duration};

use firestore::{
    FirestoreDb, FirestoreListenEvent, FirestoreListenerParams, FirestoreListenerTarget,
    FirestoreMemListenStateStorage, FirestoreTransactionOptions, FirestoreWritePrecondition,
    errors::{BackoffError, FirestoreError},
    path, path_camel_case, paths,
    timestamp_utils::from_timestamp,
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::support::{soon, start};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    n: i64,
    tags: Vec<String>,
}

fn item(name: &str, n: i64) -> Item {
    Item {
        name: name.to_owned(),
        n,
        tags: vec![format!("tag{}", n % 2)],
    }
}

async fn insert(db: &FirestoreDb, item: &Item) -> Result<Item, FirestoreError> {
    db.fluent()
        .insert()
        .into("items")
        .document_id(&item.name)
        .object(item)
        .execute()
        .await
}

async fn get(db: &FirestoreDb, name: &str) -> Option<Item> {
    db.fluent()
        .select()
        .by_id_in("items")
        .obj()
        .one(name)
        .await
        .expect("readable")
}

#[tokio::test]
async fn a_document_is_created_read_updated_and_deleted() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    let mut a = item("a", 1);
    assert_eq!(insert(&db, &a).await.expect("created"), a);
    assert_eq!(get(&db, "a").await, Some(a.clone()));
    a.n = 2;
    db.fluent()
        .update()
        .fields(paths!(Item::{n}))
        .in_col("items")
        .document_id("a")
        .object(&a)
        .execute::<Item>()
        .await
        .expect("updated");
    assert_eq!(get(&db, "a").await, Some(a));
    db.fluent()
        .delete()
        .from("items")
        .document_id("a")
        .execute()
        .await
        .expect("deleted");
    assert_eq!(get(&db, "a").await, None);
}

#[tokio::test]
async fn creating_what_exists_is_a_conflict() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    insert(&db, &item("a", 1)).await.expect("created");
    let refused = insert(&db, &item("a", 2)).await;
    assert!(
        matches!(refused, Err(FirestoreError::DataConflictError(_))),
        "{refused:?}"
    );
    assert_eq!(get(&db, "a").await, Some(item("a", 1)));
}

#[tokio::test]
async fn a_stale_update_time_fails_its_precondition() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    insert(&db, &item("a", 1)).await.expect("created");
    let found = db
        .fluent()
        .select()
        .by_id_in("items")
        .one("a")
        .await
        .expect("readable")
        .expect("found");
    let seen = found.update_time.expect("has one");
    let update = async |n| {
        let time = from_timestamp(seen).expect("in range");
        db.fluent()
            .update()
            .in_col("items")
            .precondition(FirestoreWritePrecondition::UpdateTime(time))
            .document_id("a")
            .object(&item("a", n))
            .execute::<Item>()
            .await
    };
    update(2).await.expect("the update time is the last");
    match update(3).await {
        Err(FirestoreError::DatabaseError(error)) => {
            assert_eq!(error.public.code, "FailedPrecondition");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn twenty_contending_transactions_all_succeed_and_none_is_lost() {
    const TASKS: i64 = 20;
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    insert(&db, &item("counter", 0)).await.expect("created");
    let tasks = (0..TASKS).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            // The waits between attempts are the crate's, so retry by hand and at once.
            loop {
                let mut transaction = db.begin_transaction().await.expect("begun");
                let reader = db.clone_with_consistency_selector(
                    firestore::FirestoreConsistencySelector::Transaction(
                        transaction.transaction_id().clone(),
                    ),
                );
                let mut counter = get(&reader, "counter").await.expect("exists");
                counter.n += 1;
                db.fluent()
                    .update()
                    .in_col("items")
                    .document_id("counter")
                    .object(&counter)
                    .add_to_transaction(&mut transaction)
                    .expect("added");
                match transaction.commit().await {
                    Ok(_) => break,
                    Err(FirestoreError::DatabaseError(error)) if error.public.code == "Aborted" => {
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        soon(task).await.expect("succeeds");
    }
    assert_eq!(get(&db, "counter").await.expect("exists").n, TASKS);
}

#[tokio::test]
async fn the_crate_retries_an_aborted_transaction_by_itself() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    insert(&db, &item("a", 0)).await.expect("created");
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let aside = db.clone();
    let run = db.run_transaction_with_options(
        move |db, transaction| {
            let first = first.clone();
            let aside = aside.clone();
            async move {
                let mut a: Item = get(&db, "a").await.expect("exists");
                if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                    aside
                        .fluent()
                        .update()
                        .in_col("items")
                        .document_id("a")
                        .object(&item("a", 10))
                        .execute::<Item>()
                        .await?;
                }
                a.n += 1;
                db.fluent()
                    .update()
                    .in_col("items")
                    .document_id("a")
                    .object(&a)
                    .add_to_transaction(transaction)?;
                Ok::<_, BackoffError<FirestoreError>>(())
            }
            .boxed()
        },
        FirestoreTransactionOptions::new(),
    );
    soon(run).await.expect("the second attempt succeeds");
    assert_eq!(get(&db, "a").await.expect("exists").n, 11);
}

#[tokio::test]
async fn queries_filter_order_and_limit() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    for n in 0..6 {
        insert(&db, &item(&format!("i{n}"), n))
            .await
            .expect("created");
    }
    let found: Vec<Item> = db
        .fluent()
        .select()
        .from("items")
        .filter(|q| {
            q.for_all([
                q.field(path!(Item::n)).greater_than(1),
                q.field(path!(Item::tags)).array_contains("tag1"),
            ])
        })
        .order(|o| o.fields([o.field(path!(Item::n)).desc()]))
        .limit(1)
        .obj()
        .stream_query()
        .await
        .expect("a valid query")
        .collect()
        .await;
    assert_eq!(found, [item("i5", 5)]);
}

#[tokio::test]
async fn counts_and_sums_are_aggregated() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    for n in 1..=4 {
        insert(&db, &item(&format!("i{n}"), n))
            .await
            .expect("created");
    }
    #[derive(Deserialize)]
    struct Totals {
        many: i64,
        total: i64,
    }
    let totals: Vec<Totals> = db
        .fluent()
        .select()
        .from("items")
        .aggregate(|a| {
            a.fields([
                a.field(path!(Totals::many)).count(),
                a.field(path!(Totals::total)).sum(path!(Item::n)),
            ])
        })
        .obj()
        .query()
        .await
        .expect("a valid query");
    assert_eq!((totals[0].many, totals[0].total), (4, 10));
}

#[tokio::test]
async fn named_databases_are_apart() {
    let emulator = start().await;
    let west = emulator.db("us-west1").await;
    let asia = emulator.db("asia-northeast1").await;
    insert(&west, &item("a", 1)).await.expect("created");
    assert_eq!(get(&asia, "a").await, None);
    insert(&asia, &item("a", 2)).await.expect("no conflict");
}

#[tokio::test]
async fn a_batch_is_written() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    let writer = db.create_simple_batch_writer().await.expect("a writer");
    let mut batch = writer.new_batch();
    for n in 0..10 {
        db.fluent()
            .update()
            .in_col("items")
            .document_id(format!("i{n}"))
            .object(&item(&format!("i{n}"), n))
            .add_to_batch(&mut batch)
            .expect("added");
    }
    batch.write().await.expect("written");
    assert_eq!(get(&db, "i9").await, Some(item("i9", 9)));
}

#[tokio::test]
async fn a_streaming_batch_is_written() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    let (writer, responses) = db.create_streaming_batch_writer().await.expect("a writer");
    let mut batch = writer.new_batch();
    db.fluent()
        .update()
        .in_col("items")
        .document_id("a")
        .object(&item("a", 1))
        .add_to_batch(&mut batch)
        .expect("added");
    batch.write().await.expect("written");
    writer.finish().await;
    let responses: Vec<_> = soon(responses.try_collect()).await.expect("no failure");
    assert!(!responses.is_empty());
    assert_eq!(get(&db, "a").await, Some(item("a", 1)));
}

#[tokio::test]
async fn a_listener_follows_a_query() {
    let emulator = start().await;
    let db = emulator.db("(default)").await;
    insert(&db, &item("before", 1)).await.expect("created");
    let mut listener = db
        .create_listener_with_params(
            FirestoreMemListenStateStorage::new(),
            FirestoreListenerParams::new().with_retry_delay(Duration::from_millis(10)),
        )
        .await
        .expect("a listener");
    db.fluent()
        .select()
        .from("items")
        .filter(|q| q.field(path_camel_case!(Item::n)).greater_than(0))
        .listen()
        .add_target(FirestoreListenerTarget::new(7), &mut listener)
        .expect("added");
    let (events, mut seen) = mpsc::unbounded_channel();
    listener
        .start(move |event| {
            let events = events.clone();
            async move {
                let told = match event {
                    FirestoreListenEvent::DocumentChange(change) => {
                        let document = change.document.expect("has one");
                        let item: Item =
                            FirestoreDb::deserialize_doc_to(&document).expect("an item");
                        Some(format!("{}={}", item.name, item.n))
                    }
                    FirestoreListenEvent::DocumentDelete(gone) => gone
                        .document
                        .rsplit('/')
                        .next()
                        .map(|id| format!("{id} deleted")),
                    FirestoreListenEvent::DocumentRemove(left) => left
                        .document
                        .rsplit('/')
                        .next()
                        .map(|id| format!("{id} left")),
                    _ => None,
                };
                if let Some(told) = told {
                    events.send(told)?;
                }
                Ok(())
            }
        })
        .await
        .expect("started");
    assert_eq!(soon(seen.recv()).await.as_deref(), Some("before=1"));
    insert(&db, &item("after", 2)).await.expect("created");
    assert_eq!(soon(seen.recv()).await.as_deref(), Some("after=2"));
    db.fluent()
        .update()
        .in_col("items")
        .document_id("after")
        .object(&item("after", 0))
        .execute::<Item>()
        .await
        .expect("updated");
    assert_eq!(soon(seen.recv()).await.as_deref(), Some("after left"));
    db.fluent()
        .delete()
        .from("items")
        .document_id("before")
        .execute()
        .await
        .expect("deleted");
    assert_eq!(soon(seen.recv()).await.as_deref(), Some("before deleted"));
    soon(listener.shutdown()).await.expect("stopped");
}
