//! A bus that is counted: what goes in, what comes out, and how long it takes.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::time::Instant;

use crate::{BusError, ConsumeLimits, Consumer, Event, EventBus, PushTarget, Subscription, Topic};

const PUBLISH_SECONDS: &str = "infrachat_bus_publish_seconds";
const PUBLISHES: &str = "infrachat_bus_publishes_total";
const DELIVERIES: &str = "infrachat_bus_deliveries_total";
const NACKS: &str = "infrachat_bus_nacks_total";
const UNACKNOWLEDGED: &str = "infrachat_bus_unacknowledged_events";
const RESTARTS: &str = "infrachat_bus_consumer_restarts_total";

/// Counts what passes another bus, by kinds of topics: a topic's kind is its name without a number at
/// its end, so that there are few.
#[derive(Debug)]
pub struct CountedBus {
    bus: Arc<dyn EventBus>,
    kinds: Vec<(&'static str, Arc<Published>)>,
}

impl CountedBus {
    /// Topics of other kinds than these are not counted.
    #[must_use]
    pub fn new(bus: Arc<dyn EventBus>, kinds: &[&'static str]) -> Self {
        let kinds = kinds
            .iter()
            .map(|kind| (*kind, Arc::new(Published::new(kind))));
        Self {
            bus,
            kinds: kinds.collect(),
        }
    }

    fn kind(&self, topic: &Topic) -> Option<&(&'static str, Arc<Published>)> {
        let numberless = topic.name.trim_end_matches(|c: char| c.is_ascii_digit());
        let name = numberless.strip_suffix('-').unwrap_or(&topic.name);
        self.kinds.iter().find(|(kind, _)| *kind == name)
    }
}

/// Of one kind of topics.
struct Published {
    seconds: Histogram,
    ok: Counter,
    unavailable: Counter,
    halted: Counter,
    refused: Counter,
    not_found: Counter,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published").finish_non_exhaustive()
    }
}

impl Published {
    fn new(kind: &'static str) -> Self {
        let outcome =
            |outcome: &'static str| counter!(PUBLISHES, "topic" => kind, "outcome" => outcome);
        Self {
            seconds: histogram!(PUBLISH_SECONDS, "topic" => kind),
            ok: outcome("ok"),
            unavailable: outcome("unavailable"),
            halted: outcome("halted"),
            refused: outcome("refused"),
            not_found: outcome("not_found"),
        }
    }

    fn count(&self, outcome: &Result<(), BusError>, began: Instant) {
        let counter = match outcome {
            Ok(()) => {
                self.seconds.record(began.elapsed());
                &self.ok
            }
            Err(BusError::Unavailable(_)) => &self.unavailable,
            Err(BusError::Halted) => &self.halted,
            Err(BusError::Refused(_)) => &self.refused,
            Err(BusError::NotFound(_)) => &self.not_found,
        };
        counter.increment(1);
    }
}

/// What a consumer took, and what became of it.
pub(crate) struct Taken {
    pub(crate) delivered: Counter,
    pub(crate) refused: Counter,
    pub(crate) unacknowledged: Gauge,
    pub(crate) ended: Counter,
}

#[async_trait]
impl EventBus for CountedBus {
    async fn ensure(&self, subscription: &Subscription) -> Result<(), BusError> {
        self.bus.ensure(subscription).await
    }

    async fn ensure_pushed(
        &self,
        subscription: &Subscription,
        target: &PushTarget,
    ) -> Result<(), BusError> {
        self.bus.ensure_pushed(subscription, target).await
    }

    fn publish(&self, topic: &Topic, event: Event) -> BoxFuture<'static, Result<(), BusError>> {
        let began = Instant::now();
        let publishing = self.bus.publish(topic, event);
        let Some((_, published)) = self.kind(topic) else {
            return publishing;
        };
        let published = Arc::clone(published);
        Box::pin(async move {
            let outcome = publishing.await;
            published.count(&outcome, began);
            outcome
        })
    }

    fn resume(&self, topic: &Topic, ordering_key: &str) {
        self.bus.resume(topic, ordering_key);
    }

    async fn consume(
        &self,
        subscription: &Subscription,
        limits: ConsumeLimits,
    ) -> Result<Consumer, BusError> {
        let consumer = self.bus.consume(subscription, limits).await?;
        let Some((kind, _)) = self.kind(&subscription.topic) else {
            return Ok(consumer);
        };
        let source = subscription.topic.region.clone();
        Ok(consumer.counted(Taken {
            delivered: counter!(DELIVERIES, "topic" => *kind, "source_region" => source),
            refused: counter!(NACKS),
            unacknowledged: gauge!(UNACKNOWLEDGED),
            ended: counter!(RESTARTS, "topic" => *kind),
        }))
    }
}
