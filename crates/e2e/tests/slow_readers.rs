//! A client that reads slowly, or not at all, costs nobody else anything, and learns exactly what it
//! missed.
#![allow(clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use infrachat_e2e::{
    ASIA, RawSession, Received, Room, TestStack, WEST, channel, closes, eventually,
};
use infrachat_proto::chat::v1::{
    self as chat, SlowReaderPolicy, client_frame::Kind as Frame, server_event::Kind,
};
use infrachat_types::{Epoch, Offset, Position};

/// More than everything between a shard and a client that doesn't read can hold.
const COUNT: usize = 400;
const PENDING: u64 = 20;
const UNHURRIED: Duration = Duration::from_secs(20);

fn body(number: usize) -> String {
    format!("{number:08}{}", "x".repeat(8 * 1024))
}

fn number(message: &chat::Message) -> usize {
    let text = std::str::from_utf8(&message.body[..8]).expect("digits");
    text.parse().expect("a number")
}

fn place(position: &Bytes) -> (Epoch, Offset) {
    let position = Position::decode(&channel("#general"), position).expect("a position");
    (position.epoch, position.offset)
}

/// alice publishes everything, while bob in her region and charlie in the other read along.
struct Flood {
    stack: TestStack,
    alice: RawSession,
    readers: [RawSession; 2],
}

impl Flood {
    async fn prepare(heartbeat: Duration, pending: u64) -> Self {
        let stack = TestStack::start_with(|config| {
            config.tuning.slow_reader_pending = pending;
            config.tuning.publish_per_second = 10_000;
            config.tuning.heartbeat_interval = heartbeat;
        })
        .await;
        let alice = stack.joined(WEST, "alice", "#general").await;
        let bob = stack.joined(WEST, "bob", "#general").await;
        let charlie = stack.joined(ASIA, "charlie", "#general").await;
        Self {
            stack,
            alice,
            readers: [bob, charlie],
        }
    }

    /// The others get everything in order, at once.
    async fn run(&mut self) {
        for sent in 0..COUNT {
            self.alice.say("#general", &body(sent)).await;
            for reader in &mut self.readers {
                assert_eq!(number(&reader.message().await), sent);
            }
        }
    }

    /// dave's session, joined, which nobody reads from now on.
    async fn slow_reader(&self, policy: SlowReaderPolicy) -> RawSession {
        let token = self.stack.register(WEST, "dave").await.access_token;
        let mut dave = self.stack.session_for(WEST, &token, "#general").await;
        dave.send(Frame::Join(chat::Join {
            channel: "#general".to_owned(),
            slow_reader: policy.into(),
            ..Default::default()
        }))
        .await;
        dave.until(|kind| matches!(kind, Kind::Joined(_)).then_some(()))
            .await;
        dave
    }
}

#[tokio::test]
async fn who_drops_the_oldest_learns_exactly_which_messages_it_missed() {
    let mut flood = Flood::prepare(UNHURRIED, PENDING).await;
    let mut dave = flood.slow_reader(SlowReaderPolicy::DropOldest).await;
    flood.run().await;

    let (mut expected, mut gaps) = (0, Vec::new());
    while expected < COUNT {
        match dave.next().await {
            Kind::Message(message) => {
                assert_eq!(number(&message), expected, "nothing is missing in silence");
                expected += 1;
            }
            Kind::Gap(gap) => {
                assert_eq!(gap.code, "slow_reader");
                let missed = usize::try_from(gap.missed).expect("a count");
                gaps.push((expected..expected + missed, gap));
                expected += missed;
            }
            _ => {}
        }
    }
    assert!(!gaps.is_empty(), "it never became a slow reader");
    let token = dave.token.clone();
    for (missed, gap) in gaps {
        let mut again = flood.stack.session_for(WEST, &token, "#general").await;
        assert!(again.join_from("#general", gap.from).await.recovered);
        let mut last = Bytes::new();
        for expected in missed {
            let message = again.message().await;
            assert_eq!(number(&message), expected, "the gap tells where it was");
            last = message.position;
        }
        assert_eq!(place(&last), place(&gap.to));
    }
    flood.alice.say("#general", &body(COUNT)).await;
    assert_eq!(number(&dave.message().await), COUNT, "and it is live again");
}

#[tokio::test]
async fn who_is_disconnected_for_reading_slowly_resumes_without_a_gap() {
    let mut flood = Flood::prepare(UNHURRIED, PENDING).await;
    let mut dave = flood.slow_reader(SlowReaderPolicy::Disconnect).await;
    flood.run().await;

    let (mut expected, mut position) = (0, Bytes::new());
    let close = loop {
        match dave.next().await {
            Kind::Message(message) => {
                assert_eq!(number(&message), expected);
                expected += 1;
                position = message.position;
            }
            Kind::Close(close) => break close,
            Kind::Gap(gap) => panic!("a gap instead of a close: {gap:?}"),
            _ => {}
        }
    };
    assert_eq!(
        (close.code.as_str(), close.reconnect),
        ("slow_consumer", true)
    );
    assert!(expected < COUNT);
    let token = dave.token.clone();
    let mut dave = flood.stack.session_for(WEST, &token, "#general").await;
    assert!(dave.join_from("#general", position).await.recovered);
    for expected in expected..COUNT {
        assert_eq!(number(&dave.message().await), expected);
    }
}

#[tokio::test]
async fn a_client_that_is_not_heard_is_closed() {
    let room =
        Room::open_with(|config| config.tuning.heartbeat_interval = Duration::from_millis(100));
    let mut room = room.await;
    let mut silent = RawSession::open(&room.endpoint().await).await;
    silent
        .send(Frame::Hello(chat::Hello {
            access_token: room.culprit.token.clone(),
            heartbeat_interval_ms: 0,
            ..Default::default()
        }))
        .await;
    let welcome = silent
        .until(|kind| match kind {
            Kind::Welcome(welcome) => Some(welcome),
            _ => None,
        })
        .await;
    assert_eq!(
        (welcome.heartbeat_interval_ms, welcome.heartbeat_timeout_ms),
        (100, 250)
    );
    closes(silent, "heartbeat_timeout").await;
    room.all_go_on().await;
}

/// Sessions that the shards of the region report.
async fn sessions(stack: &TestStack) -> u32 {
    let store = &stack.regions[WEST].parts.store;
    let leases = store.leases().await.expect("leases");
    leases.iter().map(|view| view.lease.sessions).sum()
}

async fn a_stalled_client_is_ended(pings: bool) {
    let mut flood = Flood::prepare(Duration::from_millis(200), 1_000).await;
    eventually("alice and bob are counted", async || {
        sessions(&flood.stack).await == 2
    })
    .await;
    let token = flood.stack.register(WEST, "dave").await.access_token;
    let route = flood.stack.resolve(WEST, &token, "#general").await;
    // As a proxy may have it: erin's session is on the same connection.
    let connection = RawSession::connect(&route.endpoint).await;
    let mut erin = RawSession::open_on(connection.clone()).await;
    let erins = flood.stack.register(WEST, "erin").await.access_token;
    erin.greet(&erins).await;
    let mut dave = RawSession::open_on(connection).await;
    dave.send(Frame::Hello(chat::Hello {
        access_token: token,
        ..Default::default()
    }))
    .await;
    dave.send(Frame::Join(chat::Join {
        channel: "#general".to_owned(),
        ..Default::default()
    }))
    .await;
    let [bob, charlie] = &mut flood.readers;
    comes(bob, "dave").await;
    comes(charlie, "dave").await;
    let pinging = async {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            if pings {
                dave.send(Frame::Ping(chat::Ping { nonce: 0 })).await;
            }
        }
    };
    // Enough to fill everything between the shard and the client.
    let publishing = async {
        for sent in 0..COUNT {
            flood.alice.say("#general", &body(sent)).await;
        }
    };
    let gone = async {
        let [bob, charlie] = &mut flood.readers;
        tokio::join!(publishing, goes(bob, "dave"), goes(charlie, "dave"));
    };
    tokio::select! {
        () = gone => {}
        () = pinging => {}
    }
    eventually("the session is gone", async || {
        sessions(&flood.stack).await == 3
    })
    .await;
    while !matches!(dave.receive().await, Received::End(_)) {}
    erin.ping(1).await;
}

async fn comes(session: &mut RawSession, user: &str) {
    session
        .until(|kind| match kind {
            Kind::Presence(change) => change.came.iter().any(|name| name == user).then_some(()),
            _ => None,
        })
        .await;
}

/// Reads everything that is published, in order, and that the user went.
async fn goes(session: &mut RawSession, user: &str) {
    let (mut expected, mut gone) = (0, false);
    while expected < COUNT || !gone {
        match session.next().await {
            Kind::Message(message) => {
                assert_eq!(number(&message), expected);
                expected += 1;
            }
            Kind::Presence(change) => gone |= change.went.iter().any(|name| name == user),
            other => panic!("a reader noticed {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_stalls_for_good_is_ended_and_its_user_announced_as_gone() {
    a_stalled_client_is_ended(false).await;
}

#[tokio::test]
async fn a_client_that_pings_and_never_reads_is_ended_too() {
    a_stalled_client_is_ended(true).await;
}
