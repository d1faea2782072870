//! Shards whose clocks are wrong.
#![allow(clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use infrachat_client::HistoryBound;
use infrachat_e2e::{ASIA, RawSession, TestStack, WEST, channel, eventually};
use infrachat_proto::chat::v1::{self as chat, client_frame::Kind as Frame};
use infrachat_types::{ClientMessageId, CloseCode, ErrorCode, MessageId, WallClock, unix_millis};

const GENERAL: &str = "#general";
const MINUTE: i64 = 60_000;

/// Two regions, the shards of one ahead of all others.
async fn ahead(millis: i64) -> TestStack {
    TestStack::start_with(|config| {
        config.regions[ASIA].clock = WallClock::new(move || unix_millis() + millis);
    })
    .await
}

/// Access tokens last ten minutes: a shard further ahead has nobody to take a message from.
#[tokio::test]
async fn a_shard_ten_minutes_ahead_takes_nobody_in() {
    let stack = ahead(10 * MINUTE).await;
    let token = stack.register(ASIA, "akira").await.access_token;
    let endpoint = stack.regions[ASIA].shards[0].address.to_string();
    let mut session = RawSession::hello(&endpoint, &token).await;
    assert_eq!(
        session.closed().await.code,
        CloseCode::TokenExpired.as_str()
    );
    let mut west = stack.joined(WEST, "wanda", GENERAL).await;
    west.say(GENERAL, "elsewhere all is well").await;
}

/// Messages of a region nine minutes ahead are shown at once and in both histories behind all others; only
/// who said one and goes on where clocks are right is refused.
#[tokio::test]
async fn a_region_nine_minutes_ahead_holds_up_nobody_else() {
    let stack = ahead(9 * MINUTE).await;
    let mut west = stack.joined(WEST, "wanda", GENERAL).await;
    let token = stack.register(ASIA, "akira").await.access_token;
    eventually("the channel is known", async || {
        stack.resolve(ASIA, &token, GENERAL).await.exists
    })
    .await;
    let mut asia = stack.session_for(ASIA, &token, GENERAL).await;
    asia.join(GENERAL).await;

    let early = asia.say(GENERAL, "from the future").await;
    assert_eq!(west.text().await, "from the future");
    let id: MessageId = early.message_id.parse().expect("an id");
    let now = u64::try_from(unix_millis()).expect("after 1970");
    let ahead = Duration::from_millis(id.millis().saturating_sub(now));
    assert!(ahead > Duration::from_secs(8 * 60), "{ahead:?}");
    for text in ["and now", "and again"] {
        let said = west.say(GENERAL, text).await;
        assert_eq!(asia.text().await, text);
        let said: MessageId = said.message_id.parse().expect("an id");
        assert!(said < id, "a clock that is right was dragged along");
    }

    // As a sender who has moved there does.
    let publish = chat::Publish {
        client_message_id: Bytes::copy_from_slice(ClientMessageId::random().as_bytes()),
        channel: GENERAL.to_owned(),
        body: Bytes::from_static(b"after that"),
        attempt: 1,
        after: Some(chat::After {
            client_message_id: early.client_message_id,
            message_id: early.message_id,
        }),
        ..chat::Publish::default()
    };
    west.send(Frame::Publish(publish)).await;
    assert_eq!(
        west.error().await.code,
        ErrorCode::ClockTooFarAhead.as_str()
    );
    west.say(GENERAL, "the session goes on").await;

    let expected = [
        "and now",
        "and again",
        "the session goes on",
        "from the future",
    ];
    for region in [WEST, ASIA] {
        let reader = stack.client(region, &format!("reader-{region}")).await;
        eventually("both histories are the same", async || {
            let bound = HistoryBound::After(MessageId::MIN);
            let (page, _) = reader
                .history(&channel(GENERAL), bound, 10)
                .await
                .expect("a page");
            let bodies = page.iter().map(|message| message.body.as_ref());
            bodies.eq(expected.map(str::as_bytes))
        })
        .await;
    }
}
