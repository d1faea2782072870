//! The memory backend when things go wrong.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use infrachat_bus::{
    BusError, ConsumeLimits, Consumer, Delivery, Event, EventBus, FabricConfig, Faults, MemoryBus,
    MemoryFabric, Subscription, Topic,
};
use tokio::time::{Instant, timeout};

const HOME: &str = "us-west1";
const AWAY: &str = "asia-northeast1";
const LONG: Duration = Duration::from_secs(600);

struct Scene {
    fabric: MemoryFabric,
    bus: MemoryBus,
    subscription: Subscription,
}

impl Scene {
    async fn new(faults: Faults) -> Self {
        let fabric = MemoryFabric::new(FabricConfig {
            cross_region_delay: Duration::from_millis(120),
            faults,
            ..FabricConfig::default()
        });
        let scene = Self {
            bus: fabric.bus(HOME),
            subscription: subscription(AWAY),
            fabric,
        };
        for group in [HOME, AWAY] {
            let ensured = scene.bus.ensure(&subscription(group)).await;
            ensured.expect("the group is made");
        }
        scene
    }

    async fn publish(&self, key: &str, number: usize) -> Result<(), BusError> {
        let event = Event {
            ordering_key: key.to_owned(),
            payload: Bytes::from(number.to_string()),
            attributes: BTreeMap::new(),
        };
        self.bus.publish(&self.subscription.topic, event).await
    }

    /// Consumes in the region whose group this is.
    async fn consume(&self, region: &str) -> Consumer {
        let bus = self.fabric.bus(region);
        let consumer = bus
            .consume(&subscription(region), ConsumeLimits::default())
            .await;
        consumer.expect("the consumer starts")
    }
}

fn subscription(group: &str) -> Subscription {
    Subscription {
        topic: Topic {
            region: HOME.to_owned(),
            name: "messages-7".to_owned(),
        },
        group: group.to_owned(),
    }
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(LONG, consumer.next()).await;
    delivery
        .expect("a delivery comes")
        .expect("the consumer goes on")
}

fn number(delivery: &Delivery) -> usize {
    let text = String::from_utf8_lossy(&delivery.event.payload);
    text.parse().expect("a number was published")
}

/// All there is, acknowledged as it comes: when, the key, the number, and which attempt.
async fn drain(consumer: &mut Consumer) -> Vec<(Duration, String, usize, u32)> {
    let began = Instant::now();
    let mut came = Vec::new();
    while let Ok(Some(delivery)) = timeout(LONG, consumer.next()).await {
        let key = delivery.event.ordering_key.clone();
        came.push((began.elapsed(), key, number(&delivery), delivery.attempt));
        delivery.ack();
    }
    came
}

fn all_faults(seed: u64) -> Faults {
    Faults {
        seed,
        duplicate: 0.1,
        redeliver: 0.1,
        delay: Duration::ZERO..Duration::from_millis(300),
        lose_publish_reply: 0.1,
    }
}

/// Publishes as a careful publisher does: what failed comes again before what follows.
async fn publish_all(scene: &Scene, keys: usize, each: usize) {
    for number in 0..each {
        for key in (0..keys).map(|key| format!("key-{key}")) {
            while scene.publish(&key, number).await.is_err() {
                scene.bus.resume(&scene.subscription.topic, &key);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn order_of_a_key_holds_and_nothing_is_lost_under_all_faults() {
    for seed in 0..20 {
        let scene = Scene::new(all_faults(seed)).await;
        let mut consumer = scene.consume(AWAY).await;
        publish_all(&scene, 5, 60).await;
        let came = drain(&mut consumer).await;
        let mut unseen: HashMap<&str, usize> = HashMap::new();
        for (_, key, number, _) in &came {
            let unseen = unseen.entry(key).or_default();
            assert!(
                number <= unseen,
                "seed {seed}: {number} of {key} before {unseen}"
            );
            *unseen = (*unseen).max(number + 1);
        }
        assert!(unseen.len() == 5 && unseen.values().all(|&unseen| unseen == 60));
        assert!(came.len() > 300, "some came more than once");
        assert_eq!(scene.fabric.unacknowledged(&scene.subscription), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn same_seed_same_deliveries() {
    async fn run(seed: u64) -> Vec<(Duration, String, usize, u32)> {
        let scene = Scene::new(all_faults(seed)).await;
        let mut consumer = scene.consume(AWAY).await;
        publish_all(&scene, 5, 20).await;
        drain(&mut consumer).await
    }
    let first = run(7).await;
    assert_eq!(first, run(7).await);
    assert_ne!(first, run(8).await);
}

#[tokio::test(start_paused = true)]
async fn duplicates_come_next_to_each_other() {
    let scene = Scene::new(Faults {
        duplicate: 1.0,
        ..Faults::none()
    })
    .await;
    let mut consumer = scene.consume(HOME).await;
    publish_all(&scene, 1, 3).await;
    let came = drain(&mut consumer).await;
    let came: Vec<_> = came
        .iter()
        .map(|(_, _, number, attempt)| (*number, *attempt))
        .collect();
    assert_eq!(came, [(0, 1), (0, 1), (1, 1), (1, 1), (2, 1), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn event_whose_ack_was_lost_comes_again_as_a_later_attempt() {
    let scene = Scene::new(Faults {
        redeliver: 1.0,
        ..Faults::none()
    })
    .await;
    let mut consumer = scene.consume(HOME).await;
    publish_all(&scene, 1, 1).await;
    for attempt in 1..=3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.attempt, attempt);
        delivery.ack();
    }
    scene.fabric.set_faults(Faults::none());
    next(&mut consumer).await.ack();
    assert!(timeout(LONG, consumer.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn keys_overtake_each_other_under_random_delay() {
    let scene = Scene::new(Faults {
        delay: Duration::ZERO..Duration::from_millis(300),
        ..Faults::none()
    })
    .await;
    let mut consumer = scene.consume(HOME).await;
    publish_all(&scene, 10, 1).await;
    let came = drain(&mut consumer).await;
    assert_eq!(came.len(), 10);
    assert!(!came.is_sorted_by_key(|(_, key, _, _)| key));
}

#[tokio::test(start_paused = true)]
async fn event_takes_the_cross_region_delay_and_its_change() {
    let scene = Scene::new(Faults::none()).await;
    let [mut near, mut far] = [scene.consume(HOME).await, scene.consume(AWAY).await];
    let began = Instant::now();
    publish_all(&scene, 1, 1).await;
    next(&mut near).await.ack();
    assert_eq!(began.elapsed(), Duration::ZERO);
    next(&mut far).await.ack();
    assert_eq!(began.elapsed(), Duration::from_millis(120));

    let began = Instant::now();
    publish_all(&scene, 1, 1).await;
    tokio::task::yield_now().await;
    scene
        .fabric
        .set_cross_region_delay(Duration::from_millis(40));
    next(&mut far).await.ack();
    assert_eq!(began.elapsed(), Duration::from_millis(40));
}

#[tokio::test(start_paused = true)]
async fn cut_link_holds_events_until_it_heals() {
    let scene = Scene::new(Faults::none()).await;
    let [mut near, mut far] = [scene.consume(HOME).await, scene.consume(AWAY).await];
    scene.fabric.cut(AWAY, HOME);
    publish_all(&scene, 2, 10).await;
    assert_eq!(drain(&mut near).await.len(), 20);
    assert!(timeout(LONG, far.next()).await.is_err());

    let stranger = scene.fabric.bus(AWAY);
    let event = next_event();
    let published = stranger.publish(&scene.subscription.topic, event).await;
    assert!(matches!(published, Err(BusError::Unavailable(_))));

    scene.fabric.heal(HOME, AWAY);
    let came = drain(&mut far).await;
    let of_one_key: Vec<_> = came
        .iter()
        .filter(|(_, key, ..)| key == "key-1")
        .map(|(_, _, number, _)| *number)
        .collect();
    assert_eq!(of_one_key, (0..10).collect::<Vec<_>>());
}

fn next_event() -> Event {
    Event {
        ordering_key: "elsewhere".to_owned(),
        payload: Bytes::from_static(b"0"),
        attributes: BTreeMap::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn region_that_is_down_halts_its_keys_until_they_are_resumed() {
    let scene = Scene::new(Faults::none()).await;
    let mut consumer = scene.consume(HOME).await;
    scene.fabric.set_down(HOME, true);
    let failed = scene.publish("key", 0).await;
    assert!(matches!(failed, Err(BusError::Unavailable(_))));
    assert_eq!(scene.publish("key", 1).await, Err(BusError::Halted));
    assert!(timeout(LONG, consumer.next()).await.is_err());

    scene.fabric.set_down(HOME, false);
    assert_eq!(scene.publish("key", 1).await, Err(BusError::Halted));
    assert_eq!(scene.publish("other", 5).await, Ok(()));
    scene.bus.resume(&scene.subscription.topic, "key");
    assert_eq!(scene.publish("key", 0).await, Ok(()));
    assert_eq!(scene.publish("key", 1).await, Ok(()));
    let came = drain(&mut consumer).await;
    let mut of_the_key: Vec<_> = came
        .iter()
        .filter(|(_, key, ..)| key == "key")
        .map(|(_, _, number, _)| *number)
        .collect();
    of_the_key.dedup();
    assert_eq!(of_the_key, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_failed_while_the_region_was_down_may_have_been_accepted() {
    let scene = Scene::new(Faults::none()).await;
    let mut consumer = scene.consume(HOME).await;
    scene.fabric.set_down(HOME, true);
    for number in 0..100 {
        assert!(scene.publish("", number).await.is_err());
    }
    scene.fabric.set_down(HOME, false);
    let came = drain(&mut consumer).await;
    let accepted: HashSet<_> = came.iter().map(|(_, _, number, _)| *number).collect();
    assert!((20..80).contains(&accepted.len()), "{}", accepted.len());
}

#[tokio::test(start_paused = true)]
async fn event_whose_reply_was_lost_arrives_all_the_same() {
    let scene = Scene::new(Faults {
        lose_publish_reply: 1.0,
        ..Faults::none()
    })
    .await;
    let mut consumer = scene.consume(HOME).await;
    let lost = scene.publish("key", 3).await;
    assert!(matches!(lost, Err(BusError::Unavailable(_))));
    assert_eq!(number(&next(&mut consumer).await), 3);
}

#[tokio::test(start_paused = true)]
async fn failure_of_one_publisher_halts_no_other() {
    let scene = Scene::new(Faults::none()).await;
    scene.fabric.set_down(HOME, true);
    assert!(scene.publish("key", 0).await.is_err());
    scene.fabric.set_down(HOME, false);
    let other = scene.fabric.bus(HOME);
    let mut event = next_event();
    event.ordering_key = "key".to_owned();
    let published = other.publish(&scene.subscription.topic, event).await;
    assert_eq!(published, Ok(()));
    assert_eq!(scene.publish("key", 0).await, Err(BusError::Halted));
}

#[tokio::test(start_paused = true)]
async fn only_what_is_unacknowledged_is_kept() {
    let scene = Scene::new(Faults::none()).await;
    let mut consumer = scene.consume(AWAY).await;
    publish_all(&scene, 3, 100).await;
    assert_eq!(scene.fabric.unacknowledged(&scene.subscription), 300);
    drain(&mut consumer).await;
    assert_eq!(scene.fabric.unacknowledged(&scene.subscription), 0);
    assert_eq!(scene.fabric.unacknowledged(&subscription(HOME)), 300);
}

#[tokio::test(start_paused = true)]
async fn delivery_that_was_taken_back_settles_nothing() {
    let scene = Scene::new(Faults::none()).await;
    let mut consumer = scene.consume(HOME).await;
    publish_all(&scene, 1, 3).await;
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    let third = next(&mut consumer).await;
    first.nack();
    second.ack();
    third.nack();
    let came = drain(&mut consumer).await;
    let came: Vec<_> = came
        .iter()
        .map(|(_, _, number, attempt)| (*number, *attempt))
        .collect();
    assert_eq!(came, [(0, 2), (1, 2), (2, 2)]);
}
