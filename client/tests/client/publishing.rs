//! What becomes of messages that are published: resent, refused, given up.

use std::time::Duration;

use crate::support::{World, body, general, message, rejoined, soon, welcome};
use bytes::Bytes;
use infrachat_client::{Client, ErrorCode, ErrorKind, JoinOptions};
use infrachat_proto::chat::v1::{self as chat, client_frame, server_event::Kind};
use infrachat_types::MessageId;

#[tokio::test]
async fn after_a_lost_connection_it_resumes_and_resends_in_order_with_the_same_ids() {
    let mut world = World::start().await;
    let (client, mut session) = world.joined(world.options()).await;
    session
        .tell(Kind::Message(message("bob", [1; 16], "one", "p1")))
        .await;
    assert_eq!(body(&client).await, "one");
    let sending = ["a", "b", "c"].map(|body| client.publish(&general(), body));
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(session.publish().await);
    }
    session.ack(&first[0], 5).await;
    let [a, b, c] = sending;
    assert!(soon(a).await.is_ok());
    drop(session);

    let (mut session, join) = rejoined(&mut world, "shard-0").await;
    assert_eq!(join.position, Bytes::from_static(b"p1"));
    for expected in &first[1..] {
        let again = session.publish().await;
        assert_eq!(again.client_message_id, expected.client_message_id);
        assert_eq!(
            (again.body.clone(), again.attempt),
            (expected.body.clone(), 2)
        );
        session.ack(&again, 6).await;
    }
    assert!(soon(b).await.is_ok() && soon(c).await.is_ok());
    let stats = client.stats();
    assert_eq!((stats.disconnects, stats.rejoins, stats.resent), (1, 1, 2));
}

#[tokio::test]
async fn on_another_shard_acknowledged_messages_go_again_unless_history_has_them() {
    let mut world = World::start().await;
    let (client, mut session) = world.joined(world.options()).await;
    let mut sent = Vec::new();
    for (body, millis) in [("stable", 5), ("acked", 6)] {
        let sending = client.publish(&general(), body);
        sent.push(session.publish().await);
        session.ack(sent.last().expect("sent"), millis).await;
        soon(sending).await.expect("acknowledged");
    }
    let up_to = MessageId::floor_of(5).to_string();
    session
        .tell(Kind::Stable(chat::Stable {
            channel: "#general".to_owned(),
            up_to,
        }))
        .await;
    // What is told before is heard before.
    session
        .tell(Kind::Message(message("bob", [1; 16], "one", "p1")))
        .await;
    assert_eq!(body(&client).await, "one");
    drop(session);

    let (mut session, _) = rejoined(&mut world, "shard-1").await;
    let fresh = client.publish(&general(), "new");
    let again = session.publish().await;
    assert_eq!(
        (again.client_message_id.clone(), again.attempt),
        (sent[1].client_message_id.clone(), 2)
    );
    let new = session.publish().await;
    assert_eq!(
        new.after.clone().expect("follows").client_message_id,
        again.client_message_id
    );
    session.ack(&again, 6).await;
    session.ack(&new, 7).await;
    soon(fresh).await.expect("acknowledged");
}

#[tokio::test]
async fn a_refused_message_and_those_behind_it_come_again_in_order() {
    let mut world = World::start().await;
    let (client, mut session) = world.joined(world.options()).await;
    let sending = ["a", "b"].map(|body| client.publish(&general(), body));
    let first = [session.publish().await, session.publish().await];
    session.refuse(&first[0], ErrorCode::Unavailable).await;
    session.refuse(&first[1], ErrorCode::OutOfOrder).await;
    for (expected, millis) in first.iter().zip(5..) {
        let again = session.publish().await;
        assert_eq!(again.client_message_id, expected.client_message_id);
        session.ack(&again, millis).await;
    }
    for sending in sending {
        soon(sending).await.expect("acknowledged");
    }
}

#[tokio::test]
async fn a_message_that_can_never_succeed_fails_with_its_code() {
    let mut world = World::start().await;
    let (client, mut session) = world.joined(world.options()).await;
    let sending = client.publish(&general(), "too large");
    let publish = session.publish().await;
    session.refuse(&publish, ErrorCode::BodyTooLarge).await;
    let err = soon(sending).await.expect_err("refused");
    assert_eq!(
        (err.code(), err.kind()),
        (Some(ErrorCode::BodyTooLarge), ErrorKind::Refused)
    );
}

#[tokio::test]
async fn publishing_fails_at_its_deadline() {
    let mut world = World::start().await;
    let mut options = world.options();
    options.publish_deadline = Duration::from_millis(50);
    let (client, _session) = world.joined(options).await;
    let err = soon(client.publish(&general(), "lost"))
        .await
        .expect_err("no answer");
    assert_eq!(err.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_shard_allows() {
    let mut world = World::start().await;
    let client = Client::connect(world.options()).await.expect("signed in");
    let name = general();
    let joining = client.join(&name, JoinOptions::default());
    let welcoming = async {
        let mut session = world.session().await;
        let mut narrow = welcome("shard-0");
        narrow.limits = Some(chat::Limits {
            max_in_flight: 2,
            ..Default::default()
        });
        session.welcome_with(narrow).await;
        let join = session.join().await;
        session.joined(&join, b"p0").await;
        session
    };
    let (joined, mut session) = tokio::join!(joining, welcoming);
    joined.expect("joined");
    let _sending = ["a", "b", "c"].map(|body| client.publish(&name, body));
    let first = session.publish().await;
    session.publish().await;
    // Had the third been sent, it would be before this.
    client.typing(&name).expect("open");
    assert!(matches!(
        session.frame().await,
        client_frame::Kind::SetTyping(_)
    ));
    session.ack(&first, 5).await;
    assert_eq!(session.publish().await.body, Bytes::from_static(b"c"));
}
