//! Cases about groups, several consumers and several regions.

use std::collections::{BTreeSet, HashMap};

use tokio::sync::mpsc;

use super::*;

/// Each group gets all events, whatever the other does.
pub async fn every_group_gets_every_event(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    scene.ensure("other").await;
    let mut consumer = scene.consume().await;
    for text in ["one", "two", "three"] {
        scene.publish("key", text).await;
    }
    let mut other = scene.consume_as("other", ConsumeLimits::default()).await;
    for consumer in [&mut consumer, &mut other] {
        let came = drain_until(consumer, "three").await;
        assert_eq!(first_sights(came), ["one", "two", "three"]);
    }
}

/// Within a group an event goes to one consumer, and all events to somebody.
pub async fn one_consumer_of_a_group_handles_each_event(harness: &impl Harness) {
    const EVENTS: usize = 60;
    let scene = Scene::new(harness).await;
    let mut first = scene.consume().await;
    let mut second = scene.consume().await;
    for number in 0..EVENTS {
        scene
            .publish(&format!("key-{}", number % 10), &number.to_string())
            .await;
    }
    let mut handlers: HashMap<String, BTreeSet<&str>> = HashMap::new();
    while handlers.len() < EVENTS {
        let (name, delivery) = tokio::select! {
            delivery = next(&mut first) => ("first", delivery),
            delivery = next(&mut second) => ("second", delivery),
        };
        handlers.entry(text(&delivery)).or_default().insert(name);
        delivery.ack();
    }
    assert_silent(harness, &mut first, "all was acknowledged").await;
    assert_silent(harness, &mut second, "all was acknowledged").await;
    for (text, by) in handlers {
        assert_eq!(by.len(), 1, "{text} was handled by {by:?}");
    }
}

/// While a consumer holds events of a key, no other of its group is handed that key.
pub async fn a_key_is_with_one_consumer_at_a_time(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let mut first = scene.consume().await;
    scene.publish("key", "one").await;
    let held = next(&mut first).await;
    let mut second = scene.consume().await;
    scene.publish("key", "two").await;
    assert_eq!(text(&next(&mut first).await), "two");
    assert_silent(harness, &mut second, "the key is with the first consumer").await;
    drop(first);
    drop(held);
    for expected in ["one", "two"] {
        let delivery = next(&mut second).await;
        assert_eq!(text(&delivery), expected);
        delivery.ack();
    }
}

/// A region's topic is read from the other region.
pub async fn other_regions_events_arrive(harness: &impl Harness) {
    for (home, away) in [(HOME, AWAY), (AWAY, HOME)] {
        let topic = harness.fresh_topic(home).await;
        let [publisher, reader] = [harness.bus(home).await, harness.bus(away).await];
        let subscription = Subscription {
            topic: topic.clone(),
            group: away.to_owned(),
        };
        let ensured = reader.ensure(&subscription).await;
        ensured.expect("the group is made");
        let consumer = reader
            .consume(&subscription, ConsumeLimits::default())
            .await;
        let mut consumer = consumer.expect("the consumer starts");
        for text in ["one", "two", "three"] {
            let published = publisher.publish(&topic, event("key", text)).await;
            published.expect("the event is accepted");
        }
        let came = drain_until(&mut consumer, "three").await;
        assert_eq!(first_sights(came), ["one", "two", "three"]);
    }
}

/// Under load consumers come, leave with events in their hands, and others go on: every event is
/// handled, and the events of a key in order.
pub async fn consumers_join_and_leave_without_loss(harness: &impl Harness) {
    const KEYS: usize = 8;
    const EACH: usize = 100;
    let scene = Scene::new(harness).await;
    let (handled, mut log) = mpsc::unbounded_channel();
    let publish = async {
        for number in 0..EACH {
            for key in 0..KEYS {
                let key = format!("key-{key}");
                scene.publish(&key, &number.to_string()).await;
            }
        }
    };
    let workers = (1..=3).map(|worker| come_and_go(&scene, worker, handled.clone()));
    let collect = async {
        let mut next: HashMap<String, usize> = HashMap::new();
        while next.len() < KEYS || next.values().any(|&next| next < EACH) {
            let (key, number): (String, usize) = log.recv().await.expect("the workers go on");
            let next = next.entry(key.clone()).or_default();
            assert!(number <= *next, "{number} of {key} came before {next}");
            *next = (*next).max(number + 1);
        }
    };
    let load = async {
        tokio::select! {
            _ = futures::future::join_all(workers) => unreachable!("workers go on"),
            () = async { tokio::join!(publish, collect); } => {}
        }
    };
    timeout(PATIENCE, load)
        .await
        .expect("every event is handled in time");
}

/// Handles some events, leaves with one in its hands, and comes again, for ever.
async fn come_and_go(
    scene: &Scene,
    worker: usize,
    handled: mpsc::UnboundedSender<(String, usize)>,
) {
    for stay in (1..).map(|round| 5 + (round * 7 * worker) % 40) {
        let mut consumer = scene.consume().await;
        for _ in 0..stay {
            let delivery = next(&mut consumer).await;
            let number = text(&delivery).parse().expect("a number was published");
            let key = delivery.event.ordering_key.clone();
            if handled.send((key, number)).is_err() {
                return;
            }
            delivery.ack();
        }
        let in_hand = next(&mut consumer).await;
        drop(consumer);
        drop(in_hand);
    }
}
