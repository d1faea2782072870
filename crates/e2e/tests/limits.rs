//! Who goes beyond a limit is told so, and nobody else notices.
#![allow(clippy::expect_used)]

use std::time::Duration;

use infrachat_e2e::{RawSession, Room, WEST, bearer, closes};
use infrachat_local::LocalConfig;
use infrachat_proto::chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind};

fn one_shard(config: &mut LocalConfig) {
    config.regions[WEST].ports.shards = vec![0];
}

/// What became of a join.
async fn answer(session: &mut RawSession) -> Result<String, String> {
    session
        .until(|kind| match kind {
            Kind::Joined(joined) => Some(Ok(joined.channel)),
            Kind::Error(error) => Some(Err(error.code)),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn ten_thousand_joins_end_at_the_limit_and_hurt_nobody() {
    const LIMIT: usize = 50;
    let mut room = Room::open_with(|config| {
        one_shard(config);
        config.tuning.max_channels = LIMIT;
        config.tuning.frames_per_second = 5_000;
    })
    .await;
    let token = room.culprit.token.clone();
    let existing = 2 * LIMIT;
    for number in 0..existing {
        let name = format!("#c{number}");
        room.stack.create_channel(WEST, &token, &name).await;
    }
    // One in two exists, and those come round again and again; `#general` is joined already.
    let name = |number: usize| match number % 2 {
        0 => format!("#c{}", number / 2 % existing),
        _ => format!("#nowhere{number}"),
    };
    let mut joined = 1;
    for batch in (0..10_000).collect::<Vec<_>>().chunks(100) {
        for number in batch {
            let channel = name(*number);
            let join = chat::Join {
                channel,
                ..Default::default()
            };
            room.culprit.send(Frame::Join(join)).await;
        }
        for number in batch {
            let index = number / 2 % existing;
            let answer = answer(&mut room.culprit).await;
            let full = joined == LIMIT;
            let expected = match number % 2 {
                0 if index < LIMIT - 1 => Ok(name(*number)),
                1 if !full => Err("channel_not_found".to_owned()),
                _ => Err("too_many_channels".to_owned()),
            };
            assert_eq!(answer, expected, "join {number}");
            joined += usize::from(answer.is_ok() && !full);
        }
    }
    assert_eq!(joined, LIMIT);
    room.all_go_on().await;

    let leave = chat::Leave {
        channel: "#c0".to_owned(),
    };
    room.culprit.send(Frame::Leave(leave)).await;
    let last = format!("#c{}", existing - 1);
    let at_last = room.culprit.join(&last).await;
    assert_eq!(at_last.channel, last, "leaving makes room");
}

#[tokio::test]
async fn messages_beyond_those_in_flight_are_refused_and_the_others_arrive() {
    let mut room = Room::open_with(|config| config.tuning.max_in_flight = 3).await;
    room.stack.set_bus_down(WEST, true);
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(room.culprit.publish("#general", &number.to_string()).await);
    }
    for id in &ids[3..] {
        let error = room.refused("too_many_in_flight").await;
        assert_eq!(error.client_message_id[..], id.as_bytes()[..]);
    }
    room.stack.set_bus_down(WEST, false);
    for (number, id) in ids[..3].iter().enumerate() {
        room.culprit.ack_of(*id).await;
        room.heard(&number.to_string()).await;
    }
    room.culprit.publish_as(ids[3], 2, "#general", "3").await;
    room.culprit.ack_of(ids[3]).await;
    room.heard("3").await;
    room.all_go_on().await;
}

#[tokio::test]
async fn who_publishes_too_fast_is_told_how_long_to_wait() {
    const COUNT: usize = 60;
    let mut room = Room::open_with(|config| config.tuning.publish_per_second = 5).await;
    let mut sent = Vec::new();
    for number in 0..COUNT {
        sent.push(room.culprit.publish("#general", &number.to_string()).await);
    }
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    while accepted.len() + refused.len() < COUNT {
        match room.culprit.next().await {
            Kind::Ack(ack) => accepted.push(ack.client_message_id),
            Kind::Error(error) => {
                assert_eq!(
                    (error.code.as_str(), error.retryable),
                    ("rate_limited", true)
                );
                refused.push(error.retry_after_ms);
            }
            _ => {}
        }
    }
    let count = accepted.len();
    assert!(count >= 20, "a burst of four seconds' worth: {count}");
    let wait = *refused.last().expect("more than the burst came");
    assert!((1..=200).contains(&wait), "{wait} ms");
    for (number, _) in (0..)
        .zip(&sent)
        .filter(|(_, id)| accepted.iter().any(|ack| ack[..] == id.as_bytes()[..]))
    {
        room.heard(&format!("{number}")).await;
    }
    // Others have their own allowance, and who waits as told is heard.
    room.others_go_on().await;
    tokio::time::sleep(Duration::from_millis(wait.into())).await;
    room.all_go_on().await;
}

#[tokio::test]
async fn a_flood_of_frames_waits_in_line_and_its_session_hears_the_others() {
    const FLOOD: u64 = 300;
    let mut room = Room::open_with(|config| {
        config.tuning.frames_per_second = 20;
        config.tuning.max_channels = 10;
    })
    .await;
    for nonce in 0..FLOOD {
        room.culprit.send(Frame::Ping(chat::Ping { nonce })).await;
    }
    room.others_go_on().await;
    // At 20 a second, most of the flood is still to be read.
    let mut answered = 0;
    loop {
        match room.culprit.next().await {
            Kind::Pong(pong) => {
                assert_eq!(pong.nonce, answered, "in order, each once");
                answered += 1;
                assert!(answered < FLOOD, "nothing else was heard meanwhile");
            }
            Kind::Message(_) => break,
            Kind::Presence(_) => {}
            other => panic!("instead of an answer came {other:?}"),
        }
    }
    room.others_go_on().await;
}

#[tokio::test]
async fn who_waits_in_line_is_not_taken_for_silent() {
    const FRAMES: u64 = 7;
    let room = Room::open_with(|config| {
        config.tuning.frames_per_second = 2;
        config.tuning.max_channels = 1;
        config.tuning.heartbeat_interval = Duration::from_millis(100);
    })
    .await;
    let mut session = RawSession::open(&room.endpoint().await).await;
    // Who is silent for 250 ms is sent away; when four frames were read, it takes 500 ms for each.
    let hello = chat::Hello {
        access_token: room.culprit.token.clone(),
        heartbeat_interval_ms: 100,
        ..Default::default()
    };
    session.send(Frame::Hello(hello)).await;
    for nonce in 0..FRAMES {
        session.send(Frame::Ping(chat::Ping { nonce })).await;
    }
    for nonce in 0..FRAMES {
        let answered = session.until(|kind| match kind {
            Kind::Pong(pong) => Some(pong.nonce),
            Kind::Close(close) => panic!("{}", close.reason),
            _ => None,
        });
        assert_eq!(answered.await, nonce);
    }
}

#[tokio::test]
async fn a_shard_takes_no_more_sessions_than_it_may_until_one_leaves() {
    let mut room = Room::open_with(|config| {
        one_shard(config);
        config.tuning.max_sessions = 3;
    })
    .await;
    let endpoint = room.endpoint().await;
    let token = room.culprit.token.clone();
    for _ in 0..10 {
        let mut fourth = RawSession::open(&endpoint).await;
        fourth.send_hello(&token).await;
        closes(fourth, "too_many_sessions").await;
    }
    // Calls are not sessions.
    let mut service = room.stack.chat(&endpoint).await;
    let request = chat::GetHistoryRequest {
        channel: "#general".to_owned(),
        ..Default::default()
    };
    let read = service.get_history(bearer(&token, request)).await;
    read.expect("answers");
    room.all_go_on().await;

    let freed = std::mem::replace(&mut room.culprit, RawSession::open(&endpoint).await);
    drop(freed);
    room.culprit = loop {
        let mut session = RawSession::open(&endpoint).await;
        session.send_hello(&token).await;
        match session.next().await {
            Kind::Welcome(_) => break session,
            Kind::Close(close) => assert_eq!(close.code, "too_many_sessions"),
            other => panic!("instead of a welcome came {other:?}"),
        }
    };
    room.culprit.join("#general").await;
    room.all_go_on().await;
}
