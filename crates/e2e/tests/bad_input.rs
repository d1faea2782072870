//! Whatever a client sends, it is answered with a documented code, and nobody else notices.
#![allow(clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use infrachat_bus::{ConsumeLimits, Event, Subscription, Topic};
use infrachat_e2e::{ASIA, RawSession, Room, TestStack, WEST, bearer, closes, code, partitions};
use infrachat_proto::{
    chat::v1::{self as chat, client_frame::Kind as Frame, get_history_request::Bound},
    gatekeeper::v1::{LoginRequest, RegisterRequest},
    switchboard::v1::{
        ListChannelsRequest, ResolveRequest, switchboard_service_client::SwitchboardServiceClient,
    },
};
use infrachat_routing::{DEAD_LETTER_TOPIC, messages_topic, partition_of};
use infrachat_types::{ClientMessageId, MessageId, unix_millis};
use prost::Message as _;

fn publish(body: impl Into<Bytes>) -> chat::Publish {
    chat::Publish {
        client_message_id: Bytes::copy_from_slice(ClientMessageId::random().as_bytes()),
        channel: "#general".to_owned(),
        body: body.into(),
        attempt: 1,
        ..Default::default()
    }
}

fn publish_after(client_message_id: &[u8], message_id: &str) -> chat::Publish {
    let after = chat::After {
        client_message_id: Bytes::copy_from_slice(client_message_id),
        message_id: message_id.to_owned(),
    };
    chat::Publish {
        after: Some(after),
        ..publish("after nonsense")
    }
}

fn join(name: &str) -> Frame {
    Frame::Join(chat::Join {
        channel: name.to_owned(),
        ..Default::default()
    })
}

#[tokio::test]
async fn a_message_that_breaks_a_rule_is_refused_and_the_session_goes_on() {
    let mut room = Room::open_with(|config| config.tuning.max_body_bytes = 100).await;
    let with_id = |id: &'static [u8]| chat::Publish {
        client_message_id: Bytes::from_static(id),
        ..publish("hello")
    };
    let in_a_minute = u64::try_from(unix_millis()).expect("after 1970") + 60_000;
    let far_ahead = MessageId::floor_of(in_a_minute).to_string();
    let elsewhere = |name: &str| chat::Publish {
        channel: name.to_owned(),
        ..publish("hello")
    };
    let cases = [
        (publish(vec![b'x'; 101]), "body_too_large"),
        (publish(vec![b'x'; 1_000_000]), "body_too_large"),
        (publish(""), "body_empty"),
        (publish(&[0xc3, 0x28][..]), "body_not_utf8"),
        (with_id(b""), "bad_client_message_id"),
        (with_id(b"too short"), "bad_client_message_id"),
        (with_id(&[7; 17]), "bad_client_message_id"),
        (publish_after(b"short", ""), "bad_request"),
        (publish_after(&[7; 16], "no ULID"), "bad_request"),
        (publish_after(&[7; 16], &far_ahead), "clock_too_far_ahead"),
        (elsewhere("#random"), "not_joined"),
        (elsewhere("General!"), "bad_channel_name"),
    ];
    for (publish, code) in cases {
        let id = publish.client_message_id.clone();
        room.culprit.send(Frame::Publish(publish)).await;
        assert_eq!(
            room.refused(code).await.client_message_id,
            id,
            "which one it was"
        );
        room.all_go_on().await;
    }
    room.culprit
        .send(Frame::Publish(publish(vec![b'x'; 100])))
        .await;
    let longest = "x".repeat(100);
    room.heard(&longest).await;
}

#[tokio::test]
async fn a_channel_that_cannot_be_joined_is_refused_and_the_session_goes_on() {
    let mut room = Room::open().await;
    let too_long = format!("#{}", "a".repeat(80));
    let channel = |name: &str| name.to_owned();
    let cases = [
        (join("#nowhere"), "channel_not_found"),
        (join(""), "bad_channel_name"),
        (join("general"), "bad_channel_name"),
        (join("#Ünïcode"), "bad_channel_name"),
        (join("#a/../b"), "bad_channel_name"),
        (join(&too_long), "bad_channel_name"),
        (
            Frame::Leave(chat::Leave {
                channel: channel("#"),
            }),
            "bad_channel_name",
        ),
        (
            Frame::SetTyping(chat::SetTyping {
                channel: channel("#nowhere"),
            }),
            "not_joined",
        ),
    ];
    for (frame, code) in cases {
        room.refuses(frame, code).await;
    }
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_hello_is_closed() {
    let mut room =
        Room::open_with(|config| config.tuning.hello_timeout = Duration::from_millis(300)).await;
    let endpoint = room.endpoint().await;
    let first_frames = [
        (Frame::Publish(publish("hello")), "hello_expected"),
        (join("#general"), "hello_expected"),
        (Frame::Ping(chat::Ping { nonce: 1 }), "hello_expected"),
    ];
    for (frame, code) in first_frames {
        let mut session = RawSession::open(&endpoint).await;
        session.send(frame).await;
        closes(session, code).await;
    }
    let mut empty = RawSession::open(&endpoint).await;
    empty.send_bytes(Bytes::new()).await;
    closes(empty, "hello_expected").await;
    let mut garbage = RawSession::open(&endpoint).await;
    garbage.send_bytes(Bytes::from_static(&[0xff; 40])).await;
    closes(garbage, "bad_frame").await;
    let silent = RawSession::open(&endpoint).await;
    closes(silent, "hello_timeout").await;
    room.all_go_on().await;
}

#[tokio::test]
async fn frames_out_of_place_or_from_a_newer_client_are_answered_and_the_session_goes_on() {
    let mut room = Room::open().await;
    let token = room.culprit.token.clone();
    room.culprit.send_hello(&token).await;
    room.refused("already_open").await;
    room.all_go_on().await;
    // Field 99, a string: a kind of frame that is not known yet.
    let newer = Bytes::from_static(&[0x9a, 0x06, 2, b'h', b'i']);
    for unknown in [Bytes::new(), newer.clone()] {
        room.culprit.send_bytes(unknown).await;
        room.refused("unknown_frame").await;
        room.all_go_on().await;
    }
    let known = chat::ClientFrame {
        kind: Some(Frame::Publish(publish("with something new"))),
    };
    let extended = [known.encode_to_vec(), newer.to_vec()].concat();
    room.culprit.send_bytes(extended.into()).await;
    room.heard("with something new").await;
}

#[tokio::test]
async fn a_frame_that_cannot_be_decoded_closes_the_session_and_no_other() {
    let mut room = Room::open().await;
    let endpoint = room.endpoint().await;
    let token = room.culprit.token.clone();
    let oversized = publish(vec![b'x'; 5 * 1024 * 1024]);
    let cut_off = Bytes::from(publish("cut off").encode_to_vec()).slice(..20);
    let not_utf8 = Bytes::from_static(&[0x1a, 4, 0x0a, 2, 0xc3, 0x28]);
    for garbage in [
        Bytes::from_static(&[0xff; 100]),
        cut_off,
        not_utf8,
        chat::ClientFrame {
            kind: Some(Frame::Publish(oversized)),
        }
        .encode_to_vec()
        .into(),
    ] {
        let mut session = RawSession::hello(&endpoint, &token).await;
        session.join("#general").await;
        session.send_bytes(garbage).await;
        closes(session, "bad_frame").await;
        room.all_go_on().await;
    }
}

#[tokio::test]
async fn a_private_channel_is_closed_to_those_who_do_not_belong() {
    let mut room = Room::open_with(|config| {
        for region in &mut config.regions {
            region.ports.shards = vec![0];
        }
    })
    .await;
    let shard = room.endpoint().await;
    let mut service = room.stack.chat(&shard).await;
    let (alice, bob) = (room.culprit.token.clone(), room.bystander.token.clone());
    let request = chat::CreateChannelRequest {
        name: "#secret".to_owned(),
        visibility: chat::Visibility::Private.into(),
        ..Default::default()
    };
    let created = service.create_channel(bearer(&bob, request)).await;
    created.expect("creates");
    room.refuses(join("#secret"), "not_member").await;
    let history = chat::GetHistoryRequest {
        channel: "#secret".to_owned(),
        ..Default::default()
    };
    let members = chat::ListMembersRequest {
        channel: "#secret".to_owned(),
        ..Default::default()
    };
    let read = service.get_history(bearer(&alice, history.clone())).await;
    assert_eq!(code(read), "not_member");
    let listed = service.list_members(bearer(&alice, members.clone())).await;
    assert_eq!(code(listed), "not_member");
    let mut asia = room
        .stack
        .chat(&room.stack.regions[ASIA].shards[0].address.to_string())
        .await;
    assert_eq!(
        code(asia.get_history(bearer(&alice, history.clone())).await),
        "not_member",
        "in the other region too"
    );
    // Whoever belongs comes in.
    room.speaker.join("#secret").await;
    room.speaker.say("#secret", "psst").await;
    service
        .list_members(bearer(&bob, members))
        .await
        .expect("bob belongs");
    service
        .get_history(bearer(&bob, history))
        .await
        .expect("bob belongs");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    let stack = TestStack::start().await;
    stack.register(WEST, "alice").await;
    for region in [WEST, ASIA] {
        let mut gatekeeper = stack.gatekeeper(region).await;
        for user in ["alice", "nobody", "Not a name"] {
            let request = LoginRequest {
                user: user.to_owned(),
                password: "wrong horse".to_owned(),
            };
            assert_eq!(
                code(gatekeeper.login(request).await),
                "bad_credentials",
                "{user}"
            );
        }
    }
    let cases = [
        ("alice", "another password", "user_exists"),
        ("Alice", "correct horse", "bad_user_name"),
        ("", "correct horse", "bad_user_name"),
        ("carol", "short", "bad_password"),
    ];
    for (user, password, expected) in cases {
        for region in [WEST, ASIA] {
            let request = RegisterRequest {
                user: user.to_owned(),
                password: password.to_owned(),
            };
            let answer = stack.gatekeeper(region).await.register(request).await;
            assert_eq!(code(answer), expected, "{user:?}");
        }
    }
}

#[tokio::test]
async fn of_two_who_take_the_same_user_name_at_once_in_both_regions_one_gets_it() {
    let stack = TestStack::start().await;
    let register = async |region: usize, name: &str| {
        let request = RegisterRequest {
            user: name.to_owned(),
            password: format!("password {region}"),
        };
        stack.gatekeeper(region).await.register(request).await
    };
    for name in ["alice", "bob", "carol"] {
        let (west, asia) = tokio::join!(register(WEST, name), register(ASIA, name));
        let refused = match (west, asia) {
            (Ok(_), refused) | (refused, Ok(_)) => refused,
            both => panic!("nobody got the name: {both:?}"),
        };
        assert_eq!(code(refused), "user_exists");
    }
}

#[tokio::test]
async fn of_two_who_create_the_same_channel_at_once_in_both_regions_one_does() {
    let stack = TestStack::start().await;
    let alice = stack.register(WEST, "alice").await.access_token;
    let bob = stack.register(ASIA, "bob").await.access_token;
    let create = async |region: usize, token: &str, name: &str| {
        let shard = stack.regions[region].shards[0].address.to_string();
        let request = chat::CreateChannelRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let mut service = stack.chat(&shard).await;
        service.create_channel(bearer(token, request)).await
    };
    for name in ["#a", "#b", "#c", "#d"] {
        let (west, asia) = tokio::join!(create(WEST, &alice, name), create(ASIA, &bob, name));
        let refused = match (west, asia) {
            (Ok(_), refused) | (refused, Ok(_)) => refused,
            both => panic!("nobody created it: {both:?}"),
        };
        assert_eq!(code(refused), "channel_exists");
        assert_eq!(
            code(create(WEST, &bob, name).await),
            "channel_exists",
            "nor later"
        );
    }
    for name in ["", "general", "#", "#Upper", "#a b"] {
        assert_eq!(
            code(create(WEST, &alice, name).await),
            "bad_channel_name",
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn pages_and_bounds_that_make_no_sense_are_refused() {
    let stack = TestStack::start().await;
    let alice = stack.register(WEST, "alice").await.access_token;
    stack.create_channel(WEST, &alice, "#general").await;
    let shard = stack.regions[WEST].shards[0].address.to_string();
    let mut service = stack.chat(&shard).await;
    let history = |channel: &str, bound, limit| chat::GetHistoryRequest {
        channel: channel.to_owned(),
        bound,
        limit,
    };
    let cases = [
        (history("#general", None, 1_001), "bad_request"),
        (history("#general", None, u32::MAX), "bad_request"),
        (
            history("#general", Some(Bound::Before("x".to_owned())), 1),
            "bad_request",
        ),
        (
            history("#general", Some(Bound::After("\u{1F600}".repeat(26))), 1),
            "bad_request",
        ),
        (
            history("#general", Some(Bound::BeforeMs(-1)), 1),
            "bad_request",
        ),
        (
            history("#general", Some(Bound::SinceMs(i64::MAX)), 1),
            "bad_request",
        ),
        (history("#nowhere", None, 1), "channel_not_found"),
        (history("nonsense", None, 1), "bad_channel_name"),
    ];
    for (request, expected) in cases {
        let asked = format!("{request:?}");
        let answer = service.get_history(bearer(&alice, request)).await;
        assert_eq!(code(answer), expected, "{asked}");
    }
    let members = |channel: &str, page_size, page_token: &str| chat::ListMembersRequest {
        channel: channel.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let cases = [
        (members("#general", 1_001, ""), "bad_request"),
        (members("#general", 1, "not a token"), "bad_request"),
        (members("#nowhere", 1, ""), "channel_not_found"),
    ];
    for (request, expected) in cases {
        let asked = format!("{request:?}");
        let answer = service.list_members(bearer(&alice, request)).await;
        assert_eq!(code(answer), expected, "{asked}");
    }
    let endpoint = format!("http://{}", stack.regions[WEST].switchboard);
    let connected = SwitchboardServiceClient::connect(endpoint).await;
    let mut switchboard = connected.expect("connects");
    let request = ListChannelsRequest {
        page_token: "not a token".to_owned(),
        ..Default::default()
    };
    let answer = switchboard.list_channels(bearer(&alice, request)).await;
    assert_eq!(code(answer), "bad_request");
    let request = ResolveRequest {
        channels: vec!["#general".to_owned(); 1_001],
    };
    let answer = switchboard.resolve(bearer(&alice, request)).await;
    assert_eq!(code(answer), "bad_request");
    let route = stack.resolve(WEST, &alice, "no name").await;
    assert_eq!(
        (route.code.as_str(), route.retry_after_ms),
        ("bad_channel_name", 0)
    );
}

#[tokio::test]
async fn an_event_on_the_bus_that_nobody_can_read_goes_to_the_dead_letters_and_the_rest_go_on() {
    let mut room = Room::open().await;
    let region = &room.stack.regions[WEST];
    let bus = std::sync::Arc::clone(&region.parts.bus);
    let topic = |name: String| Topic {
        region: region.region.to_string(),
        name,
    };
    let dead_letters = Subscription {
        topic: topic(DEAD_LETTER_TOPIC.to_owned()),
        group: "operators".to_owned(),
    };
    bus.ensure(&dead_letters).await.expect("is there");
    let consumed = bus.consume(&dead_letters, ConsumeLimits::default()).await;
    let mut set_aside = consumed.expect("consumes");
    let partition = partition_of("#general", partitions());
    let payload = Bytes::from_static(b"\xff\xff\xffnot an envelope");
    let poison = Event {
        ordering_key: "lane".to_owned(),
        payload: payload.clone(),
        attributes: Default::default(),
    };
    let published = bus.publish(&topic(messages_topic(partition)), poison).await;
    published.expect("is published");
    // Both regions read the topic, and each sets its copy aside in its own.
    let letter = set_aside.next().await.expect("a dead letter");
    assert_eq!(letter.event.payload, payload);
    let from = &letter.event.attributes["infrachat-from"];
    assert_eq!(*from, format!("us-west1/messages-{partition}@us-west1"));
    letter.ack();
    room.all_go_on().await;
}
