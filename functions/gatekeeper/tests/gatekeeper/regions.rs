//! Across regions: homes, copies, and one region away.

use std::time::Duration;

use infrachat_identity::Revocations as _;
use infrachat_metadata::Users as _;
use infrachat_types::ErrorCode;

use crate::world::{EAST, PASSWORD, WEST, World, name_at_home_in, refusal, region, user};

/// Asks until it holds; the limit is only there to fail.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), asked).await;
    assert!(outcome.is_ok(), "{what}");
}

#[tokio::test]
async fn a_user_is_decided_at_home_and_copied_to_the_other_region() {
    let world = World::start().await;
    let name = name_at_home_in(EAST);
    world.west.signed_up(&name).await;
    let record = async |site: &crate::world::Site| {
        let record = site.store.user(&user(&name)).await;
        record.expect("available")
    };
    let home = record(&world.east).await.expect("is at home");
    assert_eq!(home.home_region, region(EAST));
    assert_eq!(record(&world.west).await, Some(home));
}

#[tokio::test]
async fn other_regions_take_a_copy_when_a_user_is_announced() {
    let world = World::start().await;
    let name = name_at_home_in(WEST);
    world.west.signed_up(&name).await;
    eventually("the user is copied without signing in there", async || {
        let copy = world.east.store.user(&user(&name)).await;
        copy.expect("available").is_some()
    })
    .await;
}

#[tokio::test]
async fn a_user_without_a_copy_is_read_from_home() {
    let world = World::start().await;
    world.fabric.cut(WEST, EAST);
    let name = name_at_home_in(WEST);
    world.west.signed_up(&name).await;
    let session = world.east.login(&name, PASSWORD).await.expect("signs in");
    let claims = world.verify(&session).await.expect("verifies");
    assert_eq!(claims.region, region(EAST), "signed in where they asked");
    let copy = world.east.store.user(&user(&name)).await;
    assert!(copy.expect("available").is_some(), "and copied");
}

#[tokio::test]
async fn while_a_home_is_away_its_new_names_wait_and_its_copied_users_sign_in() {
    let world = World::start().await;
    let name = name_at_home_in(WEST);
    world.west.signed_up(&name).await;
    world.east.login(&name, PASSWORD).await.expect("signs in");
    world.west.store.set_unavailable(true);

    let session = world.east.login(&name, PASSWORD).await;
    let session = session.expect("signs in from the copy");
    let refreshed = world.east.refresh(&session.refresh_token).await;
    refreshed.expect("refreshes, since the sign-in is at home here");
    world.verify(&session).await.expect("verifies");

    let unknown = format!("{name}x");
    let regions = [WEST.to_owned(), EAST.to_owned()];
    let of_west = (0..)
        .map(|n| format!("{unknown}{n}"))
        .find(|name| infrachat_routing::home_region(name, &regions) == Some(WEST))
        .expect("names do not end");
    for refused in [
        refusal(world.east.register(&of_west, PASSWORD).await),
        refusal(world.east.login(&of_west, PASSWORD).await),
    ] {
        assert_eq!(refused.code, ErrorCode::Unavailable);
    }
    let local = format!("new-{}", name_at_home_in(EAST));
    let of_east = (0..)
        .map(|n| format!("{local}{n}"))
        .find(|name| infrachat_routing::home_region(name, &regions) == Some(EAST))
        .expect("names do not end");
    world.east.signed_up(&of_east).await;

    world.west.store.set_unavailable(false);
    world.east.signed_up(&of_west).await;
}

#[tokio::test]
async fn any_region_rotates_a_sign_in_of_another_while_that_one_is_there() {
    let world = World::start().await;
    let first = world.west.signed_up("alice").await;
    let second = world.east.refresh(&first.refresh_token).await;
    let second = second.expect("refreshes");
    let claims = world.verify(&second).await.expect("verifies");
    assert_eq!(claims.region, region(EAST), "signed by whom was asked");
    world.west.store.set_unavailable(true);
    let away = refusal(world.east.refresh(&second.refresh_token).await);
    assert_eq!(away.code, ErrorCode::Unavailable);
    world.west.store.set_unavailable(false);
    let third = world.east.refresh(&second.refresh_token).await;
    third.expect("nothing was used up meanwhile");
}

#[tokio::test]
async fn a_revocation_reaches_the_other_region() {
    let world = World::start().await;
    let session = world.west.signed_up("alice").await;
    let claims = world.verify(&session).await.expect("verifies");
    let revoked = world.west.revoke(&session.refresh_token, false).await;
    revoked.expect("signs out");
    eventually("the other region knows", async || {
        let revoked = world.east.revocations.is_revoked(&claims).await;
        revoked.expect("available")
    })
    .await;
}

#[tokio::test]
async fn signing_out_everywhere_while_a_region_is_away_can_be_repeated() {
    let world = World::start().await;
    let here = world.west.signed_up("alice").await;
    let there = world.east.login("alice", PASSWORD).await.expect("signs in");
    world.east.store.set_unavailable(true);
    let partly = refusal(world.west.revoke(&here.refresh_token, true).await);
    assert_eq!(partly.code, ErrorCode::Unavailable);
    let here_ended = refusal(world.west.refresh(&here.refresh_token).await);
    assert_eq!(here_ended.code, ErrorCode::BadRefreshToken);
    world.east.store.set_unavailable(false);
    let repeated = world.west.revoke(&here.refresh_token, true).await;
    repeated.expect("succeeds now");
    let there_ended = refusal(world.east.refresh(&there.refresh_token).await);
    assert_eq!(there_ended.code, ErrorCode::BadRefreshToken);
}

#[tokio::test]
async fn a_bus_that_is_away_stops_no_sign_in_and_is_admitted_at_sign_out() {
    let world = World::start().await;
    world.fabric.set_down(WEST, true);
    let session = world.west.signed_up("alice").await;
    let refused = refusal(world.west.revoke(&session.refresh_token, false).await);
    assert_eq!(refused.code, ErrorCode::Unavailable);
    world.fabric.set_down(WEST, false);
    let repeated = world.west.revoke(&session.refresh_token, false).await;
    repeated.expect("succeeds now");
}
