//! One sender's messages are shown in the order sent, also when it goes on in the other region.
#![allow(clippy::expect_used)]

use std::time::Duration;

use infrachat_bus::{ConsumeLimits, Consumer, Subscription, Topic};
use infrachat_client::{Client, JoinOptions};
use infrachat_e2e::{ASIA, RawSession, TestStack, WEST, channel, partitions};
use infrachat_proto::bus::v1::{self as bus, envelope::Kind};
use infrachat_types::ClientMessageId;
use prost::Message as _;

const CHANNEL: &str = "#general";

/// Signs in in Asia, and goes to the west if Asia is of no help.
async fn who_may_move(stack: &TestStack, name: &str) -> Client {
    let mut options = stack.options(ASIA, name);
    options.fallback_regions = vec![stack.regions[WEST].region.clone()];
    options.failover_after = Duration::from_millis(100);
    Client::connect(options).await.expect("signs in")
}

async fn texts(reader: &mut RawSession, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(reader.text().await);
    }
    texts
}

#[tokio::test]
async fn who_goes_on_in_the_other_region_does_not_overtake_what_has_not_reached_it() {
    let mut stack = TestStack::start().await;
    let mut reader = stack.joined(WEST, "rita", CHANNEL).await;
    let sender = who_may_move(&stack, "sam").await;
    sender
        .join(&channel(CHANNEL), JoinOptions::default())
        .await
        .expect("joins");
    stack.cut();
    for text in ["1", "2", "3"] {
        let said = sender.publish(&channel(CHANNEL), text).await;
        said.expect("acknowledged in Asia");
    }
    while !stack.regions[ASIA].shards.is_empty() {
        stack.stop_shard(ASIA, 0).await;
    }
    let said = sender.publish(&channel(CHANNEL), "4").await;
    said.expect("acknowledged in the west");
    assert_eq!(texts(&mut reader, 4).await, ["1", "2", "3", "4"]);
    // The other bus brings the first three once more.
    stack.heal();
    sender.publish(&channel(CHANNEL), "5").await.expect("said");
    assert_eq!(texts(&mut reader, 1).await, ["5"]);
}

/// Hears what a region's bus carries in the channel's partition.
async fn tap(stack: &TestStack, region: usize) -> Consumer {
    let region = &stack.regions[region];
    let partition = infrachat_routing::partition_of(CHANNEL, partitions());
    let subscription = Subscription {
        topic: Topic {
            region: region.region.to_string(),
            name: infrachat_routing::messages_topic(partition),
        },
        group: ClientMessageId::random().to_string(),
    };
    let bus = &region.parts.bus;
    bus.ensure(&subscription).await.expect("made");
    let limits = ConsumeLimits::default();
    bus.consume(&subscription, limits).await.expect("consumes")
}

/// The next message on the bus.
async fn carried(tap: &mut Consumer) -> String {
    loop {
        let delivery = tap.next().await.expect("goes on");
        let envelope = bus::Envelope::decode(delivery.event.payload.clone()).expect("ours");
        delivery.ack();
        if let Some(Kind::Message(message)) = envelope.kind {
            return String::from_utf8(message.body.into()).expect("text");
        }
    }
}

/// Where the other bus has not delivered it yet, it must not be overtaken.
#[tokio::test]
async fn what_is_said_again_in_another_region_goes_on_its_bus_too() {
    let stack = TestStack::start().await;
    let mut reader = stack.joined(WEST, "rita", CHANNEL).await;
    let mut sender = stack.joined(ASIA, "sam", CHANNEL).await;
    let mut tap = tap(&stack, WEST).await;
    let id = ClientMessageId::random();
    sender.publish_as(id, 1, CHANNEL, "first").await;
    let acked = sender.ack_of(id).await;
    assert_eq!(texts(&mut reader, 1).await, ["first"]);

    let token = sender.token.clone();
    let mut moved = stack.session_for(WEST, &token, CHANNEL).await;
    moved.join(CHANNEL).await;
    moved.publish_as(id, 2, CHANNEL, "first").await;
    let again = moved.ack_of(id).await;
    assert!(again.duplicate, "{again:?}");
    assert_eq!(again.message_id, acked.message_id);
    moved.say(CHANNEL, "second").await;
    assert_eq!(carried(&mut tap).await, "first");
    assert_eq!(carried(&mut tap).await, "second");
    assert_eq!(texts(&mut reader, 1).await, ["second"], "once");
}
