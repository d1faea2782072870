//! An emulator for a test, and clients of it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{ops::Deref, time::Duration};

use infrachat_emulators::{
    clock::Clock,
    faults::{Faults, Settings},
    proto::{
        AcknowledgeRequest, DeleteSubscriptionRequest, DeleteTopicRequest,
        ListSubscriptionsRequest, ListTopicsRequest, ModifyAckDeadlineRequest, PublishRequest,
        PubsubMessage, PullRequest, ReceivedMessage, Subscription, Topic,
        publisher_client::PublisherClient, subscriber_client::SubscriberClient,
    },
    pubsub::{Config, Emulator},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};

/// Longer than anything takes that isn't broken.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A running emulator.
pub(crate) struct Server {
    address: String,
    /// Time of our own emulator, which can be moved.
    clock: Option<Clock>,
}

/// Our own emulator, with what no other has; it stops when dropped.
pub(crate) struct Ours {
    server: Server,
    pub(crate) faults: Faults,
    pub(crate) clock: Clock,
    _stop: DropGuard,
}

impl Deref for Ours {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Ours {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let (faults, clock) = (Faults::new(settings, 1), Clock::start());
        let emulator = Emulator::bind(Config {
            address: "127.0.0.1:0".to_owned(),
            faults: faults.clone(),
            clock: clock.clone(),
            issuer: None,
        })
        .await
        .expect("a free port");
        let stop = CancellationToken::new();
        let server = Server {
            address: emulator.address().to_string(),
            clock: Some(clock.clone()),
        };
        tokio::spawn(emulator.run(stop.clone()));
        Self {
            server,
            faults,
            clock,
            _stop: stop.drop_guard(),
        }
    }
}

/// What a test runs against that holds for every emulator.
pub(crate) enum Any {
    Ours(Ours),
    Other(Server),
}

impl Deref for Any {
    type Target = Server;

    fn deref(&self) -> &Server {
        match self {
            Self::Ours(ours) => ours,
            Self::Other(server) => server,
        }
    }
}

impl Server {
    /// The emulator that `INFRACHAT_TEST_PUBSUB` names, with nothing in it, else one of ours. Tests share a named one: run
    /// them one at a time.
    pub(crate) async fn start() -> Any {
        let Some(address) = std::env::var_os("INFRACHAT_TEST_PUBSUB") else {
            return Any::Ours(Ours::start().await);
        };
        let other = Self {
            address: address.into_string().expect("an address"),
            clock: None,
        };
        other.empty().await;
        Any::Other(other)
    }

    async fn empty(&self) {
        let (mut publisher, mut subscriber) = (self.publisher(), self.subscriber());
        let project = "projects/p".to_owned();
        let request = ListTopicsRequest {
            project: project.clone(),
            ..ListTopicsRequest::default()
        };
        let listed = publisher.list_topics(request).await.expect("a list");
        for topic in listed.into_inner().topics {
            let request = DeleteTopicRequest { topic: topic.name };
            publisher.delete_topic(request).await.expect("deleted");
        }
        let request = ListSubscriptionsRequest {
            project,
            ..ListSubscriptionsRequest::default()
        };
        let listed = subscriber.list_subscriptions(request).await;
        for subscription in listed.expect("a list").into_inner().subscriptions {
            let request = DeleteSubscriptionRequest {
                subscription: subscription.name,
            };
            let deleted = subscriber.delete_subscription(request).await;
            deleted.expect("deleted");
        }
    }

    /// Lets time pass: at once here, really elsewhere.
    pub(crate) async fn pass(&self, time: Duration) {
        match &self.clock {
            Some(clock) => clock.advance(time),
            None => tokio::time::sleep(time).await,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.url())
            .expect("a good address")
            .connect_lazy()
    }

    pub(crate) fn publisher(&self) -> PublisherClient<Channel> {
        PublisherClient::new(self.channel())
    }

    pub(crate) fn subscriber(&self) -> SubscriberClient<Channel> {
        SubscriberClient::new(self.channel())
    }

    pub(crate) async fn topic(&self, id: &str) -> String {
        let name = topic(id);
        let topic = Topic {
            name: name.clone(),
            ..Topic::default()
        };
        let created = self.publisher().create_topic(topic).await;
        created.expect("a new topic");
        name
    }

    pub(crate) async fn subscription(&self, subscription: Subscription) -> String {
        let created = self.subscriber().create_subscription(subscription).await;
        created.expect("a new subscription").into_inner().name
    }

    pub(crate) async fn publish(&self, topic: &str, messages: Vec<PubsubMessage>) -> Vec<String> {
        let request = PublishRequest {
            topic: topic.to_owned(),
            messages,
        };
        let published = self.publisher().publish(request).await;
        published.expect("published").into_inner().message_ids
    }

    /// What is due now, without waiting.
    pub(crate) async fn pull_now(&self, subscription: &str) -> Vec<ReceivedMessage> {
        self.pull_request(subscription, true).await
    }

    /// What is due, as soon as something is.
    pub(crate) async fn pull(&self, subscription: &str) -> Vec<ReceivedMessage> {
        let pulled = self.pull_request(subscription, false);
        tokio::time::timeout(LONG, pulled)
            .await
            .expect("something to pull")
    }

    async fn pull_request(&self, subscription: &str, at_once: bool) -> Vec<ReceivedMessage> {
        #[allow(deprecated)]
        let request = PullRequest {
            subscription: subscription.to_owned(),
            return_immediately: at_once,
            max_messages: 1_000,
        };
        let pulled = self.subscriber().pull(request).await.expect("a pull");
        pulled.into_inner().received_messages
    }

    pub(crate) async fn ack(&self, subscription: &str, received: &[ReceivedMessage]) {
        let request = AcknowledgeRequest {
            subscription: subscription.to_owned(),
            ack_ids: received.iter().map(|each| each.ack_id.clone()).collect(),
        };
        let acked = self.subscriber().acknowledge(request).await;
        acked.expect("acknowledged");
    }

    pub(crate) async fn nack(&self, subscription: &str, received: &[ReceivedMessage]) {
        let request = ModifyAckDeadlineRequest {
            subscription: subscription.to_owned(),
            ack_ids: received.iter().map(|each| each.ack_id.clone()).collect(),
            ack_deadline_seconds: 0,
        };
        let given_back = self.subscriber().modify_ack_deadline(request).await;
        given_back.expect("given back");
    }
}

pub(crate) fn topic(id: &str) -> String {
    format!("projects/p/topics/{id}")
}

/// Settings of a subscription to a topic's full name.
pub(crate) fn subscription(id: &str, topic: &str) -> Subscription {
    Subscription {
        name: format!("projects/p/subscriptions/{id}"),
        topic: topic.to_owned(),
        ..Subscription::default()
    }
}

pub(crate) fn message(data: &str) -> PubsubMessage {
    keyed(data, "")
}

pub(crate) fn keyed(data: &str, key: &str) -> PubsubMessage {
    PubsubMessage {
        data: data.to_owned().into(),
        ordering_key: key.to_owned(),
        ..PubsubMessage::default()
    }
}

pub(crate) fn numbered(count: usize, key: &str) -> Vec<PubsubMessage> {
    (0..count).map(|n| keyed(&n.to_string(), key)).collect()
}

/// The data of what was received, in order.
pub(crate) fn data(received: &[ReceivedMessage]) -> Vec<String> {
    received
        .iter()
        .map(|each| {
            let message = each.message.as_ref().expect("a message");
            String::from_utf8(message.data.to_vec()).expect("text")
        })
        .collect()
}
