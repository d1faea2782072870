//! What is said reaches everyone once, in both regions, and is not echoed.
#![allow(clippy::expect_used)]

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use infrachat_bus::Faults;
use infrachat_e2e::{ASIA, RawSession, TestStack, WEST};
use infrachat_proto::chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind};
use infrachat_types::ClientMessageId;

#[tokio::test]
async fn everyone_in_both_regions_gets_it_and_the_sending_session_does_not() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    let mut charlie = stack.joined(ASIA, "charlie", "#general").await;
    let mut alice_elsewhere = stack
        .session_for(WEST, &alice.token.clone(), "#general")
        .await;
    alice_elsewhere.join("#general").await;

    let ack = alice.say("#general", "hello").await;
    for session in [&mut bob, &mut charlie, &mut alice_elsewhere] {
        let message = session.message().await;
        assert_eq!(
            (message.sender.as_str(), &message.body[..]),
            ("alice", &b"hello"[..])
        );
        assert_eq!(message.message_id, ack.message_id);
    }
    bob.say("#general", "and you?").await;
    assert_eq!(
        alice.text().await,
        "and you?",
        "nothing came before it: no echo"
    );
    assert_eq!(
        charlie.text().await,
        "and you?",
        "the first message came once"
    );
}

#[tokio::test]
async fn the_sender_hears_when_history_has_it() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let ack = alice.say("#general", "hello").await;
    let up_to = alice
        .until(|kind| match kind {
            Kind::Stable(stable) => Some(stable.up_to),
            _ => None,
        })
        .await;
    assert_eq!(up_to, ack.message_id);
}

#[tokio::test]
async fn a_message_sent_twice_is_shown_once_and_acknowledged_twice() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    let mut charlie = stack.joined(ASIA, "charlie", "#general").await;
    let id = ClientMessageId::random();
    alice.publish_as(id, 1, "#general", "once").await;
    let first = alice.ack_of(id).await;
    alice.publish_as(id, 2, "#general", "once").await;
    let second = alice.ack_of(id).await;
    assert_eq!(first.message_id, second.message_id);
    assert!(!first.duplicate && second.duplicate);

    // Through the other region, as after a move: no second copy there or here.
    let mut moved = stack
        .session_for(ASIA, &alice.token.clone(), "#general")
        .await;
    moved.join("#general").await;
    moved.publish_as(id, 3, "#general", "once").await;
    moved.ack_of(id).await;
    moved.say("#general", "twice").await;
    for session in [&mut bob, &mut charlie] {
        assert_eq!(session.text().await, "once");
        assert_eq!(session.text().await, "twice");
    }
}

#[tokio::test]
async fn the_same_id_with_another_body_is_refused() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let id = ClientMessageId::random();
    alice.publish_as(id, 1, "#general", "one").await;
    alice.ack_of(id).await;
    alice.publish_as(id, 1, "#general", "another").await;
    assert_eq!(alice.error().await.code, "client_message_id_reused");
}

#[tokio::test]
async fn each_senders_order_holds_while_the_bus_delays_duplicates_and_redelivers() {
    let stack = TestStack::start_with(|config| {
        config.fabric.cross_region_delay = Duration::from_millis(5);
        config.fabric.faults = Faults {
            seed: 7,
            duplicate: 0.2,
            redeliver: 0.1,
            delay: Duration::ZERO..Duration::from_millis(10),
            lose_publish_reply: 0.02,
        };
    })
    .await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(ASIA, "bob", "#general").await;
    let mut reader_west = stack.joined(WEST, "west", "#general").await;
    let mut reader_asia = stack.joined(ASIA, "asia", "#general").await;
    let count = 150;
    let talk = async |session: &mut RawSession, name: &str| {
        for number in 0..count {
            session.say("#general", &format!("{name} {number}")).await;
        }
    };
    tokio::join!(talk(&mut alice, "alice"), talk(&mut bob, "bob"));
    for reader in [&mut reader_west, &mut reader_asia] {
        let mut next = HashMap::from([("alice", 0), ("bob", 0)]);
        for _ in 0..count * 2 {
            let text = reader.text().await;
            let (sender, number) = text.split_once(' ').expect("two words");
            let expected = next.get_mut(sender).expect("one of the two");
            assert_eq!(
                number.parse::<i32>().expect("a number"),
                *expected,
                "{sender}"
            );
            *expected += 1;
        }
    }
}

#[tokio::test]
async fn what_is_said_while_the_regions_are_cut_off_arrives_afterwards() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    let mut charlie = stack.joined(ASIA, "charlie", "#general").await;
    stack.cut();
    alice.say("#general", "in the west").await;
    charlie.say("#general", "in asia").await;
    assert_eq!(bob.text().await, "in the west", "the region goes on alone");
    charlie.ping(1).await;
    stack.heal();
    assert_eq!(bob.text().await, "in asia");
    assert_eq!(charlie.text().await, "in the west");
}

#[tokio::test]
async fn while_the_bus_is_away_nothing_is_acknowledged_and_later_messages_stay_behind() {
    let stack =
        TestStack::start_with(|config| config.tuning.publish_deadline = Duration::from_millis(300))
            .await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    stack.set_bus_down(WEST, true);
    let lost = alice.publish("#general", "first").await;
    let refused = alice.error().await;
    assert_eq!(
        (refused.code.as_str(), refused.retryable),
        ("unavailable", true)
    );
    assert_eq!(refused.client_message_id[..], lost.as_bytes()[..]);
    stack.set_bus_down(WEST, false);

    let after = |id: ClientMessageId| {
        Some(chat::After {
            client_message_id: Bytes::copy_from_slice(id.as_bytes()),
            message_id: String::new(),
        })
    };
    let second = ClientMessageId::random();
    let publish = |id: ClientMessageId, body: &'static str, after| {
        Frame::Publish(chat::Publish {
            client_message_id: Bytes::copy_from_slice(id.as_bytes()),
            channel: "#general".to_owned(),
            body: Bytes::from_static(body.as_bytes()),
            attempt: 1,
            after,
            ..Default::default()
        })
    };
    alice.send(publish(second, "second", after(lost))).await;
    assert_eq!(alice.error().await.code, "out_of_order");
    alice.publish_as(lost, 2, "#general", "first").await;
    alice.ack_of(lost).await;
    alice.send(publish(second, "second", after(lost))).await;
    alice.ack_of(second).await;
    assert_eq!(bob.text().await, "first");
    assert_eq!(bob.text().await, "second");
}
