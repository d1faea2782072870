//! Cases about what a publish promises.

use futures::future::join_all;

use super::*;

/// Events of one key come in the order they were published, those of many keys interleaved.
pub async fn events_of_a_key_arrive_in_order(harness: &impl Harness) {
    const KEYS: usize = 5;
    const EACH: usize = 40;
    let scene = Scene::new(harness).await;
    let mut consumer = scene.consume().await;
    for number in 0..EACH {
        for key in 0..KEYS {
            let key = format!("key-{key}");
            scene.publish(&key, &format!("{key} {number}")).await;
        }
    }
    let mut texts = std::collections::HashSet::new();
    let mut came = Vec::new();
    while texts.len() < KEYS * EACH {
        let delivery = next(&mut consumer).await;
        let text = text(&delivery);
        delivery.ack();
        texts.insert(text.clone());
        came.push(text);
    }
    let came = first_sights(came);
    for key in 0..KEYS {
        let prefix = format!("key-{key} ");
        let of_key: Vec<_> = came.iter().filter(|t| t.starts_with(&prefix)).collect();
        let expected: Vec<_> = (0..EACH).map(|n| format!("{prefix}{n}")).collect();
        assert_eq!(of_key, expected.iter().collect::<Vec<_>>());
    }
}

/// The order within a key is that of the calls, however the futures are awaited.
pub async fn publish_order_is_fixed_by_the_call(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let mut consumer = scene.consume().await;
    let expected: Vec<_> = (0..50).map(|number| format!("{number:02}")).collect();
    let mut publishing: Vec<_> = expected
        .iter()
        .map(|text| scene.bus.publish(&scene.topic, event("key", text)))
        .collect();
    publishing.reverse();
    for published in join_all(publishing).await {
        published.expect("the event is accepted");
    }
    let came = drain_until(&mut consumer, "49").await;
    assert_eq!(first_sights(came), expected);
}

/// The bus changes nothing in an event.
pub async fn payload_and_attributes_arrive_unchanged(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let mut consumer = scene.consume().await;
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let attributes = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-01"),
        ("grüße", "こんにちは 👋"),
        ("empty", ""),
    ];
    let attributes: BTreeMap<_, _> = attributes
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let events = [
        Event {
            ordering_key: "lane-1".to_owned(),
            payload: every_byte.into(),
            attributes: attributes.clone(),
        },
        Event {
            ordering_key: "lane-1".to_owned(),
            payload: Bytes::new(),
            attributes,
        },
        Event {
            ordering_key: "lane-1".to_owned(),
            payload: Bytes::from(vec![0xff; 200_000]),
            attributes: BTreeMap::new(),
        },
    ];
    for event in &events {
        let published = scene.bus.publish(&scene.topic, event.clone()).await;
        published.expect("the event is accepted");
    }
    for event in events {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.event, event);
        delivery.ack();
    }
}

/// A topic or a group that nobody made is an error that says so.
pub async fn unknown_topic_is_not_found(harness: &impl Harness) {
    let bus = harness.bus(HOME).await;
    let topic = harness.fresh_topic(HOME).await;
    let published = bus.publish(&topic, event("key", "lost")).await;
    assert!(
        matches!(published, Err(BusError::NotFound(_))),
        "{published:?}"
    );
    let subscription = Subscription {
        topic,
        group: Scene::GROUP.to_owned(),
    };
    let consumer = bus.consume(&subscription, ConsumeLimits::default()).await;
    assert!(
        matches!(consumer, Err(BusError::NotFound(_))),
        "{consumer:?}"
    );
}

/// Ensuring again, also from elsewhere, loses nothing that waits.
pub async fn ensure_is_idempotent(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    scene.publish("key", "kept").await;
    scene.ensure(Scene::GROUP).await;
    let elsewhere = harness.bus(AWAY).await;
    elsewhere
        .ensure(&scene.subscription(Scene::GROUP))
        .await
        .expect("ensuring what is there succeeds");
    let mut consumer = scene.consume().await;
    let delivery = next(&mut consumer).await;
    assert_eq!(text(&delivery), "kept");
    delivery.ack();
}

/// What was published while nobody consumed waits for the first consumer.
pub async fn events_published_before_a_consumer_started_are_kept(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    for text in ["one", "two", "three"] {
        scene.publish("key", text).await;
    }
    let mut consumer = scene.consume().await;
    let came = drain_until(&mut consumer, "three").await;
    assert_eq!(first_sights(came), ["one", "two", "three"]);
}

/// A group gets what is published once it is made, and nothing from before.
pub async fn group_sees_events_from_its_creation_on(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    scene.publish("key", "before").await;
    scene.ensure("late").await;
    scene.publish("key", "after").await;
    let mut late = scene.consume_as("late", ConsumeLimits::default()).await;
    assert_eq!(text(&next(&mut late).await), "after");
}
