//! Faults, as clients see them, and the control surface.

mod common;

use std::{collections::HashSet, time::Duration};

use common::{LONG, Ours, data, keyed, message, numbered, subscription};
use infrachat_emulators::{
    control::Control,
    faults::{Service, Settings},
    proto::{PublishRequest, StreamingPullRequest, Subscription},
};
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Code;

const FROM_WEST: &str = "us-west1.messages";
const TO_EAST: &str = "us-west1.messages.asia-northeast1";
const TO_WEST: &str = "us-west1.messages.us-west1";

#[tokio::test]
async fn a_refused_publish_is_unavailable_and_publishes_nothing() {
    let mut settings = Settings::default();
    settings.pubsub.refuse.insert("Publish".to_owned(), 1.0);
    let server = Ours::with(settings).await;
    let topic = server.topic("refused").await;
    let sub = server.subscription(subscription("refused", &topic)).await;
    let publish = PublishRequest {
        topic: topic.clone(),
        messages: vec![message("a")],
    };
    let refused = server.publisher().publish(publish).await;
    assert_eq!(refused.expect_err("refused").code(), Code::Unavailable);
    server
        .faults
        .change(|settings| *settings = Settings::default());
    server.publish(&topic, vec![message("b")]).await;
    assert_eq!(data(&server.pull(&sub).await), ["b"]);
}

#[tokio::test]
async fn a_duplicated_delivery_may_be_acknowledged_by_either_copy() {
    let mut settings = Settings::default();
    settings.delivery.duplicate = 1.0;
    let server = Ours::with(settings).await;
    let topic = server.topic("twice").await;
    let ordered = Subscription {
        enable_message_ordering: true,
        ..subscription("twice", &topic)
    };
    let sub = server.subscription(ordered).await;
    server.publish(&topic, numbered(2, "key")).await;
    let received = server.pull(&sub).await;
    assert_eq!(data(&received), ["0", "0", "1", "1"]);
    let ids: HashSet<_> = received.iter().map(|each| &each.ack_id).collect();
    assert_eq!(ids.len(), 4);
    server
        .ack(&sub, &[received[1].clone(), received[2].clone()])
        .await;
    server.clock.advance(Duration::from_secs(11));
    assert!(server.pull_now(&sub).await.is_empty());
}

#[tokio::test]
async fn a_lost_acknowledgement_brings_the_message_again() {
    let mut settings = Settings::default();
    settings.delivery.redeliver = 1.0;
    let server = Ours::with(settings).await;
    let topic = server.topic("lossy").await;
    let sub = server.subscription(subscription("lossy", &topic)).await;
    server.publish(&topic, vec![message("a")]).await;
    let received = server.pull(&sub).await;
    server.ack(&sub, &received).await;
    assert!(server.pull_now(&sub).await.is_empty());
    server.clock.advance(Duration::from_secs(10));
    assert_eq!(data(&server.pull(&sub).await), ["a"]);
}

#[tokio::test]
async fn a_delayed_message_holds_up_its_own_key_only() {
    let server = Ours::start().await;
    let topic = server.topic("slow").await;
    let ordered = Subscription {
        enable_message_ordering: true,
        ..subscription("slow", &topic)
    };
    let sub = server.subscription(ordered).await;
    server.faults.change(|settings| {
        settings.delivery.delay = 1.0;
        settings.delivery.delay_ms = 3_600_000;
    });
    server.publish(&topic, vec![keyed("late", "a")]).await;
    server
        .faults
        .change(|settings| settings.delivery.delay = 0.0);
    let rest = vec![keyed("after", "a"), keyed("other", "b")];
    server.publish(&topic, rest).await;
    assert_eq!(data(&server.pull(&sub).await), ["other"]);
    server.clock.advance(Duration::from_secs(3_600));
    let received = data(&server.pull(&sub).await);
    let of_a: Vec<_> = received.iter().filter(|each| *each != "other").collect();
    assert_eq!(of_a, ["late", "after"]);
}

#[tokio::test]
async fn a_cut_holds_messages_between_two_regions_until_it_heals() {
    let server = Ours::start().await;
    let topic = server.topic(FROM_WEST).await;
    let east = server.subscription(subscription(TO_EAST, &topic)).await;
    let west = server.subscription(subscription(TO_WEST, &topic)).await;
    server
        .faults
        .change(|settings| settings.link_mut("us-west1", "asia-northeast1").cut = true);
    server.publish(&topic, vec![message("a")]).await;
    assert_eq!(
        data(&server.pull(&west).await),
        ["a"],
        "the region itself goes on"
    );
    assert!(server.pull_now(&east).await.is_empty());
    let (received, ()) = tokio::join!(server.pull(&east), async {
        server.faults.change(|settings| settings.links.clear());
    });
    assert_eq!(data(&received), ["a"]);
}

#[tokio::test]
async fn latency_between_regions_keeps_the_order() {
    let mut settings = Settings::default();
    settings.link_mut("us-west1", "asia-northeast1").latency_ms = 60_000;
    let server = Ours::with(settings).await;
    let topic = server.topic(FROM_WEST).await;
    let east = server.subscription(subscription(TO_EAST, &topic)).await;
    let west = server.subscription(subscription(TO_WEST, &topic)).await;
    server.publish(&topic, numbered(20, "")).await;
    assert_eq!(server.pull(&west).await.len(), 20);
    assert!(server.pull_now(&east).await.is_empty());
    server.clock.advance(Duration::from_secs(60));
    let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(data(&server.pull(&east).await), expected);
}

#[tokio::test]
async fn a_pause_lets_everything_wait_and_loses_nothing() {
    let server = Ours::start().await;
    let topic = server.topic("paused").await;
    let sub = server.subscription(subscription("paused", &topic)).await;
    let pause = |paused| {
        server
            .faults
            .change(|settings| settings.calls_mut(Service::Pubsub).paused = paused);
    };
    pause(true);
    let publish = server.publish(&topic, vec![message("a")]);
    tokio::pin!(publish);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut publish).await;
    assert!(early.is_err(), "published while paused");
    pause(false);
    tokio::time::timeout(LONG, publish)
        .await
        .expect("published");
    assert_eq!(data(&server.pull(&sub).await), ["a"]);
}

#[tokio::test]
async fn a_broken_stream_ends_as_unavailable_and_what_it_had_stays_leased() {
    let server = Ours::start().await;
    let topic = server.topic("broken").await;
    let sub = server.subscription(subscription("broken", &topic)).await;
    server.publish(&topic, vec![message("a")]).await;
    let first = StreamingPullRequest {
        subscription: sub.clone(),
        stream_ack_deadline_seconds: 10,
        ..StreamingPullRequest::default()
    };
    let requests = tokio_stream::once(first).chain(tokio_stream::pending());
    let stream = server.subscriber().streaming_pull(requests).await;
    let mut stream = stream.expect("a stream").into_inner();
    let received = stream
        .message()
        .await
        .expect("no error")
        .expect("a message");
    assert_eq!(data(&received.received_messages), ["a"]);
    server.faults.break_streams(Service::Pubsub);
    let broken = stream.message().await.expect_err("the stream is broken");
    assert_eq!(broken.code(), Code::Unavailable);
    assert!(server.pull_now(&sub).await.is_empty());
    server.clock.advance(Duration::from_secs(10));
    assert_eq!(data(&server.pull(&sub).await), ["a"]);
}

#[tokio::test]
async fn faults_are_controlled_over_http() {
    let server = Ours::start().await;
    let address = "127.0.0.1:0";
    let control = Control::bind(address, server.faults.clone(), server.clock.clone())
        .await
        .expect("a free port");
    let url = format!("http://{}", control.address());
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    tokio::spawn(control.run(stop));
    let http = reqwest::Client::new();
    let post = async |path: &str, body: Value| -> Value {
        let request = http.post(format!("{url}{path}"));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let text = answer.text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or_default()
    };

    let cut = post("/cut", json!({"from": "a", "to": "b", "both": true})).await;
    assert_eq!(cut["links"].as_array().map(Vec::len), Some(2));
    assert!(
        server
            .faults
            .settings()
            .link("b", "a")
            .is_some_and(|link| link.cut)
    );
    let healed = http.post(format!("{url}/heal")).send().await;
    assert!(healed.expect("an answer").status().is_success());
    assert!(server.faults.settings().links.iter().all(|link| !link.cut));

    post("/pause", json!({"service": "pubsub"})).await;
    assert!(server.faults.settings().pubsub.paused);
    assert!(!server.faults.settings().firestore.paused);
    post("/resume", json!({})).await;
    assert_eq!(server.faults.settings().pubsub, Default::default());

    let before = server.clock.now();
    post("/advance", json!({"seconds": 3600})).await;
    assert!(server.clock.now().since(before) >= Duration::from_secs(3600));

    let put = |body: &'static str| {
        http.put(format!("{url}/faults"))
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let set = put(r#"{"delivery": {"duplicate": 0.5}}"#)
        .await
        .expect("an answer");
    assert!(set.status().is_success());
    assert_eq!(server.faults.settings().delivery.duplicate, 0.5);
    let bad = put(r#"{"delivery": {"duplicate": 5}}"#)
        .await
        .expect("an answer");
    assert_eq!(bad.status().as_u16(), 400);
    assert_eq!(server.faults.settings().delivery.duplicate, 0.5);
}
