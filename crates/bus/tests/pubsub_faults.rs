//! The Pub/Sub backend when Pub/Sub fails, or is not as it should be.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use infrachat_bus::{
    BusError, ConsumeLimits, Consumer, Delivery, Event, EventBus, PublishLimits, PubsubBus,
    PubsubConfig, PubsubEndpoint, Subscription, Topic,
    contract::{HOME, PATIENCE},
};
use infrachat_test_services::PubsubEmulator;
use tokio::time::timeout;

/// Pub/Sub refuses every publish for now.
const REFUSING: &str = r#"{"pubsub": {"refuse": {"Publish": 1}}}"#;
/// Pub/Sub takes calls and answers none.
const HANGING: &str = r#"{"pubsub": {"paused": true}}"#;

struct Scene {
    emulator: PubsubEmulator,
    bus: PubsubBus,
    place: Subscription,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut PubsubConfig)) -> Self {
        let emulator = PubsubEmulator::start().await.expect("an emulator");
        let endpoint = PubsubEndpoint::Emulator(emulator.address.clone());
        let mut config = PubsubConfig::new("chat", [(HOME.to_owned(), endpoint)].into());
        config.create_topics = true;
        change(&mut config);
        let topic = Topic {
            region: HOME.to_owned(),
            name: "topic".to_owned(),
        };
        let creates = config.create_topics;
        let scene = Self {
            emulator,
            bus: PubsubBus::connect(config).await.expect("clients"),
            place: Subscription {
                topic,
                group: "group".to_owned(),
            },
        };
        if creates {
            let made = scene.bus.ensure(&scene.place).await;
            made.expect("the group is made");
        }
        scene
    }

    async fn publish(&self, key: &str, text: &str) -> Result<(), BusError> {
        self.bus.publish(&self.place.topic, event(key, text)).await
    }

    async fn consume(&self) -> Consumer {
        let limits = ConsumeLimits::default();
        let consumer = self.bus.consume(&self.place, limits).await;
        consumer.expect("the consumer starts")
    }

    async fn faults(&self, faults: &str) {
        let set = self.emulator.set_faults(faults).await;
        set.expect("known faults");
    }

    async fn no_faults(&self) {
        let cleared = self.emulator.clear_faults().await;
        cleared.expect("the faults end");
    }
}

fn event(key: &str, text: &str) -> Event {
    Event {
        ordering_key: key.to_owned(),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        attributes: [].into(),
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.event.payload).into_owned()
}

async fn next(consumer: &mut Consumer) -> Option<Delivery> {
    let delivery = timeout(PATIENCE, consumer.next()).await;
    delivery.expect("something comes in time")
}

/// Acknowledges until the text has come; answers each text where it first came.
async fn first_sights(consumer: &mut Consumer, last: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut came = Vec::new();
    while !seen.contains(last) {
        let delivery = next(consumer).await.expect("the consumer goes on");
        let text = text(&delivery);
        delivery.ack();
        if seen.insert(text.clone()) {
            came.push(text);
        }
    }
    came
}

fn is_unavailable(published: &Result<(), BusError>) -> bool {
    matches!(published, Err(BusError::Unavailable(_)))
}

#[tokio::test]
async fn a_failed_key_is_halted_until_it_is_resumed() {
    let scene = Scene::with(|config| config.publish_deadline = Duration::from_secs(1)).await;
    scene.faults(REFUSING).await;
    let published = scene.publish("key", "one").await;
    assert!(is_unavailable(&published), "{published:?}");
    scene.no_faults().await;
    assert_eq!(scene.publish("key", "two").await, Err(BusError::Halted));
    assert_eq!(scene.publish("other", "x").await, Ok(()));

    scene.bus.resume(&scene.place.topic, "key");
    assert_eq!(scene.publish("key", "one").await, Ok(()));
    assert_eq!(scene.publish("key", "two").await, Ok(()));
    let mut came = first_sights(&mut scene.consume().await, "two").await;
    came.retain(|text| text != "x");
    assert_eq!(came, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_key_is_tried_again_however_soon_after_the_failure() {
    let scene = Scene::with(|config| config.create_topics = false).await;
    for _ in 0..300 {
        let published = scene.publish("key", "one").await;
        assert!(
            matches!(published, Err(BusError::NotFound(_))),
            "{published:?}"
        );
        scene.bus.resume(&scene.place.topic, "key");
    }
}

/// As a publisher does that retries from the event that failed on.
#[tokio::test(flavor = "multi_thread")]
async fn retries_under_failures_lose_nothing_and_keep_the_order() {
    const EVENTS: usize = 400;
    const WINDOW: usize = 16;
    let scene = Scene::with(|config| config.publish_deadline = Duration::from_millis(100)).await;
    let faults = r#"{"pubsub": {"refuse": {"Publish": 0.6}, "jitter_ms": 5}}"#;
    scene.faults(faults).await;
    let expected: Vec<_> = (0..EVENTS).map(|number| format!("{number:03}")).collect();
    let mut failures = 0;
    let mut accepted = 0;
    while accepted < EVENTS {
        let window = &expected[accepted..EVENTS.min(accepted + WINDOW)];
        let publishing: Vec<_> = window
            .iter()
            .map(|text| scene.bus.publish(&scene.place.topic, event("key", text)))
            .collect();
        let outcomes = futures::future::join_all(publishing).await;
        let passed = outcomes
            .iter()
            .take_while(|outcome| outcome.is_ok())
            .count();
        let later = &outcomes[passed..];
        assert!(
            later.iter().all(Result::is_err),
            "one passed another: {outcomes:?}"
        );
        if !later.is_empty() {
            failures += 1;
            scene.bus.resume(&scene.place.topic, "key");
        }
        accepted += passed;
    }
    assert!(failures > 0, "nothing failed");
    let came = first_sights(&mut scene.consume().await, &expected[EVENTS - 1]).await;
    assert_eq!(came, expected);
}

#[tokio::test]
async fn a_publish_resolves_while_pubsub_hangs_and_what_it_left_passes_nothing() {
    let scene = Scene::with(|config| config.publish_deadline = Duration::from_millis(300)).await;
    scene.faults(HANGING).await;
    let topic = &scene.place.topic;
    let hanging = ["one", "two"].map(|text| scene.bus.publish(topic, event("key", text)));
    for published in timeout(PATIENCE, futures::future::join_all(hanging))
        .await
        .expect("answers")
    {
        assert!(published.is_err(), "{published:?}");
    }
    scene.no_faults().await;
    for text in ["one", "two", "three"] {
        while scene.publish("key", text).await.is_err() {
            scene.bus.resume(topic, "key");
        }
    }
    let came = first_sights(&mut scene.consume().await, "three").await;
    assert_eq!(came, ["one", "two", "three"]);
}

/// Each request alone would be in time; the second waits for the first.
#[tokio::test]
async fn the_deadline_holds_for_an_event_that_waits_behind_another() {
    let scene = Scene::with(|config| config.publish_deadline = Duration::from_secs(1)).await;
    scene.faults(r#"{"pubsub": {"latency_ms": 700}}"#).await;
    let topic = &scene.place.topic;
    // So large that it travels alone.
    let first = scene
        .bus
        .publish(topic, event("key", &"x".repeat(1_000_000)));
    let second = scene.bus.publish(topic, event("key", "two"));
    let (_, second) = tokio::join!(first, second);
    assert!(second.is_err(), "it came too late");
    assert_eq!(scene.publish("key", "three").await, Err(BusError::Halted));
}

#[tokio::test]
async fn what_exceeds_the_limits_of_publishing_fails_at_once() {
    let limits = PublishLimits {
        events: 2,
        bytes: 1_000,
    };
    let scene = Scene::with(|config| config.publish_limits = limits).await;
    scene.faults(HANGING).await;
    let topic = &scene.place.topic;
    let waiting = ["one", "two"].map(|text| scene.bus.publish(topic, event("", text)));
    let excess = scene.bus.publish(topic, event("key", "three"));
    let refused = excess.now_or_never().expect("it is answered at once");
    assert!(is_unavailable(&refused), "{refused:?}");
    assert_eq!(scene.publish("key", "four").await, Err(BusError::Halted));

    scene.no_faults().await;
    for published in futures::future::join_all(waiting).await {
        published.expect("there was room for it");
    }
    scene.bus.resume(topic, "key");
    assert_eq!(scene.publish("key", "three").await, Ok(()));
}

#[tokio::test]
async fn an_event_that_pubsub_never_takes_is_refused_without_harm_to_others() {
    let scene = Scene::new().await;
    let mut bad = event("", "bad");
    bad.attributes.insert("googly".to_owned(), String::new());
    let events = [event("", "one"), bad, event("", ""), event("", "two")];
    let publishing = events.map(|event| scene.bus.publish(&scene.place.topic, event));
    let published = futures::future::join_all(publishing).await;
    assert!(matches!(
        published[..],
        [
            Ok(()),
            Err(BusError::Refused(_)),
            Err(BusError::Refused(_)),
            Ok(())
        ]
    ));
}

#[tokio::test]
async fn a_consumer_goes_on_after_its_stream_broke() {
    let scene = Scene::new().await;
    let mut consumer = scene.consume().await;
    for text in ["one", "two", "three"] {
        assert_eq!(scene.publish("key", text).await, Ok(()));
        first_sights(&mut consumer, text).await;
        let broken = scene.emulator.break_streams().await;
        broken.expect("the streams break");
    }
}

#[tokio::test]
async fn a_consumer_ends_when_its_subscription_is_deleted() {
    let scene = Scene::new().await;
    let mut consumer = scene.consume().await;
    assert_eq!(scene.publish("key", "one").await, Ok(()));
    first_sights(&mut consumer, "one").await;
    let path = "/v1/projects/chat/subscriptions/us-west1.topic.group";
    scene.emulator.delete(path).await.expect("it is deleted");
    assert!(next(&mut consumer).await.is_none());
}

#[tokio::test]
async fn acknowledgements_count_though_the_consumer_is_dropped_right_after() {
    let scene = Scene::new().await;
    for text in ["one", "two", "three"] {
        assert_eq!(scene.publish("key", text).await, Ok(()));
    }
    let mut first = scene.consume().await;
    for _ in 0..2 {
        next(&mut first).await.expect("a delivery").ack();
    }
    drop(first);
    let mut second = scene.consume().await;
    assert_eq!(first_sights(&mut second, "three").await, ["three"]);
}

#[tokio::test]
async fn ensure_creates_nothing_unless_told_to() {
    let scene = Scene::with(|config| config.create_topics = false).await;
    let ensured = scene.bus.ensure(&scene.place).await;
    assert!(matches!(ensured, Err(BusError::NotFound(_))), "{ensured:?}");

    let topic = "projects/chat/topics/us-west1.topic";
    let subscription = "/v1/projects/chat/subscriptions/us-west1.topic.group";
    let made = scene.emulator.create(&format!("/v1/{topic}"), "{}").await;
    made.expect("a topic");
    let body = format!(r#"{{"topic": "{topic}", "enableMessageOrdering": true}}"#);
    let made = scene.emulator.create(subscription, &body).await;
    made.expect("a subscription");
    assert_eq!(scene.bus.ensure(&scene.place).await, Ok(()));
}

#[tokio::test]
async fn a_subscription_that_breaks_the_promises_is_refused() {
    let scene = Scene::new().await;
    let topic = "projects/chat/topics/us-west1.topic";
    let ordered = format!(r#""topic": "{topic}", "enableMessageOrdering": true"#);
    let dead_letters = format!(r#""deadLetterPolicy": {{"deadLetterTopic": "{topic}"}}"#);
    for (group, body) in [
        ("unordered", format!(r#"{{"topic": "{topic}"}}"#)),
        ("forgetful", format!("{{{ordered}, {dead_letters}}}")),
    ] {
        let path = format!("/v1/projects/chat/subscriptions/us-west1.topic.{group}");
        let made = scene.emulator.create(&path, &body).await;
        made.expect("a subscription");
        let place = Subscription {
            group: group.to_owned(),
            ..scene.place.clone()
        };
        let ensured = scene.bus.ensure(&place).await;
        assert!(matches!(ensured, Err(BusError::Refused(_))), "{ensured:?}");
        let consumer = scene.bus.consume(&place, ConsumeLimits::default()).await;
        assert!(
            matches!(consumer, Err(BusError::Refused(_))),
            "{consumer:?}"
        );
    }
}
