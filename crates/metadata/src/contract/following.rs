//! What [`Routing::watch`](crate::Routing::watch) promises.

use std::{sync::Arc, time::Duration};

use infrachat_types::{Epoch, OriginId};
use tokio::time::{Instant, timeout};

use super::{
    Harness,
    routing::{Life, PARTITION, alpha, beta},
};
use crate::{Lease, LeaseState, LeaseView, Metadata, Ownership, RoutingView, RoutingWatch};

/// Longer than anything here takes, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);
const WHILE: Duration = Duration::from_secs(2);

/// The first view that is as asked for.
pub(super) async fn seen(
    watch: &mut RoutingWatch,
    what: &str,
    is: impl Fn(&RoutingView) -> bool,
) -> RoutingView {
    let looking = async {
        loop {
            let view = watch.latest();
            if is(&view) {
                return view;
            }
            watch.changed().await;
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("a follower never saw {what}: {:?}", watch.latest()))
}

/// A follower of a store, once it is current.
pub(super) async fn follow(store: &Arc<dyn Metadata>) -> RoutingWatch {
    let mut watch = store.watch();
    seen(&mut watch, "the store", RoutingView::is_current).await;
    watch
}

pub(super) fn lease_of(view: &RoutingView, life: &Life) -> Option<LeaseView> {
    view.leases().find(|found| found.lease.shard == life.shard)
}

fn age_of(view: &RoutingView, life: &Life) -> Duration {
    lease_of(view, life).expect("the shard has a lease").age
}

fn ownership(view: &RoutingView) -> Option<&Ownership> {
    let mut ownerships = view.ownerships().iter();
    ownerships.find(|found| found.partition == PARTITION)
}

fn owner_is(life: &Life, epoch: Epoch) -> impl Fn(&RoutingView) -> bool {
    let owned = life.owns(epoch);
    move |view| ownership(view) == Some(&owned)
}

/// A follower of an empty store is current and sees nothing; one that comes later sees at once what
/// is there.
pub async fn a_follower_starts_with_what_is_there(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let view = follow(&store).await.latest();
    assert!(view.heard().is_some());
    assert_eq!((view.leases().count(), view.ownerships().len()), (0, 0));

    for life in [alpha(), beta()] {
        life.renew(&store).await;
    }
    let epoch = alpha().take(&store, PATIENCE).await.expect("free");
    let view = follow(&store).await.latest();
    assert_eq!(
        lease_of(&view, &alpha()).map(|view| view.lease),
        Some(alpha().lease(0))
    );
    assert_eq!(
        lease_of(&view, &beta()).map(|view| view.lease),
        Some(beta().lease(0))
    );
    assert_eq!(view.ownerships(), [alpha().owns(epoch)]);
}

/// A follower sees each renewal: what the lease says, and that it is young again.
pub async fn a_follower_sees_a_renewed_lease(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    beta().renew(&store).await;
    let mut watch = follow(&store).await;
    harness.pass(WHILE).await;
    let view = watch.latest();
    assert!(age_of(&view, &alpha()) >= WHILE);

    alpha().renew(&store).await;
    let young = |view: &RoutingView| age_of(view, &alpha()) < WHILE;
    let view = seen(&mut watch, "the renewal", young).await;
    assert!(
        age_of(&view, &beta()) >= WHILE,
        "another's lease stays as old as it is"
    );

    let drains = Lease {
        state: LeaseState::Draining,
        ..alpha().lease(3)
    };
    store.renew_lease(drains.clone()).await.expect("renewed");
    let changed =
        |view: &RoutingView| lease_of(view, &alpha()).is_some_and(|view| view.lease == drains);
    seen(&mut watch, "the new state", changed).await;
}

/// A lease that was ended goes; another shard's stays.
pub async fn a_follower_sees_a_lease_end(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    beta().renew(&store).await;
    let mut watch = follow(&store).await;
    alpha().end(&store).await;
    let gone = |view: &RoutingView| lease_of(view, &alpha()).is_none();
    let view = seen(&mut watch, "the lease go", gone).await;
    assert!(lease_of(&view, &beta()).is_some());
}

/// A partition that changes hands, by a release and without one, is seen to.
pub async fn a_follower_sees_a_partition_change_hands(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    beta().renew(&store).await;
    let mut watch = follow(&store).await;
    let first = alpha().take(&store, PATIENCE).await.expect("free");
    seen(&mut watch, "the first owner", owner_is(&alpha(), first)).await;

    let released = store.release_partition(PARTITION, first).await;
    released.expect("released");
    let free = |view: &RoutingView| ownership(view).is_some_and(|found| found.owner.is_none());
    let view = seen(&mut watch, "the release", free).await;
    assert_eq!(ownership(&view).map(|found| found.epoch), Some(first));

    let second = beta().take(&store, PATIENCE).await.expect("released");
    seen(&mut watch, "the second owner", owner_is(&beta(), second)).await;
    beta().end(&store).await;
    let third = alpha()
        .take(&store, PATIENCE)
        .await
        .expect("its owner is gone");
    seen(&mut watch, "the third owner", owner_is(&alpha(), third)).await;
}

/// Whatever happens at once, no view is of an earlier moment than the one before.
pub async fn a_follower_never_goes_back(harness: &dyn Harness) {
    const ROUNDS: u32 = 30;
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    let mut watch = follow(&store).await;
    let working = async {
        for round in 1..=ROUNDS {
            let lease = alpha().lease(round);
            store.renew_lease(lease).await.expect("renewed");
            alpha().take(&store, PATIENCE).await.expect("its own");
        }
    };
    let watching = async {
        let (mut sessions, mut epoch) = (0, Epoch(0));
        while (sessions, epoch) != (ROUNDS, Epoch(u64::from(ROUNDS))) {
            watch.changed().await;
            let view = watch.latest();
            let lease = lease_of(&view, &alpha()).expect("a lease").lease;
            let taken = ownership(&view).map_or(Epoch(0), |found| found.epoch);
            assert!(lease.sessions >= sessions && taken >= epoch, "{view:?}");
            assert!(
                u64::from(lease.sessions) >= taken.0,
                "a view of no moment: {view:?}"
            );
            (sessions, epoch) = (lease.sessions, taken);
        }
    };
    let watched = timeout(PATIENCE, async { tokio::join!(working, watching) }).await;
    watched.expect("the last is seen");
}

/// A lease that is not renewed only ages, also while nothing else is heard, as it does in the store.
pub async fn an_age_only_grows_until_the_renewal(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    let mut watch = follow(&store).await;
    let first = watch.latest();
    let at_first = age_of(&first, &alpha());
    let began = Instant::now();
    let mut last = Duration::ZERO;
    for round in 1..=3 {
        harness.pass(WHILE / 4).await;
        // Something else makes the store tell its time.
        let renewing = Instant::now();
        beta().renew(&store).await;
        let told = |view: &RoutingView| {
            lease_of(view, &beta()).is_some_and(|view| view.age <= renewing.elapsed())
        };
        seen(&mut watch, "another's lease", told).await;
        let seen = age_of(&watch.latest(), &alpha());
        let leases = store.leases().await.expect("leases");
        let stored = leases.iter().find(|view| view.lease.shard == alpha().shard);
        let stored = stored.expect("alpha's").age;
        assert!(
            seen >= last && seen >= WHILE / 4 * round,
            "{seen:?} after {last:?}"
        );
        assert!(
            seen <= stored,
            "{seen:?}, but {stored:?} when read after that"
        );
        last = seen;
    }
    // By its own clock: its news may have taken longer than that of the views after it.
    let passed = began.elapsed();
    assert!(
        age_of(&first, &alpha()) >= at_first + passed,
        "a view kept for long ages too"
    );
}

/// While the store is away its followers know so and keep what they knew, its leases ageing; when it
/// is back, so are they, with what has changed.
pub async fn a_follower_is_told_when_the_store_is_away(harness: &dyn Harness) {
    let store = harness.fresh().await;
    alpha().renew(&store).await;
    let epoch = alpha().take(&store, PATIENCE).await.expect("free");
    let mut watch = follow(&store).await;
    harness.set_away(true).await;
    let away = |view: &RoutingView| !view.is_current();
    let view = seen(&mut watch, "the store go away", away).await;
    assert_eq!(view.ownerships(), [alpha().owns(epoch)]);
    harness.pass(WHILE).await;
    assert!(!watch.latest().is_current());
    assert!(age_of(&view, &alpha()) >= WHILE);
    assert!(view.heard().is_some_and(|heard| heard.elapsed() >= WHILE));
    let mut late = store.watch();
    assert_eq!(late.latest().heard(), None);

    harness.set_away(false).await;
    let next = Life {
        incarnation: OriginId::from_text("a2"),
        ..alpha()
    };
    next.begin(&store).await;
    let next_epoch = next
        .take(&store, PATIENCE)
        .await
        .expect("its former life's");
    for watch in [&mut watch, &mut late] {
        let back = |view: &RoutingView| {
            view.is_current()
                && owner_is(&next, next_epoch)(view)
                && lease_of(view, &next).is_some_and(|view| view.lease == next.lease(0))
        };
        seen(watch, "the store come back", back).await;
    }
}
