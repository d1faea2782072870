//! Signing in, and staying signed in.

use std::sync::atomic::Ordering;

use crate::support::World;
use infrachat_client::{Client, ErrorCode, ErrorKind, Password, SignIn};
use infrachat_proto::chat::v1::client_frame;

#[tokio::test]
async fn a_missing_user_is_registered_only_when_asked() {
    let world = World::start().await;
    let mut options = world.options();
    options.user = "bob".parse().expect("valid");
    let err = Client::connect(options.clone())
        .await
        .expect_err("there is no bob");
    assert_eq!(
        (err.code(), err.kind()),
        (Some(ErrorCode::BadCredentials), ErrorKind::NotSignedIn)
    );
    options.sign_in = SignIn::LoginOrRegister;
    let client = Client::connect(options.clone()).await.expect("registered");
    assert_eq!(client.user().as_str(), "bob");
    assert_eq!(client.regions()[0].gatekeeper, world.address);
    Client::connect(options).await.expect("signed in");
}

#[tokio::test]
async fn a_wrong_password_of_a_known_user_is_called_that() {
    let world = World::start().await;
    let mut options = world.options();
    options.password = Password::new("wrong");
    options.sign_in = SignIn::LoginOrRegister;
    let err = Client::connect(options).await.expect_err("refused");
    assert_eq!(err.code(), Some(ErrorCode::BadCredentials));
}

#[tokio::test]
async fn signing_in_waits_when_told_to() {
    let world = World::start().await;
    world.state.busy.store(3, Ordering::SeqCst);
    Client::connect(world.options())
        .await
        .expect("signed in after waiting");
    assert_eq!(world.state.busy.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn signing_in_gives_up_when_the_wait_is_too_long() {
    let world = World::start().await;
    world.state.busy.store(u32::MAX, Ordering::SeqCst);
    let mut options = world.options();
    options.sign_in_deadline = std::time::Duration::from_millis(50);
    let err = Client::connect(options).await.expect_err("too busy");
    assert_eq!(
        (err.code(), err.kind()),
        (Some(ErrorCode::RateLimited), ErrorKind::Unavailable)
    );
}

#[tokio::test]
async fn an_unreachable_server_says_so_at_once() {
    let world = World::start().await;
    let mut options = world.options();
    // Bound, then given back: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    options.server = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let err = Client::connect(options).await.expect_err("nobody listens");
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert!(err.to_string().contains("make run"), "{err}");
}

#[tokio::test]
async fn tokens_are_renewed_in_time_and_told_on_the_open_stream() {
    let mut world = World::start().await;
    world.state.token_life_ms.store(400, Ordering::SeqCst);
    let (_client, mut session) = world.joined(world.options()).await;
    // The first renewal may have come before the session was open.
    for _ in 0..2 {
        match session.frame().await {
            client_frame::Kind::Reauthenticate(renewed) => {
                assert_ne!(renewed.access_token, "access-0");
                world.state.busy.store(2, Ordering::SeqCst);
            }
            other => panic!("expected Reauthenticate, got {other:?}"),
        }
    }
}
