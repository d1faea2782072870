//! Google's own Rust client against the emulator: administration by REST, publishing and
//! subscribing by gRPC.

mod common;

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use common::{LONG, Ours, Server};
use google_cloud_auth::credentials::anonymous::Builder as Anonymous;
use google_cloud_gax::exponential_backoff::ExponentialBackoffBuilder;
use google_cloud_pubsub::{
    client::{BasePublisher, Subscriber, SubscriptionAdmin, TopicAdmin},
    model::{Message, Subscription, Topic},
};
use infrachat_emulators::faults::Delivery;

const PROJECT: &str = "projects/p";

struct Client {
    topics: TopicAdmin,
    subscriptions: SubscriptionAdmin,
    publishers: BasePublisher,
    subscriber: Subscriber,
}

impl Client {
    async fn new(server: &Server) -> Self {
        let credentials = || Anonymous::new().build();
        Self {
            topics: TopicAdmin::builder()
                .with_endpoint(server.url())
                .with_credentials(credentials())
                .build()
                .await
                .expect("a topic client"),
            subscriptions: SubscriptionAdmin::builder()
                .with_endpoint(server.url())
                .with_credentials(credentials())
                .build()
                .await
                .expect("a subscription client"),
            publishers: BasePublisher::builder()
                .with_endpoint(server.url())
                .with_credentials(credentials())
                .with_backoff_policy(
                    ExponentialBackoffBuilder::new()
                        .with_initial_delay(Duration::from_millis(1))
                        .with_maximum_delay(Duration::from_millis(10))
                        .clamp(),
                )
                .build()
                .await
                .expect("a publisher"),
            subscriber: Subscriber::builder()
                .with_endpoint(server.url())
                .with_credentials(credentials())
                .build()
                .await
                .expect("a subscriber"),
        }
    }

    /// A topic and an ordered subscription of the same id.
    async fn ordered(&self, id: &str) -> (String, String) {
        let (topic, subscription) = (
            format!("{PROJECT}/topics/{id}"),
            format!("{PROJECT}/subscriptions/{id}"),
        );
        self.topics
            .create_topic()
            .set_name(&topic)
            .send()
            .await
            .expect("a new topic");
        self.subscriptions
            .create_subscription()
            .set_name(&subscription)
            .set_topic(&topic)
            .set_enable_message_ordering(true)
            .send()
            .await
            .expect("a new subscription");
        (topic, subscription)
    }
}

#[tokio::test]
async fn topics_and_subscriptions_are_administered_by_rest() {
    let server = Server::start().await;
    let client = Client::new(&server).await;
    let (topic, subscription) = client.ordered("admin").await;

    let got = client.topics.get_topic().set_topic(&topic).send().await;
    assert_eq!(got.expect("the topic").name, topic);
    let updated = client
        .topics
        .update_topic()
        .set_topic(Topic::new().set_name(&topic).set_labels([("env", "test")]))
        .set_update_mask(google_cloud_wkt::FieldMask::default().set_paths(["labels"]))
        .send()
        .await
        .expect("an update");
    assert_eq!(updated.labels["env"], "test");

    let update = Subscription::new()
        .set_name(&subscription)
        .set_ack_deadline_seconds(42);
    let updated = client
        .subscriptions
        .update_subscription()
        .set_subscription(update)
        .set_update_mask(google_cloud_wkt::FieldMask::default().set_paths(["ack_deadline_seconds"]))
        .send()
        .await
        .expect("an update");
    assert_eq!(updated.ack_deadline_seconds, 42);
    assert!(
        updated.enable_message_ordering,
        "the mask left the rest alone"
    );

    let listed = client
        .topics
        .list_topic_subscriptions()
        .set_topic(&topic)
        .send()
        .await
        .expect("a list");
    assert_eq!(listed.subscriptions, std::slice::from_ref(&subscription));

    let delete = client.subscriptions.delete_subscription();
    delete
        .set_subscription(&subscription)
        .send()
        .await
        .expect("deleted");
    let get = client.subscriptions.get_subscription();
    let missing = get.set_subscription(&subscription).send().await;
    let missing = missing.expect_err("the subscription is gone");
    let status = missing.status().expect("a status of Google's form");
    assert_eq!(status.code, google_cloud_gax::error::rpc::Code::NotFound);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = Server::start().await;
    let client = Client::new(&server).await;
    for n in 0..5 {
        server.topic(&format!("topic-{n}")).await;
    }
    let mut names = Vec::new();
    let mut token = String::new();
    let mut pages = 0;
    loop {
        let page = client
            .topics
            .list_topics()
            .set_project(PROJECT)
            .set_page_size(2)
            .set_page_token(&token)
            .send()
            .await
            .expect("a page");
        pages += 1;
        names.extend(page.topics.into_iter().map(|topic| topic.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = (0..5)
        .map(|n| common::topic(&format!("topic-{n}")))
        .collect();
    assert_eq!((pages, names), (3, expected));
}

#[tokio::test]
async fn keys_arrive_in_order_and_complete() {
    let server = Server::start().await;
    let client = Client::new(&server).await;
    let (topic, subscription) = client.ordered("ordered").await;
    let publisher = client.publishers.publisher(&topic).build();
    let sent: Vec<_> = (0..300)
        .map(|n| {
            let message = Message::new()
                .set_data(format!("{n}"))
                .set_ordering_key(format!("key-{}", n % 7));
            publisher.publish(message)
        })
        .collect();
    for sending in sent {
        sending.await.expect("published");
    }

    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut stream = client.subscriber.subscribe(&subscription).build();
    let receiving = async {
        for _ in 0..300 {
            let (message, handler) = stream
                .next()
                .await
                .expect("the stream goes on")
                .expect("a message");
            let number = String::from_utf8_lossy(&message.data)
                .parse()
                .expect("a number");
            by_key.entry(message.ordering_key).or_default().push(number);
            handler.ack();
        }
    };
    tokio::time::timeout(LONG, receiving)
        .await
        .expect("all messages");
    assert_eq!(by_key.len(), 7);
    for (key, numbers) in by_key {
        assert!(numbers.is_sorted(), "{key} came as {numbers:?}");
    }
}

#[tokio::test]
async fn a_message_given_back_comes_again_with_the_later_ones_of_its_key() {
    let server = Server::start().await;
    let client = Client::new(&server).await;
    let (topic, subscription) = client.ordered("again").await;
    server.publish(&topic, common::numbered(3, "key")).await;

    let mut seen = Vec::new();
    let mut stream = client.subscriber.subscribe(&subscription).build();
    let receiving = async {
        let mut acked = HashSet::new();
        while acked.len() < 3 {
            let (message, handler) = stream
                .next()
                .await
                .expect("the stream goes on")
                .expect("a message");
            let data = String::from_utf8_lossy(&message.data).into_owned();
            let is_first = seen.is_empty();
            seen.push(data.clone());
            if is_first {
                drop(handler);
            } else if seen.iter().filter(|each| **each == "0").count() > 1 {
                handler.ack();
                acked.insert(data);
            }
        }
    };
    tokio::time::timeout(LONG, receiving)
        .await
        .expect("all messages come again");
    let again = seen.iter().rposition(|each| each == "0").expect("0 came");
    assert!(again > 0, "0 was given back and came once: {seen:?}");
    assert_eq!(seen[again..again + 3], ["0", "1", "2"]);
}

#[tokio::test]
async fn under_all_faults_nothing_is_lost_and_every_key_keeps_its_order() {
    let server = Ours::start().await;
    let client = Client::new(&server).await;
    let (topic, subscription) = client.ordered("faulty").await;
    server.faults.change(|settings| {
        settings.pubsub.refuse.insert("Publish".to_owned(), 0.1);
        settings.pubsub.jitter_ms = 5;
        settings.delivery = Delivery {
            duplicate: 0.2,
            redeliver: 0.2,
            delay: 0.2,
            delay_ms: 50,
            reorder: 0.3,
        };
    });
    let publisher = client
        .publishers
        .publisher(&topic)
        .set_message_count_threshold(3_u32)
        .build();
    let sent: Vec<_> = (0..100)
        .map(|n| {
            let message = Message::new()
                .set_data(format!("{n}"))
                .set_ordering_key(format!("key-{}", n % 4));
            publisher.publish(message)
        })
        .collect();
    for sending in sent {
        sending.await.expect("published");
    }

    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut received = 0;
    let mut stream = client.subscriber.subscribe(&subscription).build();
    let receiving = async {
        while seen.values().map(Vec::len).sum::<usize>() < 100 {
            let (message, handler) = stream
                .next()
                .await
                .expect("the stream goes on")
                .expect("a message");
            received += 1;
            let number = String::from_utf8_lossy(&message.data)
                .parse()
                .expect("a number");
            let of_key = seen.entry(message.ordering_key).or_default();
            if !of_key.contains(&number) {
                of_key.push(number);
            }
            handler.ack();
        }
    };
    tokio::time::timeout(LONG, receiving)
        .await
        .expect("all messages");
    assert!(received > 100, "no fault showed");
    for (key, numbers) in seen {
        assert!(numbers.is_sorted(), "{key} came as {numbers:?}");
    }
}
