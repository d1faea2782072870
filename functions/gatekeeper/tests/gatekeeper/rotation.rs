//! Refresh tokens: used once, but for a lost answer; and what happens to a thief.

use std::time::Duration;

use infrachat_identity::{RefreshToken, Revocations as _};
use infrachat_metadata::{TokenFamily, Users as _};
use infrachat_proto::gatekeeper::v1::SessionResponse;
use infrachat_types::{ErrorCode, TokenFamilyId};

use crate::world::{PASSWORD, World, refusal};

async fn family(world: &World, id: &TokenFamilyId) -> TokenFamily {
    let family = world.west.store.family(id).await;
    family.expect("available").expect("is there")
}

fn parse(session: &SessionResponse) -> RefreshToken {
    RefreshToken::parse(&session.refresh_token).expect("a refresh token")
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_replaces_the_lost_one() {
    let world = World::start().await;
    let first = world.west.signed_up("alice").await;
    let lost = world.west.refresh(&first.refresh_token).await;
    let lost = lost.expect("refreshes");
    let again = world.west.refresh(&first.refresh_token).await;
    let again = again.expect("within the grace");
    let family = family(&world, parse(&first).family()).await;
    assert!(parse(&again).matches(&family.current_hash));
    assert!(!parse(&lost).matches(&family.current_hash));
    assert!(!family.revoked);
    let next = world.west.refresh(&again.refresh_token).await;
    next.expect("the chain goes on");
}

#[tokio::test]
async fn reuse_after_the_grace_ends_the_sign_in() {
    let world = World::with(|config| config.refresh_grace = Duration::ZERO).await;
    let stolen = world.west.signed_up("alice").await;
    let other = world.west.login("alice", PASSWORD).await.expect("signs in");
    let good = world.west.refresh(&stolen.refresh_token).await;
    let good = good.expect("refreshes");
    let reused = refusal(world.west.refresh(&stolen.refresh_token).await);
    assert_eq!(reused.code, ErrorCode::BadRefreshToken);
    let ended = refusal(world.west.refresh(&good.refresh_token).await);
    assert_eq!(ended.code, ErrorCode::BadRefreshToken);
    let claims = world.verify(&good).await.expect("verifies");
    let revoked = world.west.revocations.is_revoked(&claims).await;
    assert_eq!(revoked, Ok(true), "its access tokens are revoked");
    let other = world.west.refresh(&other.refresh_token).await;
    other.expect("the user's other sign-in goes on");
}

#[tokio::test]
async fn a_replaced_token_ends_the_sign_in_even_within_the_grace() {
    let world = World::start().await;
    let first = world.west.signed_up("alice").await;
    let thief = world.west.refresh(&first.refresh_token).await;
    let thief = thief.expect("refreshes");
    let owner = world.west.refresh(&first.refresh_token).await;
    let owner = owner.expect("within the grace");
    for session in [&thief, &owner] {
        let refused = refusal(world.west.refresh(&session.refresh_token).await);
        assert_eq!(refused.code, ErrorCode::BadRefreshToken);
    }
}

#[tokio::test]
async fn the_grace_is_counted_from_the_first_use() {
    let world = World::start().await;
    let first = world.west.signed_up("alice").await;
    let id = parse(&first).family().clone();
    let refreshed = world.west.refresh(&first.refresh_token).await;
    refreshed.expect("refreshes");
    let rotated_at = family(&world, &id).await.rotated_at;
    for _ in 0..3 {
        let again = world.west.refresh(&first.refresh_token).await;
        again.expect("within the grace");
    }
    assert_eq!(family(&world, &id).await.rotated_at, rotated_at);
}

#[tokio::test]
async fn refreshes_at_the_same_time_never_leave_two_live_chains() {
    let world = World::start().await;
    let first = world.west.signed_up("alice").await;
    let token = &first.refresh_token;
    let (a, b, c, d) = tokio::join!(
        world.west.refresh(token),
        world.east.refresh(token),
        world.west.refresh(token),
        world.east.refresh(token),
    );
    let family = family(&world, parse(&first).family()).await;
    let live = [a, b, c, d]
        .into_iter()
        .map(|session| parse(&session.expect("within the grace")))
        .filter(|token| {
            let previous = family.previous_hash.as_ref();
            token.matches(&family.current_hash) || previous.is_some_and(|h| token.matches(h))
        });
    assert_eq!(live.count(), 1);
    assert!(!family.revoked);
}
