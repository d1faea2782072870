//! Revocations in the store alone.

use std::{sync::Arc, time::Duration};

use infrachat_identity::Revocations as _;
use infrachat_metadata::{MemoryMetadata, RevocationRecords as _};
use infrachat_revocations::StoredRevocations;
use tokio::{task::JoinSet, time::Instant};

use crate::world::{claims, end, ended, is_ended};

const LATENCY: Duration = Duration::from_millis(300);

fn stored() -> (Arc<MemoryMetadata>, StoredRevocations) {
    let store = Arc::new(MemoryMetadata::new());
    (Arc::clone(&store), StoredRevocations::new(store))
}

mod contract {
    infrachat_identity::revocations_contract!(async { super::stored().1 });
}

#[tokio::test(start_paused = true)]
async fn all_callers_share_one_read_a_second() {
    let (store, revocations) = stored();
    store.set_latency(LATENCY);
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let revocations = revocations.clone();
        callers.spawn(async move { is_ended(&revocations, "1").await });
    }
    for answer in callers.join_all().await {
        assert_eq!(answer, Ok(false));
    }
    assert_eq!(began.elapsed(), LATENCY);
    assert_eq!(is_ended(&revocations, "1").await, Ok(false));
    assert_eq!(began.elapsed(), LATENCY);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_revokes_is_known_within_a_second() {
    let (store, revocations) = stored();
    assert_eq!(is_ended(&revocations, "1").await, Ok(false));
    store.add_revocation(ended("1")).await.expect("added");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(is_ended(&revocations, "1").await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_does_not_stop_the_read_for_others() {
    let (store, revocations) = stored();
    store.set_latency(LATENCY);
    let began = Instant::now();
    let claims = claims("1");
    let hung_up = tokio::time::timeout(LATENCY / 2, revocations.is_revoked(&claims)).await;
    assert!(hung_up.is_err());
    assert_eq!(is_ended(&revocations, "1").await, Ok(false));
    assert_eq!(began.elapsed(), LATENCY);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_or_hangs_gives_no_answer_and_is_asked_again() {
    let (store, revocations) = stored();
    end(&revocations, "1").await.expect("kept");
    store.set_unavailable(true);
    assert!(is_ended(&revocations, "1").await.is_err());
    assert!(revocations.all().await.is_err());
    assert!(end(&revocations, "2").await.is_err());

    store.set_unavailable(false);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(is_ended(&revocations, "1").await, Ok(true));
    assert_eq!(is_ended(&revocations, "2").await, Ok(false));

    store.set_latency(Duration::from_secs(3_600));
    tokio::time::advance(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert!(is_ended(&revocations, "1").await.is_err());
    assert!(is_ended(&revocations, "1").await.is_err());
    assert!(began.elapsed() < Duration::from_secs(3));
}
