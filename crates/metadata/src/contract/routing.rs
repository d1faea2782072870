//! What [`Routing`](crate::Routing) promises.

use std::{sync::Arc, time::Duration};

use infrachat_types::{Epoch, OriginId, ShardId};

use super::{Harness, at_once, only_winner};
use crate::{Lease, LeaseState, Metadata, MetadataError, Ownership};

pub(super) const PARTITION: u32 = 7;
/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_secs(1);
/// Well past [`SHORT`].
const WHILE: Duration = Duration::from_secs(2);

/// A life of a shard.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) shard: ShardId,
    pub(super) incarnation: OriginId,
}

impl Life {
    pub(super) fn new(shard: &str, incarnation: &str) -> Self {
        Self {
            shard: ShardId::new(shard).expect("a valid shard name"),
            incarnation: OriginId::from_text(incarnation),
        }
    }

    pub(super) fn lease(&self, sessions: u32) -> Lease {
        Lease {
            shard: self.shard.clone(),
            incarnation: self.incarnation.clone(),
            endpoint: format!("{}.example:7000", self.shard),
            zone: "us-west1-b".to_owned(),
            sessions,
            state: LeaseState::Active,
        }
    }

    pub(super) async fn begin(&self, store: &Arc<dyn Metadata>) {
        store.begin_lease(self.lease(0)).await.expect("begun");
    }

    pub(super) async fn renew(&self, store: &Arc<dyn Metadata>) {
        store.renew_lease(self.lease(0)).await.expect("renewed");
    }

    pub(super) async fn end(&self, store: &Arc<dyn Metadata>) {
        let ended = store.end_lease(&self.shard, &self.incarnation).await;
        ended.expect("ended");
    }

    pub(super) async fn take(
        &self,
        store: &Arc<dyn Metadata>,
        ttl: Duration,
    ) -> Result<Epoch, MetadataError> {
        store
            .take_partition(PARTITION, &self.shard, &self.incarnation, ttl)
            .await
    }

    pub(super) fn owns(&self, epoch: Epoch) -> Ownership {
        Ownership {
            partition: PARTITION,
            epoch,
            owner: Some(self.shard.clone()),
            incarnation: self.incarnation.clone(),
        }
    }
}

pub(super) fn alpha() -> Life {
    Life::new("shard-a", "a1")
}

pub(super) fn beta() -> Life {
    Life::new("shard-b", "b1")
}

/// A store in which alpha lives and holds the partition.
async fn held_by_alpha(harness: &dyn Harness) -> (Arc<dyn Metadata>, Epoch) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    beta().renew(&store).await;
    let epoch = alpha().take(&store, LONG).await.expect("free");
    (store, epoch)
}

async fn leases(store: &Arc<dyn Metadata>) -> Vec<Lease> {
    let views = store.leases().await.expect("leases");
    let mut leases: Vec<_> = views.into_iter().map(|view| view.lease).collect();
    leases.sort_by(|a, b| a.shard.cmp(&b.shard));
    leases
}

async fn age(store: &Arc<dyn Metadata>, life: &Life) -> Duration {
    let views = store.leases().await.expect("leases");
    let view = views.iter().find(|view| view.lease.shard == life.shard);
    view.expect("the shard has a lease").age
}

#[track_caller]
pub(super) fn assert_held_by(answer: Result<Epoch, MetadataError>, holder: &Life) {
    let expected = MetadataError::Held {
        partition: PARTITION,
        holder: holder.shard.to_string(),
    };
    assert_eq!(answer, Err(expected));
}

/// Leases are listed as they were last renewed, one a shard, expired ones included.
pub async fn a_lease_reads_back_as_last_renewed(harness: &dyn Harness) {
    let store = harness.fresh().await;
    assert_eq!(leases(&store).await, []);
    alpha().renew(&store).await;
    beta().renew(&store).await;
    let states = [LeaseState::Draining, LeaseState::Active];
    for (sessions, state) in (10..).zip(states) {
        let lease = Lease {
            state,
            ..alpha().lease(sessions)
        };
        store.renew_lease(lease.clone()).await.expect("renewed");
        assert_eq!(leases(&store).await, [lease, beta().lease(0)]);
    }
    harness.pass(WHILE).await;
    assert_eq!(leases(&store).await.len(), 2);
}

/// A lease's age grows with the store's time; renewing resets this one and no other.
pub async fn a_lease_ages_until_it_is_renewed(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    beta().renew(&store).await;
    harness.pass(WHILE).await;
    assert!(age(&store, &alpha()).await >= WHILE);
    alpha().renew(&store).await;
    assert!(age(&store, &alpha()).await < WHILE);
    assert!(age(&store, &beta()).await >= WHILE);
}

/// A lease that its shard ended is not listed.
pub async fn an_ended_lease_is_gone(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    beta().renew(&store).await;
    alpha().end(&store).await;
    assert_eq!(leases(&store).await, [beta().lease(0)]);
    // Ending it twice is no error: the answer to the first may have been lost.
    alpha().end(&store).await;
}

/// A shard's former life can't end the lease of its present one.
pub async fn ending_another_lifes_lease_changes_nothing(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    let reborn = Life::new("shard-a", "a2");
    reborn.begin(&store).await;
    alpha().end(&store).await;
    assert_eq!(leases(&store).await, [reborn.lease(0)]);
}

/// Of two lives of one shard, the later to begin has the lease. The former one is told when it renews,
/// every time, and changes nothing; nor does another shard's lease.
pub async fn of_two_lives_the_later_to_begin_has_the_lease(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().begin(&store).await;
    beta().renew(&store).await;
    let reborn = Life::new("shard-a", "a2");
    reborn.begin(&store).await;
    for _ in 0..2 {
        let renewed = store.renew_lease(alpha().lease(5)).await;
        assert_eq!(renewed, Err(MetadataError::Replaced("shard-a".to_owned())));
        assert_eq!(leases(&store).await, [reborn.lease(0), beta().lease(0)]);
        reborn.renew(&store).await;
    }
    reborn.end(&store).await;
    alpha().renew(&store).await;
    assert_eq!(leases(&store).await, [alpha().lease(0), beta().lease(0)]);
}

/// Of live shards that take a free partition at once, one gets it.
pub async fn of_concurrent_takers_exactly_one_wins(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let lives: Vec<_> = (0..10)
        .map(|n| Life::new(&format!("shard-{n}"), &format!("life-{n}")))
        .collect();
    for life in &lives {
        life.renew(&store).await;
    }
    let answers = at_once(lives.into_iter().map(|life| {
        let store = Arc::clone(&store);
        async move { life.take(&store, LONG).await.map(|epoch| life.owns(epoch)) }
    }))
    .await;
    let winner = only_winner(answers, |err| matches!(err, MetadataError::Held { .. }));
    assert_eq!(store.ownerships().await, Ok(vec![winner]));
}

/// Every partition that ever had an owner is listed, each with its own epoch.
pub async fn ownerships_tell_who_took_what(harness: &dyn Harness) {
    let store = harness.fresh().await;
    assert_eq!(store.ownerships().await, Ok(Vec::new()));
    let mut taken = Vec::new();
    for (partition, life) in [(3, alpha()), (5, beta()), (11, alpha())] {
        life.renew(&store).await;
        let epoch = store
            .take_partition(partition, &life.shard, &life.incarnation, LONG)
            .await
            .expect("free");
        taken.push(Ownership {
            partition,
            ..life.owns(epoch)
        });
    }
    let mut listed = store.ownerships().await.expect("listed");
    listed.sort_by_key(|ownership| ownership.partition);
    assert_eq!(listed, taken);
}

/// Each new owner's epoch is one above the former's, and the first is above zero.
pub async fn epochs_rise_with_every_owner(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let mut last = Epoch(0);
    for life in [alpha(), beta(), alpha(), beta()] {
        life.renew(&store).await;
        let epoch = life.take(&store, LONG).await.expect("free");
        assert_eq!(epoch, Epoch(last.0 + 1));
        assert_eq!(store.ownerships().await, Ok(vec![life.owns(epoch)]));
        life.end(&store).await;
        last = epoch;
    }
}

/// A release leaves the partition without an owner, free for anyone, and its epoch is not used
/// again.
pub async fn epochs_rise_after_a_release_too(harness: &dyn Harness) {
    let (store, first) = held_by_alpha(harness).await;
    let released = store.release_partition(PARTITION, first).await;
    released.expect("released");
    let ownerships = store.ownerships().await.expect("listed");
    assert_eq!(ownerships.len(), 1);
    assert_eq!((ownerships[0].epoch, &ownerships[0].owner), (first, &None));
    let second = beta().take(&store, LONG).await.expect("released");
    assert_eq!(second, Epoch(first.0 + 1));
    assert_eq!(store.ownerships().await, Ok(vec![beta().owns(second)]));
}

/// A partition whose holder lives can't be taken, and trying changes nothing.
pub async fn a_live_holder_refuses(harness: &dyn Harness) {
    let (store, epoch) = held_by_alpha(harness).await;
    harness.pass(WHILE).await;
    assert_held_by(beta().take(&store, LONG).await, &alpha());
    assert_eq!(store.ownerships().await, Ok(vec![alpha().owns(epoch)]));
}

/// A holder that did not renew for longer than the TTL loses the partition, and gets it no more
/// while the new one lives.
pub async fn an_expired_holder_yields(harness: &dyn Harness) {
    let (store, first) = held_by_alpha(harness).await;
    harness.pass(WHILE).await;
    let second = beta().take(&store, SHORT).await.expect("run out");
    assert_eq!(second, Epoch(first.0 + 1));
    assert_held_by(alpha().take(&store, LONG).await, &beta());
}

/// A holder that ended its lease loses the partition at once.
pub async fn a_holder_whose_lease_was_ended_yields(harness: &dyn Harness) {
    let (store, first) = held_by_alpha(harness).await;
    alpha().end(&store).await;
    let second = beta().take(&store, LONG).await.expect("no lease");
    assert_eq!(second, Epoch(first.0 + 1));
}

/// What a shard's former life held is free once its present life has a lease, for itself and for
/// others, and what the present life takes is its own.
pub async fn a_restarted_shard_gives_up_its_former_lifes_partitions(harness: &dyn Harness) {
    let reborn = Life::new("shard-a", "a2");
    for taker in [&reborn, &beta()] {
        let (store, first) = held_by_alpha(harness).await;
        assert_held_by(taker.take(&store, LONG).await, &alpha());
        reborn.begin(&store).await;
        let second = taker.take(&store, LONG).await.expect("another life's");
        assert_eq!(second, Epoch(first.0 + 1));
        let other = Life::new("shard-c", "c1");
        assert_held_by(other.take(&store, LONG).await, taker);
    }
}

/// The owner's own life may take again: its epoch rises.
pub async fn the_same_life_takes_again_under_a_new_epoch(harness: &dyn Harness) {
    let (store, first) = held_by_alpha(harness).await;
    let second = alpha().take(&store, LONG).await.expect("its own");
    assert_eq!(second, Epoch(first.0 + 1));
    assert_eq!(store.ownerships().await, Ok(vec![alpha().owns(second)]));
}

/// A former owner that wakes up late can't release what is somebody else's by now.
pub async fn a_release_under_an_old_epoch_changes_nothing(harness: &dyn Harness) {
    let (store, first) = held_by_alpha(harness).await;
    alpha().end(&store).await;
    let second = beta().take(&store, LONG).await.expect("no lease");
    for (partition, epoch) in [(PARTITION, first), (PARTITION + 1, second)] {
        let released = store.release_partition(partition, epoch).await;
        released.expect("nothing to release");
    }
    assert_eq!(store.ownerships().await, Ok(vec![beta().owns(second)]));
    alpha().renew(&store).await;
    assert_held_by(alpha().take(&store, LONG).await, &beta());
}
