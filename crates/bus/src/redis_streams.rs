//! The bus on Redis or Valkey Streams: a topic is a stream, a group is a consumer group.
//!
//! "Durable" here means: as durable as the server is set up to be. It has to run with
//! `appendonly yes` (and `appendfsync always`, or a crash of the machine loses the last second) and
//! `maxmemory-policy noeviction`.
//!
//! Of a group's consumers one is active at a time and gets all events; the others stand by, and the
//! next takes over at once when the active one is dropped, or when its lease ends because its
//! process died. So what is with whom needs no agreement among them. A topic is then as fast as one
//! consumer: spread the load over topics.
//!
//! A stream keeps what some group has not acknowledged, for as long as that takes: a group that
//! nobody consumes any more has to be destroyed (`XGROUP DESTROY`), or the stream only grows.

mod commands;
mod entry;
mod lanes;
mod publisher;
mod pump;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use infrachat_redis_link::RedisTarget;
use parking_lot::Mutex;

use self::{
    commands::{Place, Redis},
    publisher::Publisher,
};
use crate::{BusError, ConsumeLimits, Consumer, Event, EventBus, Subscription, Topic};

/// Where the streams are.
#[derive(Debug, Clone)]
pub struct RedisStreamsConfig {
    /// The Redis of each region. Regions may share one.
    pub regions: BTreeMap<String, RedisTarget>,
    /// What the keys start with.
    pub prefix: String,
    /// How long a publish may be tried, 5 s by default. Its answer may take 2 s longer.
    pub publish_deadline: Duration,
    /// After so long without a sign of life the active consumer of a group loses its place, 8 s by
    /// default. At least 4 s, so that one slow answer is not enough.
    pub lease: Duration,
}

impl RedisStreamsConfig {
    /// With the defaults.
    #[must_use]
    pub fn new(regions: BTreeMap<String, RedisTarget>) -> Self {
        Self {
            regions,
            prefix: "infrachat".to_owned(),
            publish_deadline: Duration::from_secs(5),
            lease: Duration::from_secs(8),
        }
    }
}

/// A publisher to, and consumer of, all regions' streams. Clones are the same publisher: a key that
/// failed is halted for this one and its clones only.
#[derive(Clone)]
pub struct RedisStreamsBus {
    shared: Arc<Shared>,
}

struct Shared {
    config: RedisStreamsConfig,
    regions: HashMap<String, Arc<Redis>>,
    publishers: Mutex<HashMap<Topic, Arc<Publisher>>>,
}

impl RedisStreamsBus {
    /// Connects by itself, to each region when it is first needed and after every loss; no Redis
    /// needs to be there yet.
    #[must_use]
    pub fn new(config: RedisStreamsConfig) -> Self {
        let regions = config.regions.iter();
        let regions = regions.map(|(region, redis)| (region.clone(), Arc::new(Redis::new(redis))));
        Self {
            shared: Arc::new(Shared {
                regions: regions.collect(),
                config,
                publishers: Mutex::default(),
            }),
        }
    }

    fn redis(&self, topic: &Topic) -> Result<Arc<Redis>, BusError> {
        let redis = self.shared.regions.get(&topic.region);
        redis
            .cloned()
            .ok_or_else(|| BusError::NotFound(topic.to_string()))
    }

    /// The topic's key, which is also the hash tag of all that belongs to it.
    fn stream(&self, topic: &Topic) -> String {
        format!("{{{}:bus:{topic}}}", self.shared.config.prefix)
    }

    fn place(&self, subscription: &Subscription) -> Place {
        let stream = self.stream(&subscription.topic);
        Place {
            lease: format!("{stream}:active:{}", subscription.group),
            group: subscription.group.clone(),
            stream,
        }
    }

    fn publisher(&self, topic: &Topic) -> Result<Arc<Publisher>, BusError> {
        let mut publishers = self.shared.publishers.lock();
        if let Some(publisher) = publishers.get(topic) {
            return Ok(Arc::clone(publisher));
        }
        let publisher = Arc::new(Publisher::new(
            topic.clone(),
            self.stream(topic),
            self.redis(topic)?,
            self.shared.config.publish_deadline,
        ));
        publishers.insert(topic.clone(), Arc::clone(&publisher));
        Ok(publisher)
    }
}

impl fmt::Debug for RedisStreamsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URLs: they may hold passwords.
        f.debug_struct("RedisStreamsBus")
            .field("regions", &self.shared.regions.keys())
            .field("prefix", &self.shared.config.prefix)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl EventBus for RedisStreamsBus {
    async fn ensure(&self, subscription: &Subscription) -> Result<(), BusError> {
        let redis = self.redis(&subscription.topic)?;
        let ensured = redis.ensure(&self.place(subscription)).await;
        ensured.map_err(|failure| failure.about(subscription))
    }

    fn publish(&self, topic: &Topic, event: Event) -> BoxFuture<'static, Result<(), BusError>> {
        match self.publisher(topic) {
            Ok(publisher) => publisher.publish(event),
            Err(err) => Box::pin(async { Err(err) }),
        }
    }

    fn resume(&self, topic: &Topic, ordering_key: &str) {
        let publishers = self.shared.publishers.lock();
        if let Some(publisher) = publishers.get(topic) {
            publisher.resume(ordering_key);
        }
    }

    async fn consume(
        &self,
        subscription: &Subscription,
        limits: ConsumeLimits,
    ) -> Result<Consumer, BusError> {
        let redis = self.redis(&subscription.topic)?;
        let place = self.place(subscription);
        let found = redis.look_up(&place).await;
        found.map_err(|failure| failure.about(subscription))?;
        let (sink, consumer) = Consumer::channel();
        pump::start(redis, place, self.shared.config.lease, limits, sink);
        Ok(consumer)
    }
}
