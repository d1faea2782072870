//! What is refused, and with which code.

use std::{num::NonZeroU32, time::Duration};

use infrachat_proto::Refusal;
use infrachat_types::ErrorCode;

use crate::world::{PASSWORD, World, refusal};

const WRONG: &str = "not the password";

fn some(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("not zero")
}

#[tokio::test]
async fn a_taken_name_is_refused_in_every_region() {
    let world = World::start().await;
    world.west.signed_up("alice").await;
    for site in [&world.west, &world.east] {
        let refused = refusal(site.register("alice", "another password").await);
        assert_eq!(refused.code, ErrorCode::UserExists);
    }
    let refused = refusal(world.west.login("alice", "another password").await);
    assert_eq!(refused.code, ErrorCode::BadCredentials);
}

#[tokio::test]
async fn of_two_who_register_a_name_at_once_one_gets_it() {
    let world = World::start().await;
    let (west, east) = tokio::join!(
        world.west.register("alice", "password of one"),
        world.east.register("alice", "password of the other"),
    );
    assert_ne!(west.is_ok(), east.is_ok(), "{west:?} {east:?}");
    let loser = west.err().or(east.err()).expect("one is refused");
    assert_eq!(Refusal::from_status(&loser).code, ErrorCode::UserExists);
}

#[tokio::test]
async fn bad_names_and_passwords_are_refused_with_the_rule() {
    let world = World::start().await;
    for name in ["", "Alice", "a b", &"a".repeat(64)] {
        let refused = refusal(world.west.register(name, PASSWORD).await);
        assert_eq!(refused.code, ErrorCode::BadUserName, "{name}");
        assert!(refused.message.contains("lower-case"), "{refused}");
    }
    for password in ["", "1234567", "long-enough", &"x".repeat(257)] {
        let refused = refusal(world.west.register("long-enough", password).await);
        assert_eq!(refused.code, ErrorCode::BadPassword, "{password}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_told_the_same() {
    let world = World::start().await;
    world.west.signed_up("alice").await;
    let wrong = refusal(world.west.login("alice", WRONG).await);
    assert_eq!(wrong.code, ErrorCode::BadCredentials);
    for unknown in ["nobody", "Not A Name", ""] {
        assert_eq!(refusal(world.west.login(unknown, WRONG).await), wrong);
    }
}

#[tokio::test]
async fn what_is_no_refresh_token_is_refused() {
    let world = World::start().await;
    let session = world.west.signed_up("alice").await;
    let (head, _) = session.refresh_token.rsplit_once('.').expect("parts");
    let elsewhere = session.refresh_token.replace("us-west1", "mars-north1");
    for bad in ["", "nonsense", head, &session.access_token, &elsewhere] {
        let refused = refusal(world.west.refresh(bad).await);
        assert_eq!(refused.code, ErrorCode::BadRefreshToken);
        let refused = refusal(world.west.revoke(bad, true).await);
        assert_eq!(refused.code, ErrorCode::BadRefreshToken);
    }
    let still = world.west.refresh(&session.refresh_token).await;
    still.expect("none of these ended the sign-in");
}

#[tokio::test]
async fn an_expired_refresh_token_is_refused() {
    let world = World::with(|config| config.refresh_token = Duration::ZERO).await;
    let session = world.west.signed_up("alice").await;
    let refused = refusal(world.west.refresh(&session.refresh_token).await);
    assert_eq!(refused.code, ErrorCode::BadRefreshToken);
}

#[tokio::test]
async fn sign_ins_from_one_address_are_limited() {
    let world = World::with(|c| c.sign_ins_per_minute_per_address = some(3)).await;
    for name in ["nobody", "no-one", "none"] {
        let refused = refusal(world.west.login(name, WRONG).await);
        assert_eq!(refused.code, ErrorCode::BadCredentials);
    }
    let refused = refusal(world.west.login("niemand", WRONG).await);
    assert_eq!(refused.code, ErrorCode::RateLimited);
    let wait = refused.retry_after.expect("says how long to wait");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20));
}

#[tokio::test]
async fn guesses_at_one_account_are_limited_and_other_accounts_are_not() {
    let world = World::with(|c| c.sign_ins_per_minute_per_account = some(2)).await;
    world.west.signed_up("alice").await;
    world.west.signed_up("bob").await;
    let guess = || world.west.login("alice", WRONG);
    let (a, b, c, d) = tokio::join!(guess(), guess(), guess(), guess());
    let mut codes = [a, b, c, d].map(|guess| refusal(guess).code.as_str());
    codes.sort_unstable();
    let expected = [
        "bad_credentials",
        "bad_credentials",
        "rate_limited",
        "rate_limited",
    ];
    assert_eq!(codes, expected);
    let right = refusal(world.west.login("alice", PASSWORD).await);
    assert_eq!(right.code, ErrorCode::RateLimited);
    assert!(right.retry_after.is_some());
    world.west.login("bob", PASSWORD).await.expect("signs in");
}

#[tokio::test]
async fn registrations_and_refreshes_from_one_address_are_limited() {
    let world = World::with(|config| {
        config.registrations_per_minute_per_address = some(1);
        config.refreshes_per_minute_per_address = some(1);
    })
    .await;
    let session = world.west.signed_up("alice").await;
    let refused = refusal(world.west.register("bob", PASSWORD).await);
    assert_eq!(refused.code, ErrorCode::RateLimited);
    let session = world.west.refresh(&session.refresh_token).await;
    let session = session.expect("refreshes");
    let refused = refusal(world.west.refresh(&session.refresh_token).await);
    assert_eq!(refused.code, ErrorCode::RateLimited);
}
