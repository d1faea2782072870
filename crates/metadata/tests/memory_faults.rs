//! The faults of the store in memory.

use std::time::Duration;

use infrachat_metadata::{
    Channels as _, Direction, History as _, MemoryMetadata, MetadataError, Routing as _,
    UserRecord, Users as _,
};
use infrachat_types::{ChannelName, Epoch, MessageId, Offset, OriginId, Region, ShardId, UserName};
use tokio::time::Instant;

fn alice() -> UserRecord {
    UserRecord {
        name: UserName::new("alice").expect("valid"),
        password_hash: "$argon2id$secret".to_owned(),
        home_region: Region::new("us-west1").expect("valid"),
        created_at: 1,
        version: 1,
    }
}

fn unavailable<T>(answer: Result<T, MetadataError>) -> bool {
    matches!(answer, Err(MetadataError::Unavailable(_)))
}

#[tokio::test]
async fn an_unavailable_store_answers_so_to_every_concern_and_changes_nothing() {
    let store = MemoryMetadata::new();
    let channel = ChannelName::new("#general").expect("valid");
    let shard = ShardId::new("shard-a").expect("valid");
    let life = OriginId::from_text("life");
    store.set_unavailable(true);
    assert!(unavailable(store.create_user(alice()).await));
    assert!(unavailable(store.user(&alice().name).await));
    assert!(unavailable(store.channel(&channel).await));
    assert!(unavailable(store.append_history(1, Epoch(1), &[]).await));
    let page = store.history(&channel, Direction::After(MessageId::MIN), 1);
    assert!(unavailable(page.await));
    let page = store.history_appended_after(&channel, Epoch(0), Offset(0), 1);
    assert!(unavailable(page.await));
    let taken = store.take_partition(1, &shard, &life, Duration::ZERO).await;
    assert!(unavailable(taken));
    assert!(unavailable(store.leases().await));

    store.set_unavailable(false);
    assert_eq!(store.user(&alice().name).await, Ok(None));
    assert_eq!(store.ownerships().await, Ok(Vec::new()));
    store.create_user(alice()).await.expect("back again");
}

#[tokio::test(start_paused = true)]
async fn every_call_takes_as_long_as_set() {
    const LATENCY: Duration = Duration::from_millis(250);
    let store = MemoryMetadata::new();
    store.set_latency(LATENCY);
    let began = Instant::now();
    store.create_user(alice()).await.expect("created");
    assert_eq!(began.elapsed(), LATENCY);
    store.leases().await.expect("listed");
    assert_eq!(began.elapsed(), LATENCY * 2);

    store.set_latency(Duration::ZERO);
    store.leases().await.expect("listed");
    assert_eq!(began.elapsed(), LATENCY * 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_under_way_when_the_store_goes_away_changes_nothing() {
    let store = std::sync::Arc::new(MemoryMetadata::new());
    store.set_latency(Duration::from_millis(250));
    let call = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move { store.create_user(alice()).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    store.set_unavailable(true);
    assert!(unavailable(call.await.expect("no panic")));
    store.set_unavailable(false);
    assert_eq!(store.user(&alice().name).await, Ok(None));
}

#[tokio::test]
async fn showing_the_store_shows_no_record() {
    let store = MemoryMetadata::new();
    store.create_user(alice()).await.expect("created");
    let shown = format!("{store:?}");
    assert!(shown.starts_with("MemoryMetadata"), "{shown}");
    assert!(
        !shown.contains("argon2") && !shown.contains("alice"),
        "{shown}"
    );
}
