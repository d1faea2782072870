//! What every backend promises, case by case: see [`contract_tests!`](crate::contract_tests).
//!
//! The cases hold where deliveries may repeat, and wait for what must come for as long as
//! [`PATIENCE`]. That something does not come, they tell by a later event that does, or where there
//! is none, by [`Harness::silence`].

mod consuming;
mod publishing;
mod sharing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::timeout;

pub use consuming::*;
pub use publishing::*;
pub use sharing::*;

use crate::{BusError, ConsumeLimits, Consumer, Delivery, Event, EventBus, Subscription, Topic};

/// The region that most cases happen in.
pub const HOME: &str = "us-west1";

/// Another region.
pub const AWAY: &str = "asia-northeast1";

/// How long a case waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A backend under test.
#[async_trait]
pub trait Harness: Sync {
    /// A new client of the backend in [`HOME`] or [`AWAY`].
    async fn bus(&self, region: &str) -> Arc<dyn EventBus>;

    /// A topic's name that nobody has used. It does not exist yet.
    async fn fresh_topic(&self, region: &str) -> Topic;

    /// How long nothing has to come before a case believes that nothing will.
    fn silence(&self) -> Duration {
        Duration::from_millis(500)
    }
}

/// Makes one test of each case of the contract.
///
/// The expression makes a [`Harness`] for each test, and may await. What follows it goes to
/// `#[tokio::test]`:
/// ```ignore
/// infrachat_bus::contract_tests!(MyHarness::start().await);
/// infrachat_bus::contract_tests!(MyHarness::default(), start_paused = true);
/// ```
#[macro_export]
macro_rules! contract_tests {
    ($harness:expr $(, $($option:tt)+)?) => {
        $crate::contract_tests!(@cases $harness; ($($($option)+)?);
            every_group_gets_every_event
            one_consumer_of_a_group_handles_each_event
            a_key_is_with_one_consumer_at_a_time
            consumers_join_and_leave_without_loss
            other_regions_events_arrive
            events_of_a_key_arrive_in_order
            publish_order_is_fixed_by_the_call
            payload_and_attributes_arrive_unchanged
            unknown_topic_is_not_found
            ensure_is_idempotent
            events_published_before_a_consumer_started_are_kept
            group_sees_events_from_its_creation_on
            nacked_event_comes_again_and_later_ones_of_its_key_after_it
            dropped_delivery_is_refused
            dropped_consumer_hands_back
            acked_event_is_not_delivered_again
            limits_bound_how_many_are_outstanding
            limits_bound_how_many_bytes_are_outstanding
            large_event_passes_alone
        );
    };
    (@cases $harness:expr; $options:tt; $($case:ident)+) => {
        $($crate::contract_tests!(@case $harness; $options; $case);)+
    };
    (@case $harness:expr; ($($option:tt)*); $case:ident) => {
        #[::tokio::test($($option)*)]
        async fn $case() {
            $crate::contract::$case(&$harness).await;
        }
    };
}

/// One topic, one client in [`HOME`], and what a case does with them.
struct Scene {
    bus: Arc<dyn EventBus>,
    topic: Topic,
}

impl Scene {
    /// With the topic and one group, [`Scene::GROUP`].
    async fn new(harness: &impl Harness) -> Self {
        let scene = Self {
            bus: harness.bus(HOME).await,
            topic: harness.fresh_topic(HOME).await,
        };
        scene.ensure(Self::GROUP).await;
        scene
    }

    const GROUP: &str = "group";

    fn subscription(&self, group: &str) -> Subscription {
        Subscription {
            topic: self.topic.clone(),
            group: group.to_owned(),
        }
    }

    async fn ensure(&self, group: &str) {
        let subscription = self.subscription(group);
        self.bus
            .ensure(&subscription)
            .await
            .expect("the group is made");
    }

    async fn publish(&self, key: &str, text: &str) {
        let published = self.bus.publish(&self.topic, event(key, text)).await;
        published.expect("the event is accepted");
    }

    async fn consume(&self) -> Consumer {
        self.consume_as(Self::GROUP, ConsumeLimits::default()).await
    }

    async fn consume_as(&self, group: &str, limits: ConsumeLimits) -> Consumer {
        let subscription = self.subscription(group);
        let consumer = self.bus.consume(&subscription, limits).await;
        consumer.expect("the consumer starts")
    }
}

fn event(key: &str, text: &str) -> Event {
    Event {
        ordering_key: key.to_owned(),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        attributes: BTreeMap::new(),
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.event.payload).into_owned()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(PATIENCE, consumer.next()).await;
    delivery
        .expect("a delivery comes in time")
        .expect("the consumer goes on")
}

/// Receives and acknowledges until the text has come, and answers all that came, in order.
async fn drain_until(consumer: &mut Consumer, last: &str) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.last().is_none_or(|text| text != last) {
        let delivery = next(consumer).await;
        texts.push(text(&delivery));
        delivery.ack();
    }
    texts
}

/// Without the repetitions: each text where it first came.
fn first_sights(texts: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    texts
        .into_iter()
        .filter(|text| seen.insert(text.clone()))
        .collect()
}

async fn assert_silent(harness: &impl Harness, consumer: &mut Consumer, why: &str) {
    let came = timeout(harness.silence(), consumer.next()).await;
    assert!(came.is_err(), "{why}, but {came:?} came");
}
