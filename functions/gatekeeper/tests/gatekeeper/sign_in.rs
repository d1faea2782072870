//! What works: register, sign in, refresh, sign out.

use infrachat_bus::{ConsumeLimits, EventBus as _, Subscription, Topic};
use infrachat_identity::Revocations as _;
use infrachat_metadata::Users as _;
use infrachat_proto::bus::v1::{ControlEvent, control_event::Kind};
use infrachat_types::{ErrorCode, unix_millis};
use prost::Message as _;

use crate::world::{PASSWORD, WEST, World, name_at_home_in, refusal, user};

#[tokio::test]
async fn who_registers_is_signed_in_with_a_token_that_verifies() {
    let world = World::start().await;
    let before = unix_millis();
    let session = world.west.signed_up("alice").await;
    assert_eq!(session.user, "alice");
    assert!(session.access_expires_at_ms > before);
    assert!(session.refresh_expires_at_ms > session.access_expires_at_ms);
    let claims = world.verify(&session).await.expect("verifies");
    assert_eq!(claims.user.as_str(), "alice");
    assert_eq!(claims.region.as_str(), WEST);
    assert_eq!(claims.expires_at, session.access_expires_at_ms);
}

#[tokio::test]
async fn the_answer_names_this_region_first() {
    let world = World::start().await;
    let regions = |session: infrachat_proto::gatekeeper::v1::SessionResponse| {
        let names = session.regions.into_iter();
        names.map(|r| (r.region, r.switchboard)).collect::<Vec<_>>()
    };
    let west = regions(world.west.signed_up("alice").await);
    let east = regions(world.east.login("alice", PASSWORD).await.expect("signs in"));
    assert_eq!(west[0], (WEST.to_owned(), format!("switch.{WEST}:443")));
    assert_eq!(east, west.into_iter().rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn each_sign_in_is_a_family_of_its_own() {
    let world = World::start().await;
    let registered = world.west.signed_up("alice").await;
    let signed_in = world.west.login("alice", PASSWORD).await;
    let signed_in = signed_in.expect("signs in");
    let first = world.verify(&registered).await.expect("verifies");
    let second = world.verify(&signed_in).await.expect("verifies");
    assert_ne!(first.family, second.family);
    assert_ne!(first.jti, second.jti);
}

#[tokio::test]
async fn a_refresh_gives_new_tokens_of_the_same_sign_in() {
    let world = World::start().await;
    let first = world.west.signed_up("alice").await;
    let second = world.west.refresh(&first.refresh_token).await;
    let second = second.expect("refreshes");
    assert_ne!(second.refresh_token, first.refresh_token);
    assert_eq!(second.user, "alice");
    let before = world.verify(&first).await.expect("verifies");
    let after = world.verify(&second).await.expect("verifies");
    assert_eq!(before.family, after.family);
    assert_ne!(before.jti, after.jti);
    let third = world.west.refresh(&second.refresh_token).await;
    third.expect("refreshes again");
}

#[tokio::test]
async fn signing_out_ends_one_sign_in_and_no_other() {
    let world = World::start().await;
    let ended = world.west.signed_up("alice").await;
    let other = world.west.login("alice", PASSWORD).await.expect("signs in");
    let revoked = world.west.revoke(&ended.refresh_token, false).await;
    revoked.expect("signs out");
    let refused = refusal(world.west.refresh(&ended.refresh_token).await);
    assert_eq!(refused.code, ErrorCode::BadRefreshToken);
    let is_revoked = async |session| {
        let claims = world.verify(session).await.expect("verifies");
        world.west.revocations.is_revoked(&claims).await
    };
    assert_eq!(is_revoked(&ended).await, Ok(true));
    assert_eq!(is_revoked(&other).await, Ok(false));
    let again = world.west.revoke(&ended.refresh_token, false).await;
    again.expect("signing out again is no error");
    world
        .west
        .refresh(&other.refresh_token)
        .await
        .expect("the other sign-in goes on");
}

#[tokio::test]
async fn signing_out_everywhere_ends_every_sign_in_in_every_region() {
    let world = World::start().await;
    let here = world.west.signed_up("alice").await;
    let there = world.east.login("alice", PASSWORD).await.expect("signs in");
    let bob = world.west.signed_up("bob").await;
    let revoked = world.west.revoke(&here.refresh_token, true).await;
    revoked.expect("signs out");
    for session in [&here, &there] {
        let refused = refusal(world.west.refresh(&session.refresh_token).await);
        assert_eq!(refused.code, ErrorCode::BadRefreshToken);
        let claims = world.verify(session).await.expect("verifies");
        let revoked = world.west.revocations.is_revoked(&claims).await;
        assert_eq!(revoked, Ok(true));
    }
    let bob = world.west.refresh(&bob.refresh_token).await;
    bob.expect("others are not concerned");
    let back = world.west.login("alice", PASSWORD).await.expect("signs in");
    let claims = world.verify(&back).await.expect("verifies");
    let revoked = world.west.revocations.is_revoked(&claims).await;
    assert_eq!(revoked, Ok(false), "a later sign-in is good");
}

#[tokio::test]
async fn decisions_are_announced_without_secrets() {
    let world = World::start().await;
    let bus = world.fabric.bus(WEST);
    let subscription = Subscription {
        topic: Topic {
            region: WEST.to_owned(),
            name: "control".to_owned(),
        },
        group: "test".to_owned(),
    };
    bus.ensure(&subscription).await.expect("is made");
    let limits = ConsumeLimits::default();
    let mut heard = bus.consume(&subscription, limits).await.expect("consumes");
    let name = name_at_home_in(WEST);
    let session = world.west.signed_up(&name).await;

    let delivery = heard.next().await.expect("an event");
    let payload = delivery.event.payload.clone();
    delivery.ack();
    let record = world.west.store.user(&user(&name)).await;
    let record = record.expect("available").expect("is there");
    let contains = |secret: &str| {
        payload
            .windows(secret.len())
            .any(|w| w == secret.as_bytes())
    };
    assert!(!contains(&record.password_hash) && !contains(PASSWORD));
    let event = ControlEvent::decode(payload).expect("decodes");
    let Some(Kind::UserChanged(changed)) = event.kind else {
        panic!("not a change of a user: {event:?}");
    };
    assert_eq!((changed.user.as_str(), changed.version), (name.as_str(), 1));
    assert_eq!(changed.home_region, WEST);

    let claims = world.verify(&session).await.expect("verifies");
    let revoked = world.west.revoke(&session.refresh_token, false).await;
    revoked.expect("signs out");
    let delivery = heard.next().await.expect("an event");
    let event = ControlEvent::decode(delivery.event.payload.clone()).expect("decodes");
    delivery.ack();
    let Some(Kind::Revoked(revoked)) = event.kind else {
        panic!("not a revocation: {event:?}");
    };
    assert_eq!(revoked.user, name);
    assert_eq!(revoked.family_id, claims.family.as_str());
    assert!(revoked.forget_after_ms > claims.expires_at);
}
