//! The Redis Streams backend against the contract, and when processes and servers die.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use infrachat_bus::{
    BusError, ConsumeLimits, Consumer, Delivery, Event, EventBus, RedisStreamsBus,
    RedisStreamsConfig, Subscription, Topic,
    contract::{AWAY, HOME, Harness},
    contract_tests,
};
use infrachat_redis_link::RedisTarget;
use infrachat_test_services::RedisServer;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(1);

async fn server() -> RedisServer {
    RedisServer::start().await.expect("a server of our own")
}

/// Two regions, each with a server.
struct Regions {
    home: RedisServer,
    away: RedisServer,
    topics: AtomicUsize,
}

impl Regions {
    async fn start() -> Self {
        Self {
            home: server().await,
            away: server().await,
            topics: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Harness for Regions {
    async fn bus(&self, _region: &str) -> Arc<dyn EventBus> {
        let regions = [(HOME, &self.home), (AWAY, &self.away)];
        let regions = regions.map(|(region, server)| (region.to_owned(), target(&server.url)));
        Arc::new(RedisStreamsBus::new(RedisStreamsConfig::new(
            regions.into(),
        )))
    }

    async fn fresh_topic(&self, region: &str) -> Topic {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        Topic {
            region: region.to_owned(),
            name: format!("topic-{number}"),
        }
    }
}

contract_tests!(Regions::start().await);

fn subscription(group: &str) -> Subscription {
    Subscription {
        topic: Topic {
            region: HOME.to_owned(),
            name: "messages-7".to_owned(),
        },
        group: group.to_owned(),
    }
}

fn target(url: &str) -> RedisTarget {
    RedisTarget::new(url).expect("the URL is good")
}

/// A process's bus on one server.
fn connect(url: &str) -> RedisStreamsBus {
    let regions = BTreeMap::from([(HOME.to_owned(), target(url))]);
    RedisStreamsBus::new(RedisStreamsConfig {
        publish_deadline: Duration::from_millis(300),
        lease: LEASE,
        prefix: "test".to_owned(),
        ..RedisStreamsConfig::new(regions)
    })
}

async fn ensure(bus: &RedisStreamsBus, group: &str) {
    let ensured = bus.ensure(&subscription(group)).await;
    ensured.expect("the group is made");
}

async fn consume(bus: &RedisStreamsBus, group: &str) -> Consumer {
    let consumer = bus
        .consume(&subscription(group), ConsumeLimits::default())
        .await;
    consumer.expect("the consumer starts")
}

async fn publish(bus: &RedisStreamsBus, key: &str, text: &str) -> Result<(), BusError> {
    let event = Event {
        ordering_key: key.to_owned(),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        attributes: BTreeMap::new(),
    };
    let published = bus.publish(&subscription("").topic, event);
    let published = timeout(LONG, published).await;
    published.expect("an answer comes")
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(LONG, consumer.next()).await;
    delivery
        .expect("a delivery comes")
        .expect("the consumer goes on")
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.event.payload).into_owned()
}

async fn query<T: redis::FromRedisValue>(server: &RedisServer, command: &mut redis::Cmd) -> T {
    let client = redis::Client::open(server.url.as_str()).expect("the URL is good");
    let connection = client.get_multiplexed_async_connection().await;
    let mut connection = connection.expect("the server is there");
    let answer = command.query_async(&mut connection).await;
    answer.expect("the command is understood")
}

const STREAM: &str = "{test:bus:us-west1/messages-7}";
const LEASE_KEY: &str = "{test:bus:us-west1/messages-7}:active:group";

#[tokio::test]
async fn what_a_dead_process_held_goes_to_the_next_in_order() {
    let server = server().await;
    let bus = connect(&server.url);
    ensure(&bus, "group").await;
    for text in ["one", "two", "three"] {
        publish(&bus, "key", text).await.expect("accepted");
    }
    let process = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let url = server.url.clone();
    let held = process.spawn(async move {
        let mut consumer = consume(&connect(&url), "group").await;
        next(&mut consumer).await.ack();
        let held = next(&mut consumer).await;
        assert_eq!(text(&held), "two");
        (consumer, held)
    });
    let held = held.await.expect("the process receives");
    let mut standby = consume(&bus, "group").await;
    let early = timeout(LEASE * 3, standby.next()).await;
    assert!(early.is_err(), "the process lives, but {early:?} came");
    process.shutdown_background();
    let mut came = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut standby).await;
        assert!(delivery.attempt > 1);
        came.push(text(&delivery));
        delivery.ack();
    }
    // The first may come again: its acknowledgement may not have got out.
    if came[0] == "one" {
        came.remove(0);
        came.push(text(&next(&mut standby).await));
    }
    assert_eq!(came, ["two", "three"]);
    drop(held);
}

#[tokio::test]
async fn consumer_without_the_lease_is_given_nothing() {
    let server = server().await;
    let bus = connect(&server.url);
    ensure(&bus, "group").await;
    let mut consumer = consume(&bus, "group").await;
    publish(&bus, "key", "one").await.expect("accepted");
    next(&mut consumer).await.ack();
    let () = query(
        &server,
        redis::cmd("SET").arg(LEASE_KEY).arg("somebody else"),
    )
    .await;
    publish(&bus, "key", "two").await.expect("accepted");
    let came = timeout(LEASE * 2, consumer.next()).await;
    assert!(came.is_err(), "another has the lease, but {came:?} came");
    let () = query(&server, redis::cmd("DEL").arg(LEASE_KEY)).await;
    assert_eq!(text(&next(&mut consumer).await), "two");
}

#[tokio::test]
async fn nothing_is_trimmed_that_a_group_has_not_acknowledged() {
    const EVENTS: usize = 1_000;
    let server = server().await;
    let bus = connect(&server.url);
    ensure(&bus, "group").await;
    ensure(&bus, "slow").await;
    let publishing = (0..EVENTS).map(|number| {
        let bus = &bus;
        async move { publish(bus, "key", &number.to_string()).await }
    });
    for published in futures::future::join_all(publishing).await {
        published.expect("accepted");
    }
    let mut quick = consume(&bus, "group").await;
    let mut slow = consume(&bus, "slow").await;
    let held = next(&mut slow).await;
    assert_eq!(text(&held), "0");
    for number in 0..EVENTS {
        let delivery = next(&mut quick).await;
        assert_eq!(text(&delivery), number.to_string());
        delivery.ack();
    }
    // Time for what must not happen.
    sleep(Duration::from_secs(2)).await;
    let length: usize = query(&server, redis::cmd("XLEN").arg(STREAM)).await;
    assert_eq!(length, EVENTS);
    held.ack();
    for number in 1..EVENTS {
        let delivery = next(&mut slow).await;
        assert_eq!(text(&delivery), number.to_string());
        delivery.ack();
    }
    let trimmed = async {
        while query::<usize>(&server, redis::cmd("XLEN").arg(STREAM)).await > EVENTS / 5 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, trimmed).await.expect("the stream is trimmed");
}

#[tokio::test]
async fn scripts_keep_to_one_slot_of_a_cluster() {
    let server = RedisServer::start_cluster().await;
    let server = server.expect("a server of our own");
    let bus = connect(&server.url);
    ensure(&bus, "group").await;
    let mut consumer = consume(&bus, "group").await;
    publish(&bus, "key", "one").await.expect("accepted");
    next(&mut consumer).await.ack();
    drop(consumer);
    let mut consumer = consume(&bus, "group").await;
    publish(&bus, "key", "two").await.expect("accepted");
    assert_eq!(text(&next(&mut consumer).await), "two");
}

#[tokio::test]
async fn failed_key_is_halted_until_it_is_resumed() {
    let mut server = server().await;
    let bus = connect(&server.url);
    let topic = subscription("").topic;
    ensure(&bus, "group").await;
    publish(&bus, "key", "one").await.expect("accepted");
    server.stop().expect("the server stops");
    let two = publish(&bus, "key", "two").await;
    assert!(matches!(two, Err(BusError::Unavailable(_))), "{two:?}");
    assert_eq!(publish(&bus, "key", "three").await, Err(BusError::Halted));
    server.start_again().await.expect("the server comes back");
    assert_eq!(publish(&bus, "key", "three").await, Err(BusError::Halted));
    while publish(&bus, "other", "other").await.is_err() {
        bus.resume(&topic, "other");
    }
    bus.resume(&topic, "key");
    for text in ["two", "three"] {
        publish(&bus, "key", text).await.expect("accepted");
    }
    let mut consumer = consume(&bus, "group").await;
    let mut came = Vec::new();
    while came.last().is_none_or(|last| last != "three") {
        let delivery = next(&mut consumer).await;
        if delivery.event.ordering_key == "key" {
            came.push(text(&delivery));
        }
        delivery.ack();
    }
    came.dedup();
    assert_eq!(came, ["one", "two", "three"]);
}

#[tokio::test]
async fn too_large_is_refused_and_an_unknown_region_is_not_found() {
    let server = server().await;
    let bus = connect(&server.url);
    ensure(&bus, "group").await;
    let large = publish(&bus, "key", &"x".repeat(10_000_001)).await;
    assert!(matches!(large, Err(BusError::Refused(_))));
    let elsewhere = Subscription {
        topic: Topic {
            region: AWAY.to_owned(),
            name: "messages-7".to_owned(),
        },
        group: "group".to_owned(),
    };
    let ensured = bus.ensure(&elsewhere).await;
    assert!(matches!(ensured, Err(BusError::NotFound(_))), "{ensured:?}");
}

#[tokio::test]
async fn nothing_accepted_is_lost_or_disordered_when_the_server_crashes() {
    const EVENTS: usize = 400;
    let mut server = server().await;
    let bus = connect(&server.url);
    ensure(&bus, "group").await;
    let mut consumer = consume(&bus, "group").await;
    let publisher = tokio::spawn({
        let bus = bus.clone();
        async move {
            for number in 0..EVENTS {
                while publish(&bus, "key", &number.to_string()).await.is_err() {
                    bus.resume(&subscription("").topic, "key");
                }
            }
        }
    });
    let mut seen = HashSet::new();
    let mut crashes = 0;
    while seen.len() < EVENTS {
        let delivery = next(&mut consumer).await;
        let number: usize = text(&delivery).parse().expect("a number was published");
        assert!(number <= seen.len(), "{number} came before {}", seen.len());
        seen.insert(number);
        delivery.ack();
        if seen.len() > (crashes + 1) * EVENTS / 4 {
            crashes += 1;
            server.stop().expect("the server stops");
            server.start_again().await.expect("the server comes back");
        }
    }
    assert_eq!(crashes, 3);
    publisher.await.expect("all was published");
}
