//! What [`RevocationRecords`](crate::RevocationRecords) promises.

use std::sync::Arc;

use infrachat_types::{Revocation, TokenFamilyId};

use super::{Harness, at_once, user_name};
use crate::Metadata;

const NOW: i64 = 1_790_000_000_000;

/// Of a user's sign-in, or of all when it has no name.
fn revocation(user: &str, family: &str) -> Revocation {
    Revocation {
        user: user_name(user),
        family: (!family.is_empty()).then(|| TokenFamilyId::from_text(family)),
        issued_until: NOW,
        forget_after: NOW + 1_000,
    }
}

fn lasting(issued_until: i64, forget_after: i64) -> Revocation {
    Revocation {
        issued_until,
        forget_after,
        ..revocation("alice", "f1")
    }
}

async fn add(store: &Arc<dyn Metadata>, revocations: &[Revocation]) {
    for revocation in revocations {
        let added = store.add_revocation(revocation.clone()).await;
        added.expect("added");
    }
}

async fn listed(store: &Arc<dyn Metadata>, now: i64) -> Vec<Revocation> {
    let mut listed = store.revocations(now).await.expect("listed");
    listed.sort_by(|a, b| (&a.user, &a.family).cmp(&(&b.user, &b.family)));
    listed
}

/// A revocation is listed as it was given; without any there are none.
pub async fn a_revocation_reads_back(harness: &dyn Harness) {
    let store = harness.fresh().await;
    assert_eq!(listed(&store, NOW).await, []);
    let given = lasting(NOW - 7, NOW + 7);
    add(&store, std::slice::from_ref(&given)).await;
    assert_eq!(listed(&store, NOW).await, [given]);
}

/// Revoking a user and revoking each sign-in are records apart, whatever the ids of the sign-ins.
pub async fn a_user_and_each_sign_in_are_revoked_apart(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let given = [
        ("alice", ""),
        ("alice", "f/1"),
        ("alice", "f1"),
        ("bob", ""),
    ]
    .map(|(user, family)| revocation(user, family));
    add(&store, &given).await;
    assert_eq!(listed(&store, NOW).await, given);
}

/// Of both times the later holds, whichever came first, and each for itself.
pub async fn revoking_again_keeps_the_later_times(harness: &dyn Harness) {
    for (first, second) in [
        (lasting(NOW, NOW + 1_000), lasting(NOW + 1, NOW + 1_001)),
        (lasting(NOW + 1, NOW + 1_001), lasting(NOW, NOW + 1_000)),
        (lasting(NOW, NOW + 1_001), lasting(NOW + 1, NOW + 1_000)),
        (lasting(NOW + 1, NOW + 1_000), lasting(NOW, NOW + 1_001)),
    ] {
        let store = harness.fresh().await;
        add(&store, &[first, second]).await;
        assert_eq!(listed(&store, NOW).await, [lasting(NOW + 1, NOW + 1_001)]);
    }
}

/// Revocations of one sign-in at once all succeed, and none takes back what another said.
pub async fn of_concurrent_revocations_the_latest_times_hold(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let answers = at_once((0..4).map(|n| {
        let (store, given) = (Arc::clone(&store), lasting(NOW + n, NOW + 1_000 - n));
        async move { store.add_revocation(given).await }
    }))
    .await;
    assert_eq!(answers, vec![Ok(()); 4]);
    assert_eq!(listed(&store, NOW).await, [lasting(NOW + 3, NOW + 1_000)]);
}

/// A revocation is listed up to its `forget_after`, to the millisecond, and not after it.
pub async fn a_revocation_is_listed_until_it_is_forgotten(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let later = Revocation {
        forget_after: NOW + 2_000,
        ..revocation("bob", "")
    };
    let given = [revocation("alice", ""), later];
    add(&store, &given).await;
    assert_eq!(listed(&store, NOW + 1_000).await, given);
    assert_eq!(listed(&store, NOW + 1_001).await, given[1..]);
    assert_eq!(listed(&store, NOW + 2_001).await, []);
}
