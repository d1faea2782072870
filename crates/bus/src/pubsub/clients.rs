//! The clients of one region's Pub/Sub.

use std::time::Duration;

use google_cloud_auth::credentials::{Builder as FromEnvironment, Credentials, anonymous};
use google_cloud_gax::{
    client_builder::Error as BuilderError, exponential_backoff::ExponentialBackoffBuilder,
    retry_policy::RetryPolicyExt,
};
use google_cloud_pubsub::{
    client::{BasePublisher, Publisher, Subscriber, SubscriptionAdmin, TopicAdmin},
    retry_policy::RetryableErrors,
    subscriber::{MessageStream, ShutdownBehavior},
};

use super::PubsubEndpoint;
use crate::ConsumeLimits;

/// Google's front ends allow a connection 100 streams, and a shard that owns every partition has one
/// stream for each, beside its acknowledgements.
const SUBSCRIBER_CONNECTIONS: usize = 4;
const PUBLISHER_CONNECTIONS: usize = 2;

/// The least that Pub/Sub allows: it bounds how long the events of a dead process are missing.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// What goes in one request at most.
const BATCH_EVENTS: u32 = 100;
const BATCH_BYTES: u32 = 1_000_000;
/// A key's events travel in one request at a time, so those that come meanwhile gather by themselves.
const BATCH_DELAY: Duration = Duration::ZERO;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Why a region's clients can't be made.
#[derive(Debug, thiserror::Error)]
#[error("can't use Pub/Sub in {region}")]
pub struct ConnectError {
    /// The region.
    pub region: String,
    /// What its clients say.
    #[source]
    pub(super) source: BuilderError,
}

#[derive(Debug)]
pub(super) struct Clients {
    pub(super) topics: TopicAdmin,
    pub(super) subscriptions: SubscriptionAdmin,
    publishers: BasePublisher,
    subscriber: Subscriber,
}

impl Clients {
    pub(super) async fn make(
        endpoint: &PubsubEndpoint,
        publish_deadline: Duration,
    ) -> Result<Self, BuilderError> {
        let (url, credentials) = match endpoint {
            PubsubEndpoint::Cloud(url) => (url.clone(), from_environment()?),
            PubsubEndpoint::Emulator(address) => (
                format!("http://{address}"),
                anonymous::Builder::new().build(),
            ),
        };
        let topics = TopicAdmin::builder()
            .with_endpoint(&url)
            .with_credentials(credentials.clone());
        let subscriptions = SubscriptionAdmin::builder()
            .with_endpoint(&url)
            .with_credentials(credentials.clone());
        // It ends a little before the deadline: its reason tells more than that time is up.
        let retries = RetryableErrors.with_time_limit(publish_deadline * 4 / 5);
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_delay(FIRST_RETRY)
            .with_maximum_delay(LONGEST_RETRY)
            .clamp();
        let publishers = BasePublisher::builder()
            .with_endpoint(&url)
            .with_credentials(credentials.clone())
            .with_retry_policy(retries)
            .with_backoff_policy(backoff)
            .with_grpc_subchannel_count(PUBLISHER_CONNECTIONS);
        let subscriber = Subscriber::builder()
            .with_endpoint(&url)
            .with_credentials(credentials)
            .with_grpc_subchannel_count(SUBSCRIBER_CONNECTIONS);
        Ok(Self {
            topics: topics.build().await?,
            subscriptions: subscriptions.build().await?,
            publishers: publishers.build().await?,
            subscriber: subscriber.build().await?,
        })
    }

    /// A publisher to the topic of this full name.
    pub(super) fn publisher(&self, topic: &str) -> Publisher {
        self.publishers
            .publisher(topic)
            .set_message_count_threshold(BATCH_EVENTS)
            .set_byte_threshold(BATCH_BYTES)
            .set_delay_threshold(BATCH_DELAY)
            .build()
    }

    /// What comes to the subscription of this full name. Dropping it hands back what is unsettled.
    pub(super) fn stream(&self, subscription: &str, limits: ConsumeLimits) -> MessageStream {
        // To Pub/Sub, 0 means no limit.
        let at_least_one = |limit: usize| i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
        self.subscriber
            .subscribe(subscription)
            .set_max_outstanding_messages(at_least_one(limits.events))
            .set_max_outstanding_bytes(at_least_one(limits.bytes))
            .set_max_lease_extension(LEASE)
            .set_shutdown_behavior(ShutdownBehavior::NackImmediately)
            .build()
    }
}

fn from_environment() -> Result<Credentials, BuilderError> {
    FromEnvironment::default()
        .build()
        .map_err(BuilderError::cred)
}
