//! What nobody would write, sent to running services: valid frames and bus events, changed at random in a
//! few places. The cases are the same in every run.
#![allow(clippy::expect_used)]

use std::sync::{
    Arc, Once,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use infrachat_bus::{Event, Topic};
use infrachat_e2e::{RawSession, Received, Room, WEST, bearer, partitions};
use infrachat_proto::{
    bus::v1 as bus,
    chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind},
};
use infrachat_routing::{CONTROL_TOPIC, messages_topic, partition_of};
use infrachat_types::{ClientMessageId, CloseCode, ErrorCode, MessageId, unix_millis};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use prost::Message as _;

/// Frames sent, and events of each topic published.
const CASES: usize = 1_000;

/// Where they are sent to; others talk in `#general`.
const ROOM: &str = "#fuzz";

/// Panics of this process, the services' included.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            told(panic);
        }));
    });
}

/// A change to bytes: where, as a share of their length, and what.
#[derive(Debug, Clone)]
enum Edit {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (place(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        place().prop_map(Edit::Cut),
        (place(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        place().prop_map(Edit::Repeat),
    ]
}

fn changed(mut bytes: Vec<u8>, edits: Vec<Edit>) -> Bytes {
    for edit in edits {
        if bytes.is_empty() {
            break;
        }
        match edit {
            Edit::Set(at, byte) => *at.get_mut(&mut bytes) = byte,
            Edit::Flip(at, bit) => *at.get_mut(&mut bytes) ^= 1 << bit,
            Edit::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Edit::Insert(at, inserted) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, inserted);
            }
            Edit::Repeat(at) => bytes.extend_from_within(at.index(bytes.len())..),
        }
    }
    bytes.into()
}

/// The corpus, each entry changed in a few places.
fn cases(corpus: Vec<Vec<u8>>) -> impl Iterator<Item = Bytes> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let case = (
        prop::sample::select(corpus),
        prop::collection::vec(edit(), 0..4),
    )
        .prop_map(|(bytes, edits)| changed(bytes, edits));
    (0..CASES).map(move |_| case.new_tree(&mut runner).expect("a case").current())
}

fn publish(body: &str) -> chat::Publish {
    chat::Publish {
        client_message_id: Bytes::copy_from_slice(ClientMessageId::random().as_bytes()),
        channel: ROOM.to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        attempt: 1,
        ..Default::default()
    }
}

fn frames(position: &Bytes, token: &str) -> Vec<Vec<u8>> {
    let after = chat::After {
        client_message_id: Bytes::copy_from_slice(&[7; 16]),
        message_id: MessageId::floor_of(1_700_000_000_000).to_string(),
    };
    let frames = [
        Frame::Join(chat::Join {
            channel: ROOM.to_owned(),
            position: position.clone(),
            ..Default::default()
        }),
        Frame::Leave(chat::Leave {
            channel: ROOM.to_owned(),
        }),
        Frame::Publish(publish("hello")),
        Frame::Publish(chat::Publish {
            after: Some(after),
            attempt: 2,
            ..publish("after something")
        }),
        Frame::SetTyping(chat::SetTyping {
            channel: ROOM.to_owned(),
        }),
        Frame::Ping(chat::Ping { nonce: 1 }),
        Frame::Reauthenticate(chat::Reauthenticate {
            access_token: token.to_owned(),
        }),
        Frame::Hello(chat::Hello {
            access_token: token.to_owned(),
            client: "again".to_owned(),
            heartbeat_interval_ms: 1_000,
        }),
    ];
    let frames = frames.map(|kind| chat::ClientFrame { kind: Some(kind) }.encode_to_vec());
    frames.into()
}

/// Whether the session goes on; if not, it was told why.
async fn goes_on(session: &mut RawSession) -> bool {
    let nonce = u64::MAX / 3;
    session.send(Frame::Ping(chat::Ping { nonce })).await;
    loop {
        match session.receive().await {
            Received::Event(kind) => match *kind {
                Kind::Pong(pong) if pong.nonce == nonce => return true,
                Kind::Error(error) => {
                    ErrorCode::from_text(&error.code).expect("a documented code");
                }
                Kind::Close(close) => {
                    CloseCode::from_text(&close.code).expect("a documented code");
                    return false;
                }
                _ => {}
            },
            Received::End(status) => panic!("it ended without a word: {status:?}"),
        }
    }
}

#[tokio::test]
async fn changed_frames_are_answered_or_close_their_session_and_no_other() {
    count_panics();
    let mut room = Room::open().await;
    let mallory = room.stack.joined(WEST, "mallory", ROOM).await;
    let token = mallory.token.clone();
    let route = room.stack.resolve(WEST, &token, ROOM).await;
    let (mut closed, mut session) = (0, None);
    let mut first = RawSession::hello(&route.endpoint, &token).await;
    let position = first.join(ROOM).await.position;
    for frame in cases(frames(&position, &token)) {
        let mut current = match session.take() {
            Some(session) => session,
            None => {
                let mut session = RawSession::hello(&route.endpoint, &token).await;
                session.join(ROOM).await;
                session
            }
        };
        current.send_bytes(frame).await;
        if goes_on(&mut current).await {
            session = Some(current);
        } else {
            closed += 1;
        }
    }
    assert!(
        (CASES / 10..CASES * 9 / 10).contains(&closed),
        "the cases are all of one sort: {closed} closed their session"
    );
    room.all_go_on().await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

fn envelopes() -> Vec<Vec<u8>> {
    let now = unix_millis();
    let seat = || bus::SeatEvent {
        user: "mallory".to_owned(),
        session_id: "01HZZZZZZZZZZZZZZZZZZZZZZZ".to_owned(),
    };
    let id = MessageId::floor_of(u64::try_from(now).expect("after 1970"));
    let message = bus::MessageEvent {
        message_id: Bytes::copy_from_slice(&id.to_bytes()),
        sender: "mallory".to_owned(),
        client_message_id: Bytes::copy_from_slice(&[7; 16]),
        body: Bytes::from_static(b"hello"),
        published_at_ms: now,
        session_id: seat().session_id,
        attempt: 1,
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    };
    let typing = bus::TypingEvent {
        user: "mallory".to_owned(),
        session_id: seat().session_id,
    };
    use bus::envelope::Kind;
    let kinds = [
        Kind::Message(message),
        Kind::SeatTaken(seat()),
        Kind::SeatLeft(seat()),
        Kind::SeatExpired(seat()),
        Kind::Seats(bus::SeatsEvent {
            seats: vec![seat(), seat()],
        }),
        Kind::Typing(typing),
    ];
    let kinds = kinds.map(|kind| {
        let envelope = bus::Envelope {
            channel: ROOM.to_owned(),
            region: "us-west1".to_owned(),
            origin: "us-west1-shard-9/1".to_owned(),
            origin_seq: 1,
            kind: Some(kind),
        };
        envelope.encode_to_vec()
    });
    kinds.into()
}

fn control_events() -> Vec<Vec<u8>> {
    use bus::control_event::Kind;
    let kinds = [
        Kind::ChannelChanged(bus::ChannelChanged {
            channel: ROOM.to_owned(),
            version: 1,
            home_region: "us-west1".to_owned(),
        }),
        Kind::UserChanged(bus::UserChanged {
            user: "mallory".to_owned(),
            version: 1,
            home_region: "us-west1".to_owned(),
        }),
        Kind::Revoked(bus::Revoked {
            family_id: String::new(),
            user: "mallory".to_owned(),
            issued_until_ms: 1,
            forget_after_ms: unix_millis() + 60_000,
        }),
    ];
    let kinds = kinds.map(|kind| {
        let event = bus::ControlEvent {
            region: "us-west1".to_owned(),
            kind: Some(kind),
        };
        event.encode_to_vec()
    });
    kinds.into()
}

#[tokio::test]
async fn changed_bus_events_stop_nobody() {
    count_panics();
    let mut room = Room::open().await;
    let mut mallory = room.stack.joined(WEST, "mallory", ROOM).await;
    let region = &room.stack.regions[WEST];
    let event_bus = Arc::clone(&region.parts.bus);
    let name = region.region.to_string();
    let topics = [
        (
            messages_topic(partition_of(ROOM, partitions())),
            envelopes(),
        ),
        (CONTROL_TOPIC.to_owned(), control_events()),
    ];
    for (topic, corpus) in topics {
        let topic = Topic {
            region: name.clone(),
            name: topic,
        };
        // Pub/Sub takes no event of nothing.
        for payload in cases(corpus).filter(|payload| !payload.is_empty()) {
            let event = Event {
                ordering_key: "lane".to_owned(),
                payload,
                attributes: Default::default(),
            };
            event_bus
                .publish(&topic, event)
                .await
                .expect("is published");
        }
    }
    // Behind all of them: a message of the same partition, and a channel that others must hear of.
    mallory.say(ROOM, "at last").await;
    let token = mallory.token.clone();
    let route = room.stack.resolve(WEST, &token, ROOM).await;
    let mut other = RawSession::hello(&route.endpoint, &token).await;
    other.join(ROOM).await;
    mallory.say(ROOM, "after that").await;
    other
        .until(|kind| match kind {
            Kind::Message(message) if message.body == b"after that"[..] => Some(()),
            _ => None,
        })
        .await;
    let request = chat::CreateChannelRequest {
        name: "#new".to_owned(),
        ..Default::default()
    };
    let shard = room.stack.regions[WEST].shards[0].address.to_string();
    let mut chat = room.stack.chat(&shard).await;
    let created = chat.create_channel(bearer(&token, request)).await;
    created.expect("channels are created still");
    room.all_go_on().await;
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}
