//! What [`Users`](crate::Users) promises.

use std::sync::Arc;

use infrachat_types::TokenFamilyId;

use super::{Harness, at_once, only_winner, region, user_name};
use crate::{MetadataError, TokenFamily, UserRecord};

const NOW: i64 = 1_790_000_000_000;

fn user(name: &str, version: u64, password_hash: &str) -> UserRecord {
    UserRecord {
        name: user_name(name),
        password_hash: password_hash.to_owned(),
        home_region: region(),
        created_at: NOW,
        version,
    }
}

fn family(id: &str, user: &str) -> TokenFamily {
    TokenFamily {
        id: TokenFamilyId::from_text(id),
        user: user_name(user),
        current_hash: [1; 32],
        previous_hash: None,
        rotated_at: NOW,
        expires_at: NOW + 1_000,
        revoked: false,
        version: 1,
    }
}

/// The next version of a sign-in, with another token.
fn rotated(family: &TokenFamily, token: u8) -> TokenFamily {
    TokenFamily {
        current_hash: [token; 32],
        previous_hash: Some(family.current_hash),
        rotated_at: family.rotated_at + 1,
        version: family.version + 1,
        ..family.clone()
    }
}

fn exists(err: &MetadataError) -> bool {
    matches!(err, MetadataError::Exists(_))
}

fn conflict(err: &MetadataError) -> bool {
    matches!(err, MetadataError::Conflict(_))
}

/// A user is read back as created, and nobody else is there.
pub async fn a_user_reads_back(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let alice = user("alice", 1, "hash");
    store.create_user(alice.clone()).await.expect("created");
    assert_eq!(store.user(&alice.name).await, Ok(Some(alice)));
    assert_eq!(store.user(&user_name("bob")).await, Ok(None));
}

/// A second registration of a name is refused, with the same password as with another, and changes
/// nothing.
pub async fn a_taken_name_is_refused_whatever_the_password(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let alice = user("alice", 1, "hash");
    store.create_user(alice.clone()).await.expect("created");
    for second in [alice.clone(), user("alice", 1, "other hash")] {
        let err = store.create_user(second).await.expect_err("taken");
        assert!(exists(&err), "{err:?}");
    }
    assert_eq!(store.user(&alice.name).await, Ok(Some(alice)));
}

/// Of registrations of one name at once, one succeeds, and its record is the one that stays.
pub async fn of_concurrent_registrations_exactly_one_wins(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let answers = at_once((0..20).map(|n| {
        let (store, alice) = (Arc::clone(&store), user("alice", 1, &format!("hash {n}")));
        async move { store.create_user(alice.clone()).await.map(|()| alice) }
    }))
    .await;
    let winner = only_winner(answers, exists);
    assert_eq!(store.user(&user_name("alice")).await, Ok(Some(winner)));
}

/// A copy is taken when it is new or newer, and otherwise changes nothing, which the answer tells.
pub async fn a_copied_user_never_goes_back(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let second = user("alice", 2, "second");
    assert_eq!(store.copy_user(second.clone()).await, Ok(true));
    for stale in [user("alice", 1, "first"), user("alice", 2, "second again")] {
        assert_eq!(store.copy_user(stale).await, Ok(false));
        assert_eq!(store.user(&second.name).await, Ok(Some(second.clone())));
    }
    let third = user("alice", 3, "third");
    assert_eq!(store.copy_user(third.clone()).await, Ok(true));
    assert_eq!(store.user(&third.name).await, Ok(Some(third)));
}

/// A name that came as a copy can't be registered again.
pub async fn a_copied_name_is_taken(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let copy = user("alice", 4, "copy");
    assert_eq!(store.copy_user(copy.clone()).await, Ok(true));
    let err = store.create_user(user("alice", 1, "new")).await;
    assert!(exists(&err.expect_err("taken")));
    assert_eq!(store.user(&copy.name).await, Ok(Some(copy)));
}

/// A sign-in is read back as created and as rotated; its id can't be used twice.
pub async fn a_sign_in_reads_back(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let first = family("f1", "alice");
    assert_eq!(store.family(&first.id).await, Ok(None));
    store.create_family(first.clone()).await.expect("created");
    assert_eq!(store.family(&first.id).await, Ok(Some(first.clone())));
    let again = store.create_family(family("f1", "bob")).await;
    assert!(exists(&again.expect_err("the id is taken")));
    let second = rotated(&first, 2);
    store.update_family(second.clone()).await.expect("rotated");
    assert_eq!(store.family(&first.id).await, Ok(Some(second)));
}

/// Only the version right after the stored one is taken; others change nothing.
pub async fn a_rotation_with_an_outdated_version_conflicts(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let first = family("f1", "alice");
    let unknown = store.update_family(rotated(&first, 2)).await;
    assert!(conflict(&unknown.expect_err("there is no such sign-in")));
    store.create_family(first.clone()).await.expect("created");
    let second = rotated(&first, 2);
    store.update_family(second.clone()).await.expect("rotated");
    let ahead = rotated(&rotated(&second, 3), 4);
    for wrong in [first.clone(), rotated(&first, 5), ahead] {
        let err = store.update_family(wrong).await.expect_err("outdated");
        assert!(conflict(&err), "{err:?}");
        assert_eq!(store.family(&first.id).await, Ok(Some(second.clone())));
    }
}

/// Of rotations of one version at once, one succeeds, and its token is the good one.
pub async fn of_concurrent_rotations_exactly_one_wins(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let first = family("f1", "alice");
    store.create_family(first.clone()).await.expect("created");
    let answers = at_once((2..12).map(|token| {
        let (store, next) = (Arc::clone(&store), rotated(&first, token));
        async move { store.update_family(next.clone()).await.map(|()| next) }
    }))
    .await;
    let winner = only_winner(answers, conflict);
    assert_eq!(store.family(&first.id).await, Ok(Some(winner)));
}

/// Of a user's sign-ins, those are listed that are neither revoked nor past their end, and nobody
/// else's.
pub async fn a_users_sign_ins_leave_out_revoked_and_expired_ones(harness: &dyn Harness) {
    let store = harness.fresh().await;
    for id in ["good", "also-good", "to-revoke"] {
        let family = family(id, "alice");
        store.create_family(family).await.expect("created");
    }
    let ends_now = TokenFamily {
        expires_at: NOW,
        ..family("ends-now", "alice")
    };
    store.create_family(ends_now).await.expect("created");
    let others = store.create_family(family("others", "bob")).await;
    others.expect("created");
    let revoked = TokenFamily {
        revoked: true,
        ..rotated(&family("to-revoke", "alice"), 2)
    };
    store.update_family(revoked).await.expect("revoked");

    let listed = async |now| {
        let families = store.families_of(&user_name("alice"), now).await;
        let mut families = families.expect("listed");
        families.sort_by(|a, b| a.id.cmp(&b.id));
        families
    };
    let good = [family("also-good", "alice"), family("good", "alice")];
    assert_eq!(listed(NOW).await, good);
    assert_eq!(listed(NOW + 1_000).await, []);
    let nobody = store.families_of(&user_name("carol"), NOW).await;
    assert_eq!(nobody, Ok(Vec::new()));
}
