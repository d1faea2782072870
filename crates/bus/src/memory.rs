//! The bus in memory: all regions' topics in one process, with Pub/Sub's semantics and, on request,
//! its faults and worse.
//!
//! "Durable" here means: for as long as the [`MemoryFabric`] lives. Memory is bounded by what the
//! groups have not acknowledged.

mod faults;
mod network;
mod pump;
mod queue;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};

pub use faults::Faults;
use network::Network;
use queue::Queue;

use crate::{BusError, ConsumeLimits, Consumer, Event, EventBus, Subscription, Topic};

/// How a [`MemoryFabric`] behaves.
#[derive(Debug, Clone)]
pub struct FabricConfig {
    /// How long an event takes to a consumer in another region than its topic's.
    pub cross_region_delay: Duration,
    /// How long a refused event rests before it is delivered again.
    pub nack_backoff: Duration,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for FabricConfig {
    /// No delay between regions and no faults.
    fn default() -> Self {
        Self {
            cross_region_delay: Duration::ZERO,
            nack_backoff: Duration::from_millis(10),
            faults: Faults::none(),
        }
    }
}

/// Every region's topics, and the network between the regions. Clones are the same fabric.
#[derive(Clone)]
pub struct MemoryFabric {
    shared: Arc<Shared>,
}

struct Shared {
    topics: RwLock<HashMap<Topic, Arc<TopicState>>>,
    network: Arc<Network>,
    nack_backoff: Duration,
}

/// The lock also makes every group see the topic's events in one order.
#[derive(Default)]
struct TopicState {
    groups: Mutex<BTreeMap<String, Arc<Queue>>>,
}

impl MemoryFabric {
    /// An empty fabric.
    #[must_use]
    pub fn new(config: FabricConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                topics: RwLock::default(),
                network: Arc::new(Network::new(config.cross_region_delay, config.faults)),
                nack_backoff: config.nack_backoff,
            }),
        }
    }

    /// A publisher and consumer in a region. Each call makes a publisher of its own: a key that
    /// failed is halted for this one and its clones only.
    #[must_use]
    pub fn bus(&self, region: &str) -> MemoryBus {
        MemoryBus {
            region: region.into(),
            fabric: self.clone(),
            halted: Arc::default(),
        }
    }

    /// Changes how long events take between regions, those under way included.
    pub fn set_cross_region_delay(&self, delay: Duration) {
        self.shared.network.set_cross_region_delay(delay);
    }

    /// Changes what goes wrong from now on, and starts the dice anew from its seed.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.network.set_faults(faults);
    }

    /// Cuts the link between two regions, both ways: events wait, and publishing to the other
    /// region's topics fails. Acknowledgements still arrive.
    pub fn cut(&self, a: &str, b: &str) {
        self.shared.network.set_cut(a, b, true);
    }

    /// Mends the link between two regions.
    pub fn heal(&self, a: &str, b: &str) {
        self.shared.network.set_cut(a, b, false);
    }

    /// Takes a region's bus away, or brings it back. While it is away, publishing to its topics
    /// fails, before or after the event was accepted, and its consumers receive nothing.
    pub fn set_down(&self, region: &str, down: bool) {
        self.shared.network.set_down(region, down);
    }

    /// How many events the fabric still holds for a group; 0 for one that does not exist.
    #[must_use]
    pub fn unacknowledged(&self, subscription: &Subscription) -> usize {
        self.queue(subscription)
            .map_or(0, |queue| queue.unacknowledged())
    }

    fn topic(&self, topic: &Topic) -> Result<Arc<TopicState>, BusError> {
        let topics = self.shared.topics.read();
        topics
            .get(topic)
            .cloned()
            .ok_or_else(|| BusError::NotFound(topic.to_string()))
    }

    fn queue(&self, subscription: &Subscription) -> Result<Arc<Queue>, BusError> {
        let topic = self.topic(&subscription.topic)?;
        let groups = topic.groups.lock();
        groups
            .get(&subscription.group)
            .cloned()
            .ok_or_else(|| BusError::NotFound(subscription.to_string()))
    }

    fn accept(&self, from: &str, topic: &Topic, event: &Event) -> Result<(), BusError> {
        let held = self.topic(topic)?;
        let groups = held.groups.lock();
        let fate = self.shared.network.publish(from, &topic.region);
        if fate.accepted {
            for queue in groups.values() {
                for delay in self.shared.network.copies() {
                    queue.push(event.clone(), delay);
                }
            }
        }
        fate.answer
    }
}

impl Default for MemoryFabric {
    fn default() -> Self {
        Self::new(FabricConfig::default())
    }
}

impl fmt::Debug for MemoryFabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFabric")
            .field("topics", &self.shared.topics.read().len())
            .finish_non_exhaustive()
    }
}

/// The fabric as one publisher and consumer in a region sees it. Clones are the same publisher.
#[derive(Debug, Clone)]
pub struct MemoryBus {
    region: Arc<str>,
    fabric: MemoryFabric,
    halted: Arc<Mutex<HashMap<Topic, HashSet<String>>>>,
}

impl MemoryBus {
    fn accept(&self, topic: &Topic, event: &Event) -> Result<(), BusError> {
        let key = &event.ordering_key;
        let halted = |keys: &HashSet<String>| keys.contains(key);
        if self.halted.lock().get(topic).is_some_and(halted) {
            return Err(BusError::Halted);
        }
        let accepted = self.fabric.accept(&self.region, topic, event);
        if accepted.is_err() && !key.is_empty() {
            let mut halted = self.halted.lock();
            halted.entry(topic.clone()).or_default().insert(key.clone());
        }
        accepted
    }

    fn reach(&self, region: &str) -> Result<(), BusError> {
        match self.fabric.shared.network.reach(&self.region, region) {
            Some(_) => Ok(()),
            None => Err(network::unavailable(region)),
        }
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    async fn ensure(&self, subscription: &Subscription) -> Result<(), BusError> {
        self.reach(&subscription.topic.region)?;
        let shared = &self.fabric.shared;
        let mut topics = shared.topics.write();
        let topic = topics.entry(subscription.topic.clone()).or_default();
        let mut groups = topic.groups.lock();
        groups.entry(subscription.group.clone()).or_insert_with(|| {
            Arc::new(Queue::new(Arc::clone(&shared.network), shared.nack_backoff))
        });
        Ok(())
    }

    fn publish(&self, topic: &Topic, event: Event) -> BoxFuture<'static, Result<(), BusError>> {
        let accepted = self.accept(topic, &event);
        Box::pin(async move {
            // A publisher in a loop must let the consumers run.
            tokio::task::consume_budget().await;
            accepted
        })
    }

    fn resume(&self, topic: &Topic, ordering_key: &str) {
        let mut halted = self.halted.lock();
        if let Some(keys) = halted.get_mut(topic) {
            keys.remove(ordering_key);
            if keys.is_empty() {
                halted.remove(topic);
            }
        }
    }

    async fn consume(
        &self,
        subscription: &Subscription,
        limits: ConsumeLimits,
    ) -> Result<Consumer, BusError> {
        self.reach(&subscription.topic.region)?;
        let queue = self.fabric.queue(subscription)?;
        let (sink, consumer) = Consumer::channel();
        let route = pump::Route {
            from: subscription.topic.region.clone(),
            to: self.region.to_string(),
        };
        pump::start(queue, limits, route, sink);
        Ok(consumer)
    }
}
