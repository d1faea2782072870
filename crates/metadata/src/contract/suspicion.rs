//! What [`Routing::suspect`](crate::Routing::suspect) promises.

use std::{sync::Arc, time::Duration};

use super::{
    Harness, at_once,
    following::{follow, lease_of, seen},
    routing::{Life, alpha, assert_held_by, beta},
};
use crate::{Lease, LeaseState, LeaseView, Metadata, MetadataError, RoutingView};

/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_secs(1);
/// Well past [`SHORT`].
const WHILE: Duration = Duration::from_secs(2);

impl Life {
    async fn suspect(&self, store: &Arc<dyn Metadata>, ttl: Duration) -> bool {
        let suspected = store.suspect(&self.shard, &self.incarnation, ttl).await;
        suspected.expect("answers")
    }

    async fn is_refused(&self, store: &Arc<dyn Metadata>) {
        let renewed = store.renew_lease(self.lease(0)).await;
        let suspected = MetadataError::Suspected(self.shard.to_string());
        assert_eq!(renewed, Err(suspected));
    }

    async fn view(&self, store: &Arc<dyn Metadata>) -> LeaseView {
        let views = store.leases().await.expect("leases");
        let view = views
            .into_iter()
            .find(|view| view.lease.shard == self.shard);
        view.expect("the shard has a lease")
    }
}

/// A store in which these live.
async fn with(harness: &dyn Harness, lives: &[Life]) -> Arc<dyn Metadata> {
    let store = harness.fresh().await;
    for life in lives {
        life.begin(&store).await;
    }
    store
}

/// A suspect shard's lease says so and only ages, however often it is to be renewed; that it was asked
/// for is known. What the shard holds is held until the lease has run out, and not longer.
pub async fn a_suspect_shards_lease_runs_out(harness: &dyn Harness) {
    let store = with(harness, &[alpha(), beta()]).await;
    let first = alpha().take(&store, LONG).await.expect("free");
    assert!(alpha().suspect(&store, LONG).await);
    assert_held_by(beta().take(&store, LONG).await, &alpha());
    harness.pass(WHILE).await;
    alpha().is_refused(&store).await;
    let view = alpha().view(&store).await;
    assert_eq!(view.lease.state, LeaseState::Suspect);
    assert!(view.age >= WHILE && view.asked < WHILE, "{view:?}");
    let view = beta().view(&store).await;
    assert_eq!(view.lease, beta().lease(0));
    let second = beta().take(&store, SHORT).await.expect("run out");
    assert!(second > first);
    assert_held_by(alpha().take(&store, LONG).await, &beta());
}

/// Once it was not suspected for long enough, a shard renews its lease as if nothing had been.
pub async fn a_suspicion_ends_by_itself(harness: &dyn Harness) {
    let store = with(harness, &[alpha(), beta()]).await;
    assert!(alpha().suspect(&store, SHORT).await);
    harness.pass(WHILE).await;
    alpha().renew(&store).await;
    let view = alpha().view(&store).await;
    assert_eq!(view.lease, alpha().lease(0));
    assert!(view.age < WHILE && view.asked == view.age, "{view:?}");
}

/// Who goes on suspecting keeps a shard out; its lease and the others' are as old as they were.
pub async fn a_repeated_suspicion_lasts_longer_and_makes_no_lease_younger(harness: &dyn Harness) {
    let store = with(harness, &[alpha(), beta()]).await;
    assert!(alpha().suspect(&store, SHORT).await);
    assert!(alpha().suspect(&store, LONG).await);
    harness.pass(WHILE).await;
    assert!(alpha().suspect(&store, LONG).await);
    alpha().is_refused(&store).await;
    for life in [alpha(), beta()] {
        assert!(life.view(&store).await.age >= WHILE);
    }
}

/// A shard that begins another lease is not suspect, and what was found out about its former life
/// says nothing about the present one.
pub async fn another_life_is_not_suspect(harness: &dyn Harness) {
    let store = with(harness, &[alpha(), beta()]).await;
    assert!(alpha().suspect(&store, LONG).await);
    let reborn = Life::new("shard-a", "a2");
    reborn.begin(&store).await;
    assert!(!alpha().suspect(&store, LONG).await);
    assert_eq!(reborn.view(&store).await.lease, reborn.lease(0));
    reborn.renew(&store).await;
}

/// Who drains gives everything back by itself; who has ended or has not been heard of for long is counted
/// out already.
pub async fn a_shard_that_drains_or_is_gone_is_not_suspected(harness: &dyn Harness) {
    let store = with(harness, &[alpha(), beta()]).await;
    let drains = Lease {
        state: LeaseState::Draining,
        ..alpha().lease(0)
    };
    store.renew_lease(drains.clone()).await.expect("renewed");
    assert!(!alpha().suspect(&store, LONG).await);
    store.renew_lease(drains.clone()).await.expect("renewed");
    assert_eq!(alpha().view(&store).await.lease, drains);

    let others = ["shard-c", "shard-d"].map(|name| Life::new(name, "c1"));
    for life in &others {
        life.begin(&store).await;
    }
    beta().end(&store).await;
    assert!(!beta().suspect(&store, LONG).await);
    harness.pass(WHILE).await;
    others[0].renew(&store).await;
    assert!(!others[1].suspect(&store, SHORT).await);
    assert_eq!(others[1].view(&store).await.lease, others[1].lease(0));
}

/// More than half of the shards that live are never suspect, and of few, fewer.
pub async fn half_of_the_shards_are_never_suspect(harness: &dyn Harness) {
    let lives = [1, 2, 3].map(|n| Life::new(&format!("shard-{n}"), "life"));
    let store = with(harness, &lives[..1]).await;
    assert!(!lives[0].suspect(&store, LONG).await);
    lives[1].begin(&store).await;
    lives[2].begin(&store).await;
    assert!(lives[0].suspect(&store, LONG).await);
    assert!(!lives[1].suspect(&store, LONG).await);
    lives[1].renew(&store).await;
    // It counts as long as it asks.
    lives[0].is_refused(&store).await;
    lives[2].end(&store).await;
    assert!(lives[0].suspect(&store, LONG).await);
    lives[1].end(&store).await;
    assert!(!lives[0].suspect(&store, LONG).await);
}

/// Those who suspect at once don't count out more than half either.
pub async fn of_concurrent_suspicions_half_are_refused(harness: &dyn Harness) {
    let lives = [1, 2, 3, 4].map(|n| Life::new(&format!("shard-{n}"), "life"));
    let store = with(harness, &lives).await;
    let answers = at_once(lives.into_iter().map(|life| {
        let store = Arc::clone(&store);
        async move { life.suspect(&store, LONG).await }
    }))
    .await;
    let suspected = answers.into_iter().filter(|suspected| *suspected);
    assert_eq!(suspected.count(), 2);
}

/// A follower sees a shard become suspect, its lease age while it is asked for, and its return.
pub async fn a_follower_sees_a_suspicion_and_its_end(harness: &dyn Harness) {
    let store = with(harness, &[alpha(), beta()]).await;
    let mut watch = follow(&store).await;
    harness.pass(WHILE).await;
    beta().renew(&store).await;
    alpha().renew(&store).await;
    assert!(alpha().suspect(&store, SHORT).await);
    let state = |state| {
        move |view: &RoutingView| {
            lease_of(view, &alpha()).is_some_and(|view| view.lease.state == state)
        }
    };
    seen(&mut watch, "the suspicion", state(LeaseState::Suspect)).await;
    assert!(alpha().suspect(&store, LONG).await);
    harness.pass(WHILE).await;
    alpha().is_refused(&store).await;
    let asked = |view: &RoutingView| {
        let view = lease_of(view, &alpha()).expect("a lease");
        assert!(view.age >= WHILE, "{view:?}");
        view.asked < WHILE
    };
    seen(&mut watch, "that it is asked for", asked).await;

    let reborn = Life::new("shard-a", "a2");
    reborn.begin(&store).await;
    let view = seen(&mut watch, "its return", state(LeaseState::Active)).await;
    let view = lease_of(&view, &reborn).expect("a lease");
    assert_eq!((view.lease, view.asked), (reborn.lease(0), view.age));
}
