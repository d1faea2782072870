//! Messages that the bus did not deliver are noticed by their origin's numbers, and had from history.
#![allow(clippy::expect_used)]

use std::sync::Arc;

use bytes::Bytes;
use infrachat_bus::{Event, Topic};
use infrachat_e2e::{ASIA, RawSession, TestStack, WEST, channel, partitions, user};
use infrachat_metadata::{Direction, HistoryEntry, Metadata};
use infrachat_proto::{
    bus::v1 as bus,
    chat::v1::{self as chat, server_event::Kind},
};
use infrachat_types::{
    ChannelName, ClientMessageId, Message, MessageId, Offset, OriginId, SessionId, unix_millis,
};
use prost::Message as _;

const CHANNEL: &str = "#general";
const ORIGIN: &str = "an-origin";

/// A shard in Asia, spoken by hand.
struct Origin {
    stack: TestStack,
    name: ChannelName,
    sent: u64,
}

impl Origin {
    fn store(&self, region: usize) -> Arc<dyn Metadata> {
        Arc::clone(&self.stack.regions[region].parts.store)
    }

    /// Its next message.
    fn next(&mut self) -> (u64, Message) {
        self.sent += 1;
        // Long after the shards began to listen.
        let now = u64::try_from(unix_millis()).expect("after 1970") + 60_000;
        let message = Message {
            channel: self.name.clone(),
            message_id: MessageId::floor_of(now + self.sent),
            sender: user("zoe"),
            client_message_id: ClientMessageId::random(),
            body: Bytes::from(self.sent.to_string()),
            published_at: unix_millis(),
            region: self.stack.regions[ASIA].region.clone(),
            session_id: SessionId::from_text("zoe's"),
        };
        (self.sent, message)
    }

    async fn puts_on_the_bus(&mut self) {
        let (number, message) = self.next();
        let event = bus::MessageEvent {
            message_id: message.message_id.to_bytes().to_vec().into(),
            sender: message.sender.to_string(),
            client_message_id: message.client_message_id.as_bytes().to_vec().into(),
            body: message.body,
            published_at_ms: message.published_at,
            session_id: message.session_id.to_string(),
            attempt: 1,
            traceparent: String::new(),
        };
        let envelope = bus::Envelope {
            channel: message.channel.to_string(),
            region: message.region.to_string(),
            origin: ORIGIN.to_owned(),
            origin_seq: number,
            kind: Some(bus::envelope::Kind::Message(event)),
        };
        let partition = infrachat_routing::partition_of(CHANNEL, partitions());
        let topic = Topic {
            region: message.region.to_string(),
            name: infrachat_routing::messages_topic(partition),
        };
        let event = Event {
            ordering_key: "by-hand".to_owned(),
            payload: envelope.encode_to_vec().into(),
            attributes: std::iter::empty().collect(),
        };
        let bus = &self.stack.regions[ASIA].parts.bus;
        bus.publish(&topic, event).await.expect("accepted");
    }

    /// The region's history has it, and the bus does not.
    async fn puts_in_history_only(&mut self) {
        let (number, message) = self.next();
        let store = self.store(ASIA);
        let partition = infrachat_routing::partition_of(CHANNEL, partitions());
        let ownerships = store.ownerships().await.expect("ownerships");
        let owned = ownerships
            .iter()
            .find(|owned| owned.partition == partition)
            .expect("owned");
        let entries = [HistoryEntry {
            message,
            epoch: owned.epoch,
            offset: Offset(1_000 + number),
            origin: OriginId::from_text(ORIGIN),
            origin_seq: number,
        }];
        let appended = store.append_history(partition, owned.epoch, &entries);
        appended.await.expect("appended");
    }
}

async fn origin_and_reader(name: &str) -> (Origin, RawSession) {
    let stack = TestStack::start().await;
    let reader = stack.joined(WEST, name, CHANNEL).await;
    let origin = Origin {
        stack,
        name: channel(CHANNEL),
        sent: 0,
    };
    (origin, reader)
}

#[tokio::test]
async fn a_hole_is_filled_from_the_history_of_its_region() {
    let (mut origin, mut reader) = origin_and_reader("rita").await;
    origin.puts_on_the_bus().await;
    assert_eq!(reader.text().await, "1");
    origin.puts_in_history_only().await;
    origin.puts_in_history_only().await;
    origin.puts_on_the_bus().await;
    for number in 2..=4 {
        assert_eq!(reader.text().await, number.to_string());
    }
    let store = origin.store(WEST);
    infrachat_e2e::eventually("the reader's region has all in its history", async || {
        let page = store.history(&origin.name, Direction::Before(MessageId::MAX), 10);
        page.await.expect("a page").entries.len() == 4
    })
    .await;
}

async fn gap(reader: &mut RawSession) -> chat::Gap {
    reader
        .until(|kind| match kind {
            Kind::Gap(gap) => Some(gap),
            Kind::Message(message) => panic!("before the gap came {message:?}"),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_hole_that_nothing_fills_is_announced_and_the_channel_goes_on() {
    let (mut origin, mut reader) = origin_and_reader("rita").await;
    origin.puts_on_the_bus().await;
    let first = reader.message().await;
    // Nobody has these.
    origin.next();
    origin.next();
    origin.puts_on_the_bus().await;
    let gap = gap(&mut reader).await;
    assert_eq!((gap.code.as_str(), gap.missed), ("not_delivered", 2));
    assert_eq!(gap.from, first.position);
    assert!(gap.reason.contains("asia-northeast1"), "{}", gap.reason);
    assert_eq!(reader.text().await, "4");
    origin.puts_on_the_bus().await;
    assert_eq!(reader.text().await, "5");
}
