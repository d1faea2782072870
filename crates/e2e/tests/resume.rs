//! Who comes back gets what was missed, exactly, or is told what can't be had.
#![allow(clippy::expect_used)]

use bytes::Bytes;
use infrachat_e2e::{ASIA, RawSession, TestStack, WEST, bearer};
use infrachat_proto::chat::v1::{self as chat, server_event::Kind};
use infrachat_types::MessageId;

async fn come_back(stack: &TestStack, region: usize, token: &str, position: &Bytes) -> RawSession {
    let mut session = stack.session_for(region, token, "#general").await;
    let joined = session.join_from("#general", position.clone()).await;
    assert!(joined.recovered);
    session
}

#[tokio::test]
async fn a_session_that_comes_back_gets_exactly_what_it_missed() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    alice.say("#general", "seen").await;
    let position = bob.message().await.position;
    let token = bob.token.clone();
    drop(bob);
    for number in 0..20 {
        alice.say("#general", &number.to_string()).await;
    }
    let mut bob = come_back(&stack, WEST, &token, &position).await;
    for number in 0..20 {
        assert_eq!(bob.text().await, number.to_string());
    }
    alice.say("#general", "live").await;
    assert_eq!(bob.text().await, "live");
}

#[tokio::test]
async fn what_the_log_no_longer_holds_comes_from_history() {
    let stack = TestStack::start_with(|config| {
        config.tuning.slow_reader_pending = 10;
        config.tuning.publish_per_second = 10_000;
    })
    .await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    alice.say("#general", "seen").await;
    let position = bob.message().await.position;
    let token = bob.token.clone();
    drop(bob);
    let count = 700;
    for number in 0..count {
        alice.say("#general", &number.to_string()).await;
    }
    let mut bob = come_back(&stack, WEST, &token, &position).await;
    for number in 0..count {
        assert_eq!(bob.text().await, number.to_string());
    }
}

#[tokio::test]
async fn in_another_region_nothing_is_missing() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut charlie = stack.joined(ASIA, "charlie", "#general").await;
    let mut bob = stack.joined(WEST, "bob", "#general").await;
    alice.say("#general", "seen").await;
    let position = bob.message().await.position;
    let token = bob.token.clone();
    drop(bob);
    alice.say("#general", "from the west").await;
    assert_eq!(charlie.text().await, "seen");
    assert_eq!(charlie.text().await, "from the west");
    charlie.say("#general", "from asia").await;
    let mut bob = come_back(&stack, ASIA, &token, &position).await;
    let mut missing = vec!["from the west", "from asia"];
    while !missing.is_empty() {
        let text = bob.text().await;
        missing.retain(|other| *other != text);
    }
}

#[tokio::test]
async fn a_position_that_cannot_be_used_is_answered_with_a_gap() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut other = stack.joined(WEST, "other", "#other").await;
    alice.say("#general", "one").await;
    let elsewhere = other.join("#other").await.position;
    let mut future = infrachat_types::Position::decode(
        &infrachat_e2e::channel("#general"),
        &alice.join("#general").await.position,
    )
    .expect("a position");
    future.offset.0 += 1_000;
    let future = future.encode(&infrachat_e2e::channel("#general"));
    for position in [
        elsewhere,
        Bytes::from(future),
        Bytes::from_static(b"nonsense"),
    ] {
        let mut bob = stack
            .session_for(WEST, &alice.token.clone(), "#general")
            .await;
        let joined = bob.join_from("#general", position.clone()).await;
        assert!(!joined.recovered);
        match bob.next().await {
            Kind::Gap(gap) => assert_eq!(
                (gap.code.as_str(), gap.from),
                ("position_unknown", position)
            ),
            other => panic!("instead of a gap came {other:?}"),
        }
    }
}

#[tokio::test]
async fn history_pages_both_ways_and_reads_the_same_in_both_regions() {
    let stack = TestStack::start().await;
    let mut alice = stack.joined(WEST, "alice", "#general").await;
    let mut charlie = stack.joined(ASIA, "charlie", "#general").await;
    for number in 0..10 {
        alice.say("#general", &format!("a{number}")).await;
        charlie.say("#general", &format!("c{number}")).await;
    }
    let read = async |region: usize, bound| {
        let shard = stack.regions[region].shards[0].address.to_string();
        let request = chat::GetHistoryRequest {
            channel: "#general".to_owned(),
            bound,
            limit: 15,
        };
        let page = stack
            .chat(&shard)
            .await
            .get_history(bearer(&alice.token, request))
            .await;
        page.expect("a page").into_inner()
    };
    let ids = |page: &chat::GetHistoryResponse| -> Vec<String> {
        page.messages
            .iter()
            .map(|message| message.message_id.clone())
            .collect()
    };
    // The last messages are written to history a moment after they are delivered.
    let (mut newest, mut same) = (read(WEST, None).await, read(ASIA, None).await);
    let all_written = |page: &chat::GetHistoryResponse| {
        let said = |text: &str| {
            page.messages
                .iter()
                .any(|message| message.body == text.as_bytes())
        };
        said("a9") && said("c9") && page.messages.len() == 15
    };
    while ids(&newest) != ids(&same) || !all_written(&newest) {
        (newest, same) = (read(WEST, None).await, read(ASIA, None).await);
    }
    let before = chat::get_history_request::Bound::Before(newest.messages[0].message_id.clone());
    let oldest = read(ASIA, Some(before)).await;
    assert_eq!((oldest.messages.len(), oldest.more), (5, false));
    let all = [ids(&oldest), ids(&newest)].concat();
    assert!(all.is_sorted());
    let after = chat::get_history_request::Bound::After(all[4].clone());
    assert_eq!(ids(&read(WEST, Some(after)).await), ids(&newest));
    // By time: an id begins with its moment.
    let moment = |id: &String| id.parse::<MessageId>().expect("an id").millis();
    let at = moment(&all[10]);
    let (earlier, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|id| moment(id) < at);
    let at = i64::try_from(at).expect("a moment");
    for region in [WEST, ASIA] {
        let before = chat::get_history_request::Bound::BeforeMs(at);
        assert_eq!(ids(&read(region, Some(before)).await), earlier);
        let since = chat::get_history_request::Bound::SinceMs(at);
        let since = ids(&read(region, Some(since)).await);
        assert_eq!(since, later[..later.len().min(15)]);
    }
}
