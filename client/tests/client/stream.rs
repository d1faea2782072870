//! What the library does with a stream: resuming, resending, dropping what came before.

use std::{sync::atomic::Ordering, time::Duration};

use crate::support::{World, body, general, message, next_chat, rejoined, soon, welcome};
use bytes::Bytes;
use infrachat_client::{Client, ClientError, ErrorCode, ErrorKind, Event, JoinOptions, Region};
use infrachat_proto::chat::v1::{self as chat, client_frame, server_event::Kind};
use infrachat_proto::switchboard::v1::Route;

#[tokio::test]
async fn a_message_is_shown_once_and_ones_own_never() {
    let mut world = World::start().await;
    let (client, mut session) = world.joined(world.options()).await;
    let sending = client.publish(&general(), "mine");
    let mine = session.publish().await;
    session.ack(&mine, 5).await;
    soon(sending).await.expect("acknowledged");
    for (id, text) in [([1; 16], "one"), ([1; 16], "one"), ([2; 16], "two")] {
        session
            .tell(Kind::Message(message("bob", id, text, "p")))
            .await;
    }
    let echo: [u8; 16] = mine
        .client_message_id
        .as_ref()
        .try_into()
        .expect("16 bytes");
    session
        .tell(Kind::Message(message("alice", echo, "mine", "p")))
        .await;
    session
        .tell(Kind::Message(message(
            "alice",
            [7; 16],
            "from my phone",
            "p",
        )))
        .await;
    assert_eq!(body(&client).await, "one");
    assert_eq!(body(&client).await, "two");
    assert_eq!(body(&client).await, "from my phone");
    let stats = client.stats();
    assert_eq!(
        (
            stats.duplicates_dropped,
            stats.echoes_dropped,
            stats.received
        ),
        (1, 1, 3)
    );
}

#[tokio::test]
async fn a_redirect_is_followed() {
    let mut world = World::start().await;
    let mut other = World::start().await;
    let (client, mut left_behind) = world.joined(world.options()).await;
    let redirect = chat::Redirect {
        channel: "#general".to_owned(),
        endpoint: other.address.clone(),
        ..Default::default()
    };
    left_behind.tell(Kind::Redirect(redirect)).await;
    let (mut session, join) = rejoined(&mut other, "shard-1").await;
    assert_eq!(join.position, Bytes::from_static(b"p0"));
    left_behind.end().await;
    let sending = client.publish(&general(), "there");
    let publish = session.publish().await;
    session.ack(&publish, 5).await;
    soon(sending).await.expect("acknowledged");
}

#[tokio::test]
async fn a_redirect_without_an_address_and_no_owner_ask_switchboard_again() {
    let mut world = World::start().await;
    let (_client, session) = world.joined(world.options()).await;
    let no_owner = Route {
        code: "no_owner".to_owned(),
        retry_after_ms: 10,
        ..Default::default()
    };
    world
        .state
        .routes
        .lock()
        .expect("not poisoned")
        .push(no_owner);
    let asked = world.state.resolved.load(Ordering::SeqCst);
    session
        .tell(Kind::Redirect(chat::Redirect {
            channel: "#general".to_owned(),
            ..Default::default()
        }))
        .await;
    let mut session = session;
    let join = session.join().await;
    assert_eq!(join.channel, "#general");
    assert_eq!(world.state.resolved.load(Ordering::SeqCst), asked + 2);
}

#[tokio::test]
async fn going_away_moves_the_client_to_where_it_is_told() {
    let mut world = World::start().await;
    let mut other = World::start().await;
    let (_client, session) = world.joined(world.options()).await;
    let told = chat::GoAway {
        reconnect_after_ms: 20,
        reason: "draining".to_owned(),
        resume_endpoint: other.address.clone(),
    };
    session.tell(Kind::GoAway(told)).await;
    let (_session, join) = rejoined(&mut other, "shard-1").await;
    assert_eq!(join.position, Bytes::from_static(b"p0"));
}

#[tokio::test]
async fn a_close_for_good_ends_the_client_and_fails_what_waits() {
    let mut world = World::start().await;
    let (client, mut session) = world.joined(world.options()).await;
    let sending = client.publish(&general(), "never");
    session.publish().await;
    let close = chat::Close {
        code: "token_revoked".to_owned(),
        reason: "signed out".to_owned(),
        ..Default::default()
    };
    session.tell(Kind::Close(close)).await;
    let err = soon(sending).await.expect_err("closed");
    assert_eq!(err.kind(), ErrorKind::NotSignedIn);
    loop {
        match soon(client.next_event()).await {
            Some(Event::Closed { code, .. }) => assert_eq!(code, "token_revoked"),
            Some(_) => {}
            None => break,
        }
    }
    assert!(
        client
            .join(&general(), JoinOptions::default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_expired_token_is_renewed_before_the_next_session() {
    let mut world = World::start().await;
    let (_client, session) = world.joined(world.options()).await;
    let close = chat::Close {
        code: "token_expired".to_owned(),
        reconnect: true,
        ..Default::default()
    };
    session.tell(Kind::Close(close)).await;
    let mut session = world.session().await;
    assert_eq!(session.welcome("shard-0").await.access_token, "access-1");
}

#[tokio::test]
async fn a_silent_shard_is_left() {
    let mut world = World::start().await;
    let client = Client::connect(world.options()).await.expect("signed in");
    let name = general();
    let joining = client.join(&name, JoinOptions::default());
    let playing = async {
        let mut silent = world.session().await;
        let mut impatient = welcome("shard-0");
        (
            impatient.heartbeat_interval_ms,
            impatient.heartbeat_timeout_ms,
        ) = (20, 100);
        silent.welcome_with(impatient).await;
        let mut session = world.session().await;
        session.welcome("shard-0").await;
        let join = session.join().await;
        session.joined(&join, b"p0").await;
        drop(silent);
    };
    let (joined, ()) = tokio::join!(joining, playing);
    joined.expect("joined at last");
}

#[tokio::test]
async fn a_slow_application_is_felt_by_the_shard_and_loses_nothing() {
    let mut world = World::start().await;
    let mut options = world.options();
    options.event_buffer = 4;
    let (client, session) = world.joined(options).await;
    let text = "x".repeat(16 * 1024);
    let mut told = 0_u32;
    // The fake shard's queue holds one event, so a send that waits means that nobody reads.
    loop {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&told.to_le_bytes());
        let next = session.tell(Kind::Message(message("bob", id, &text, "p")));
        if tokio::time::timeout(Duration::from_millis(300), next)
            .await
            .is_err()
        {
            break;
        }
        told += 1;
        assert!(
            told < 10_000,
            "the stream is read though nobody asks for events"
        );
    }
    for expected in 0..told {
        match next_chat(&client).await {
            Event::Message(message) => {
                assert_eq!(
                    message.client_message_id.as_bytes()[..4],
                    expected.to_le_bytes()
                );
            }
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn leaving_waits_for_what_was_said_and_ends_the_stream() {
    let mut world = World::start().await;
    let (client, mut session) = world.joined(world.options()).await;
    let sending = client.publish(&general(), "bye");
    let name = general();
    let leaving = client.leave(&name);
    let playing = async {
        let publish = session.publish().await;
        session.ack(&publish, 5).await;
        assert!(matches!(
            session.frame().await,
            client_frame::Kind::Leave(_)
        ));
        let left = chat::Left {
            channel: "#general".to_owned(),
            ..Default::default()
        };
        session.tell(Kind::Left(left)).await;
        session.end().await;
    };
    let (left, ()) = tokio::join!(leaving, playing);
    left.expect("left");
    soon(sending).await.expect("acknowledged");
    let err = client.publish(&name, "late").await.expect_err("not joined");
    assert_eq!(err.kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn a_refused_join_says_why_and_does_not_try_again() {
    let mut world = World::start().await;
    let client = Client::connect(world.options()).await.expect("signed in");
    let name = general();
    let joining = client.join(&name, JoinOptions::default());
    let playing = async {
        let mut session = world.session().await;
        session.welcome("shard-0").await;
        let join = session.join().await;
        let refusal = infrachat_client::Refusal::new(ErrorCode::ChannelNotFound, "create it");
        session
            .tell(refusal.into_event(&join.channel, Bytes::new()))
            .await;
        session.end().await;
    };
    let (joined, ()) = tokio::join!(joining, playing);
    assert_eq!(
        joined.expect_err("refused").code(),
        Some(ErrorCode::ChannelNotFound)
    );
}

#[tokio::test]
async fn a_gap_moves_the_position_and_is_told() {
    let mut world = World::start().await;
    let (client, session) = world.joined(world.options()).await;
    let gap = chat::Gap {
        channel: "#general".to_owned(),
        to: Bytes::from_static(b"p7"),
        missed: 3,
        code: "slow_reader".to_owned(),
        ..Default::default()
    };
    session.tell(Kind::Gap(gap)).await;
    assert!(matches!(
        next_chat(&client).await,
        Event::Gap { missed: 3, .. }
    ));
    drop(session);
    let (_session, join) = rejoined(&mut world, "shard-0").await;
    assert_eq!(join.position, Bytes::from_static(b"p7"));
}

#[tokio::test]
async fn history_is_read_and_creating_a_taken_name_is_refused() {
    let world = World::start().await;
    let client = Client::connect(world.options()).await.expect("signed in");
    let (messages, more) = client
        .history(&general(), Default::default(), 10)
        .await
        .expect("history");
    assert_eq!((messages.len(), more), (1, true));
    let err = client
        .create_channel(&general(), Default::default())
        .await
        .expect_err("taken");
    assert_eq!(err.code(), Some(ErrorCode::ChannelExists));
    client.sign_out().await.expect("signed out");
}

#[tokio::test]
async fn a_region_without_a_shard_is_left_for_another_after_a_while() {
    let world = World::start().await;
    let mut other = World::start().await;
    *world.state.other.lock().expect("not poisoned") = Some(other.address.clone());
    let no_owner = Route {
        code: "no_owner".to_owned(),
        retry_after_ms: 5,
        ..Default::default()
    };
    let never = std::iter::repeat_n(no_owner, 10_000);
    world
        .state
        .routes
        .lock()
        .expect("not poisoned")
        .extend(never);
    let mut options = world.options();
    options.failover_after = Duration::from_millis(50);
    options.fallback_regions = vec![Region::new("asia-northeast1").expect("valid")];
    let client = Client::connect(options).await.expect("signed in");
    let name = general();
    let joining = client.join(&name, JoinOptions::default());
    let (joined, _session) = tokio::join!(joining, rejoined(&mut other, "shard-1"));
    joined.expect("joined in the other region");
}

#[tokio::test]
async fn a_region_that_is_not_to_be_left_is_not_and_one_that_is_not_there_is_refused() {
    let world = World::start().await;
    let other = World::start().await;
    *world.state.other.lock().expect("not poisoned") = Some(other.address.clone());
    let no_owner = Route {
        code: "no_owner".to_owned(),
        retry_after_ms: 5,
        ..Default::default()
    };
    let never = std::iter::repeat_n(no_owner, 10_000);
    let routes = || world.state.routes.lock().expect("not poisoned");
    routes().extend(never);
    let mut options = world.options();
    options.failover_after = Duration::from_millis(5);
    options.call_deadline = Duration::from_millis(300);
    let client = Client::connect(options).await.expect("signed in");
    // The other region would have let it in.
    let name = general();
    let joined = client.join(&name, JoinOptions::default()).await;
    let err = joined.expect_err("not joined");
    assert!(matches!(err, ClientError::TimedOut { .. }), "{err}");

    let mut options = world.options();
    options.fallback_regions = vec![Region::new("europe-west1").expect("valid")];
    let err = Client::connect(options).await.expect_err("no such region");
    assert!(err.to_string().contains("asia-northeast1"), "{err}");
}
