//! A shard that is short of memory says so, gives up what can be had again, and loses nothing.
#![allow(clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use infrachat_bus::{ConsumeLimits, Subscription, Topic};
use infrachat_e2e::{ASIA, RawSession, Room, WEST, closes};
use infrachat_local::LocalConfig;
use infrachat_proto::chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind};
use infrachat_types::ClientMessageId;

const BUDGET: usize = 2 * 1024 * 1024;

fn little_memory(config: &mut LocalConfig) {
    for region in &mut config.regions {
        region.ports.shards = vec![0];
    }
    config.tuning.memory_budget_bytes = BUDGET;
    config.tuning.publish_per_second = 10_000;
    config.tuning.max_in_flight = 10_000;
    // No reader is slow before memory is short, and no message is given up.
    config.tuning.slow_reader_pending = 1_000_000;
    config.tuning.publish_deadline = Duration::from_secs(120);
}

fn body(number: usize) -> String {
    format!("{number:08}{}", "x".repeat(8 * 1024))
}

fn number_of(message: &chat::Message) -> usize {
    let text = std::str::from_utf8(&message.body[..8]).expect("digits");
    text.parse().expect("a number")
}

async fn is_degraded(session: &mut RawSession) -> bool {
    session
        .until(|kind| match kind {
            Kind::Degraded(told) if told.part == "memory" => Some(told.degraded),
            _ => None,
        })
        .await
}

/// Says it again until it is taken: there may be little room at first.
async fn insist(session: &mut RawSession, id: ClientMessageId, body: &str) {
    for attempt in 2.. {
        session.publish_as(id, attempt, "#general", body).await;
        let answer = session.until(|kind| match kind {
            Kind::Ack(_) => Some(None),
            Kind::Error(error) => Some(Some(error.code)),
            _ => None,
        });
        match answer.await {
            None => return,
            Some(code) => assert_eq!(code, "overloaded"),
        }
    }
}

/// What a reader got, in order, and how many messages it was told to have missed.
#[derive(Debug, Default)]
struct Heard {
    texts: Vec<String>,
    missed: u64,
    /// Of the last one.
    position: Bytes,
}

impl Heard {
    /// Reads until so many are accounted for.
    async fn read(session: &mut RawSession, count: usize) -> Self {
        let mut heard = Self::default();
        while heard.texts.len() as u64 + heard.missed < count as u64 {
            match session.next().await {
                Kind::Message(message) => {
                    heard.position = message.position;
                    let text = message.body[..message.body.len().min(8)].to_vec();
                    heard.texts.push(String::from_utf8(text).expect("UTF-8"));
                }
                Kind::Gap(gap) => {
                    assert_eq!(gap.code, "slow_reader");
                    heard.missed += gap.missed;
                }
                _ => {}
            }
        }
        assert_eq!(heard.texts.len() as u64 + heard.missed, count as u64);
        heard
    }

    fn is_in_order(&self) -> bool {
        let numbers: Vec<_> = self.texts.iter().filter(|text| *text != AFAR).collect();
        numbers.windows(2).all(|pair| pair[0] < pair[1])
    }
}

const AFAR: &str = "far away";

/// A bus that takes nothing fills a shard's memory with what is to be put there.
#[tokio::test]
async fn a_full_shard_takes_nothing_in_until_there_is_room_and_then_everything() {
    let mut room = Room::open_with(little_memory).await;
    let mut charlie = room.stack.joined(ASIA, "charlie", "#general").await;
    let token = charlie.token.clone();
    room.stack.create_channel(WEST, &token, "#other").await;
    let endpoint = room.endpoint().await;
    charlie.say("#general", "first").await;
    let first = room.bystander.message().await.position;
    let partition = room.speaker.join("#general").await.partition;

    room.stack.set_bus_down(WEST, true);
    let mut sent = Vec::new();
    for number in 0..2 * BUDGET / body(0).len() {
        sent.push(room.culprit.publish("#general", &body(number)).await);
    }
    room.culprit
        .send(Frame::Ping(chat::Ping { nonce: 1 }))
        .await;
    let mut refused = Vec::new();
    loop {
        match room.culprit.next().await {
            Kind::Error(error) => {
                assert_eq!((error.code.as_str(), error.retryable), ("overloaded", true));
                assert!(error.retry_after_ms > 0);
                refused.push(error.client_message_id);
            }
            Kind::Pong(_) => break,
            _ => {}
        }
    }
    let is_refused = |id: &ClientMessageId| {
        refused
            .iter()
            .any(|refused| refused[..] == id.as_bytes()[..])
    };
    let taken = sent.iter().filter(|id| !is_refused(id)).count();
    assert!(taken > 0 && taken < sent.len(), "{taken} of {}", sent.len());
    assert!(is_degraded(&mut room.bystander).await);
    let mut late = RawSession::open(&endpoint).await;
    late.send_hello(&token).await;
    closes(late, "overloaded").await;
    let channel = "#other".to_owned();
    let join = chat::Join {
        channel,
        ..Default::default()
    };
    room.speaker.send(Frame::Join(join)).await;
    assert_eq!(room.speaker.error().await.code, "overloaded");

    // What comes from the other region is handed back: another consumer gets it.
    charlie.say("#general", AFAR).await;
    let west = &room.stack.regions[WEST];
    let subscription = Subscription {
        topic: Topic {
            region: room.stack.regions[ASIA].region.to_string(),
            name: infrachat_routing::messages_topic(partition),
        },
        group: west.region.to_string(),
    };
    let consuming = west
        .parts
        .bus
        .consume(&subscription, ConsumeLimits::default());
    let mut consumer = consuming.await.expect("consumes");
    let handed_back = tokio::time::timeout(Duration::from_secs(30), consumer.next());
    drop(handed_back.await.expect("in time").expect("an event"));
    drop(consumer);

    room.stack.set_bus_down(WEST, false);
    for id in sent.iter().filter(|id| !is_refused(id)) {
        room.culprit.ack_of(*id).await;
    }
    assert!(!is_degraded(&mut room.speaker).await);
    for (number, id) in (0..).zip(&sent).filter(|(_, id)| is_refused(id)) {
        insist(&mut room.culprit, *id, &body(number)).await;
    }
    let heard = Heard::read(&mut room.bystander, sent.len() + 1).await;
    assert!(heard.is_in_order());
    // And all of it can be had.
    let token = room.bystander.token.clone();
    let mut again = room.stack.session_for(WEST, &token, "#general").await;
    assert!(again.join_from("#general", first).await.recovered);
    let again = Heard::read(&mut again, sent.len() + 1).await;
    assert_eq!(again.missed, 0);
    assert!(again.is_in_order());
    room.all_go_on().await;
}

/// What one reader leaves unread takes no memory from the others.
#[tokio::test]
async fn a_shard_short_of_memory_keeps_nothing_for_a_slow_reader_and_tells_it_so() {
    let mut room = Room::open_with(little_memory).await;
    let mut dave = room.stack.joined(WEST, "dave", "#general").await;
    let count = 2 * BUDGET / body(0).len();
    for number in 0..count {
        insist(&mut room.culprit, ClientMessageId::random(), &body(number)).await;
        assert_eq!(number_of(&room.bystander.message().await), number);
    }
    let heard = Heard::read(&mut dave, count).await;
    assert!(heard.missed > 0, "everything was kept for it");
    assert!(heard.is_in_order());
    let mut again = room.stack.session_for(WEST, &dave.token, "#general").await;
    assert!(again.join_from("#general", Bytes::new()).await.recovered);
    room.all_go_on().await;
}
