//! Cases about one consumer: what it is handed, and what becomes of it.

use std::collections::VecDeque;

use super::*;

/// A refused event comes again, and then the later ones of its key, though they had been handed out.
pub async fn nacked_event_comes_again_and_later_ones_of_its_key_after_it(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let mut consumer = scene.consume().await;
    for text in ["one", "two", "three"] {
        scene.publish("key", text).await;
    }
    let mut held = Vec::new();
    for expected in ["one", "two", "three"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), expected);
        held.push(delivery);
    }
    let mut held = held.into_iter();
    held.next().expect("the first").ack();
    held.next().expect("the second").nack();
    for expected in ["two", "three"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), expected);
        delivery.ack();
    }
}

/// A delivery that is dropped counts as refused.
pub async fn dropped_delivery_is_refused(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let mut consumer = scene.consume().await;
    for key in ["", "key"] {
        scene.publish(key, "again").await;
        drop(next(&mut consumer).await);
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), "again");
        delivery.ack();
    }
}

/// What a consumer held when it was dropped goes to the next one, in order.
pub async fn dropped_consumer_hands_back(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let mut first = scene.consume().await;
    for text in ["one", "two", "three", "four"] {
        scene.publish("key", text).await;
    }
    next(&mut first).await.ack();
    let held = next(&mut first).await;
    drop(first);
    let mut second = scene.consume().await;
    let came = first_sights(drain_until(&mut second, "four").await);
    assert!(came.ends_with(&["two", "three", "four"].map(str::to_owned)));
    drop(held);
}

/// A consumer that starts later doesn't see what was acknowledged.
pub async fn acked_event_is_not_delivered_again(harness: &impl Harness) {
    let scene = Scene::new(harness).await;
    let mut first = scene.consume().await;
    for text in ["one", "two", "three"] {
        scene.publish("key", text).await;
    }
    drain_until(&mut first, "three").await;
    assert_silent(harness, &mut first, "all was acknowledged").await;
    drop(first);
    let mut second = scene.consume().await;
    scene.publish("key", "four").await;
    assert_eq!(text(&next(&mut second).await), "four");
}

/// No more events are outstanding than the limit; each that is acknowledged makes room for one.
pub async fn limits_bound_how_many_are_outstanding(harness: &impl Harness) {
    let limits = ConsumeLimits {
        events: 3,
        ..ConsumeLimits::default()
    };
    let scene = Scene::new(harness).await;
    let mut consumer = scene.consume_as(Scene::GROUP, limits).await;
    for (key, number) in ["a", "", "a", "b", "", "b"].into_iter().zip(0..) {
        scene.publish(key, &number.to_string()).await;
    }
    let mut held = VecDeque::new();
    for _ in 0..limits.events {
        held.push_back(next(&mut consumer).await);
    }
    for _ in 0..3 {
        assert_silent(harness, &mut consumer, "the limit is reached").await;
        held.pop_front().expect("some are held").ack();
        held.push_back(next(&mut consumer).await);
    }
}

/// No more bytes are outstanding than the limit.
pub async fn limits_bound_how_many_bytes_are_outstanding(harness: &impl Harness) {
    let limits = ConsumeLimits {
        bytes: 250,
        ..ConsumeLimits::default()
    };
    let scene = Scene::new(harness).await;
    let mut consumer = scene.consume_as(Scene::GROUP, limits).await;
    for number in 0..4 {
        scene.publish("key", &format!("{number:0100}")).await;
    }
    let one = next(&mut consumer).await;
    let two = next(&mut consumer).await;
    assert_silent(harness, &mut consumer, "the limit is reached").await;
    one.ack();
    let three = next(&mut consumer).await;
    assert_silent(harness, &mut consumer, "the limit is reached again").await;
    two.ack();
    three.ack();
    next(&mut consumer).await.ack();
}

/// An event larger than the limit is delivered all the same, with nothing beside it.
pub async fn large_event_passes_alone(harness: &impl Harness) {
    let limits = ConsumeLimits {
        bytes: 100,
        ..ConsumeLimits::default()
    };
    let scene = Scene::new(harness).await;
    let mut consumer = scene.consume_as(Scene::GROUP, limits).await;
    let large = "x".repeat(10_000);
    for text in ["before", &large, "after"] {
        scene.publish("key", text).await;
    }
    for expected in ["before", &large, "after"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), expected);
        if expected != "after" {
            assert_silent(harness, &mut consumer, "the large one passes alone").await;
        }
        delivery.ack();
    }
}
