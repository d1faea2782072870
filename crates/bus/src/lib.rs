//! The EventBus: how shards reach each other, and the only way they do.
//!
//! A topic lives in one region and holds events durably. Every consumer group gets every event, and
//! one of the group's consumers handles it. Payloads are opaque: the bus knows no chat.
//!
//! What every backend promises, and the contract suite checks:
//! - a publish that resolved `Ok` is durable, and reaches every group that existed by then, at least
//!   once;
//! - events of one ordering key are accepted in the order of the `publish` calls, and delivered in
//!   the order they were accepted. A redelivery replays the later events of that key;
//! - what a consumer neither acknowledged nor refused is delivered again once its lease ends, or at
//!   once when the consumer is dropped;
//! - a consumer is never handed more than its limits allow.

mod consumer;
#[cfg(feature = "contract")]
pub mod contract;
mod counted;
mod memory;
#[cfg(feature = "pubsub")]
mod pubsub;
mod redis_streams;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

pub use consumer::{Acker, ConsumeLimits, Consumer, Delivery, DeliverySink};
pub use counted::CountedBus;
pub use memory::{FabricConfig, Faults, MemoryBus, MemoryFabric};
#[cfg(feature = "pubsub")]
pub use pubsub::{ConnectError, PublishLimits, PubsubBus, PubsubConfig, PubsubEndpoint};
pub use redis_streams::{RedisStreamsBus, RedisStreamsConfig};

/// Where events of a kind go: a name within a region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// The region whose bus holds it.
    pub region: String,
    /// Its name there: letters, digits and `-`.
    pub name: String,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.name)
    }
}

/// One group's place in a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscription {
    /// What it reads.
    pub topic: Topic,
    /// The consumer group: each group gets every event.
    pub group: String,
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.topic, self.group)
    }
}

/// Where a bus that pushes sends a group's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushTarget {
    /// The URL it posts to.
    pub endpoint: String,
    /// The service account that its tokens are of.
    pub service_account: String,
    /// The audience of its tokens.
    pub audience: String,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Events of one key stay in order. Use a bounded set of keys; empty: no order.
    pub ordering_key: String,
    /// The content, opaque to the bus.
    pub payload: Bytes,
    /// Small labels beside it, such as a trace context.
    pub attributes: BTreeMap<String, String>,
}

/// Why the bus did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The event may or may not have been accepted: publish it again.
    #[error("the bus did not answer in time or is away: {0}")]
    Unavailable(String),
    /// An earlier event of the key failed, so this one was not tried: [`EventBus::resume`], then
    /// publish both again, in order.
    #[error("an earlier event of this ordering key failed")]
    Halted,
    /// It will never be accepted as it is.
    #[error("the bus refused the event: {0}")]
    Refused(String),
    /// The topic or subscription does not exist.
    #[error("{0} does not exist: create it, or start with --create-topics")]
    NotFound(String),
}

/// The bus, as seen from one region.
#[async_trait]
pub trait EventBus: fmt::Debug + Send + Sync + 'static {
    /// Makes the topic and the group's place in it exist. Events published from then on reach the
    /// group.
    async fn ensure(&self, subscription: &Subscription) -> Result<(), BusError>;

    /// The same, for a group whose events the bus posts to a URL instead of handing them to
    /// consumers. [`BusError::Refused`] by a bus that does not push.
    async fn ensure_pushed(
        &self,
        subscription: &Subscription,
        target: &PushTarget,
    ) -> Result<(), BusError> {
        let to = &target.endpoint;
        Err(BusError::Refused(format!(
            "{subscription} can't be pushed to {to}: this bus does not push"
        )))
    }

    /// Takes an event. Its place in the order of its key is settled by this call; the future
    /// resolves once the event is durable, and may be awaited in any order or dropped.
    ///
    /// When one fails, later ones of the same key fail with [`BusError::Halted`] until
    /// [`EventBus::resume`]. A retry may duplicate an event, never reorder a key.
    fn publish(&self, topic: &Topic, event: Event) -> BoxFuture<'static, Result<(), BusError>>;

    /// Lets a key continue after a failure.
    fn resume(&self, topic: &Topic, ordering_key: &str);

    /// Starts consuming as a member of the subscription's group. One key's events go to one consumer
    /// at a time. Dropping the consumer hands back what it had not acknowledged.
    async fn consume(
        &self,
        subscription: &Subscription,
        limits: ConsumeLimits,
    ) -> Result<Consumer, BusError>;
}
