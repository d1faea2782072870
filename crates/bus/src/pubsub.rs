//! The bus on Google Cloud Pub/Sub, or an emulator of it.
//!
//! A topic is `<region>.<name>`, a group's place in it the subscription `<region>.<name>.<group>`.
//! Everything about a topic goes through the endpoint of its region, so that a region that is away
//! costs no other anything.
//!
//! What this backend adds to the bus's promises:
//! - a publish resolves within [`PubsubConfig::publish_deadline`]. Events of one key that travelled in
//!   one request fail together, each as [`BusError::Unavailable`];
//! - what a consumer holds stays leased to it for as long as its process can say so, an hour at most;
//!   10 s after a process went silent, another consumer gets it;
//! - a dropped consumer hands back at once what had reached it. What Pub/Sub had sent and was still
//!   on its way comes again, and with it the rest of its keys, after those 10 s;
//! - acknowledgements are sent every 100 ms. Those under way when a process dies are lost, and their
//!   events come again.

mod admin;
mod clients;
mod errors;
mod names;
mod order;
mod publisher;
mod receiving;
mod room;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use admin::Means;
use async_trait::async_trait;
use clients::Clients;
pub use clients::ConnectError;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use publisher::TopicPublisher;

use crate::{BusError, ConsumeLimits, Consumer, Event, EventBus, PushTarget, Subscription, Topic};

/// Where Pub/Sub is, and how to use it.
#[derive(Debug, Clone)]
pub struct PubsubConfig {
    /// The Google Cloud project that holds the topics.
    pub project: String,
    /// The endpoint of each region. Topics of other regions can't be reached.
    pub endpoints: BTreeMap<String, PubsubEndpoint>,
    /// Whether [`EventBus::ensure`] creates what is missing. In production the infrastructure does,
    /// and `ensure` only checks.
    pub create_topics: bool,
    /// How long a publish may take before it counts as failed.
    pub publish_deadline: Duration,
    /// How much may wait for Pub/Sub's answer.
    pub publish_limits: PublishLimits,
}

impl PubsubConfig {
    /// How long a publish may take, unless told otherwise.
    pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);

    /// The defaults for a project and its endpoints.
    #[must_use]
    pub fn new(project: &str, endpoints: BTreeMap<String, PubsubEndpoint>) -> Self {
        Self {
            project: project.to_owned(),
            endpoints,
            create_topics: false,
            publish_deadline: Self::PUBLISH_DEADLINE,
            publish_limits: PublishLimits::default(),
        }
    }
}

/// Where a region's Pub/Sub answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PubsubEndpoint {
    /// Google's, by its URL, with the credentials of the environment.
    Cloud(String),
    /// An emulator, by `host:port`, without credentials.
    Emulator(String),
}

impl PubsubEndpoint {
    /// Google's endpoint in a region: what is published through it stays there.
    #[must_use]
    pub fn of_region(region: &str) -> Self {
        Self::Cloud(format!("https://{region}-pubsub.googleapis.com"))
    }
}

/// How much a topic may have handed over and not yet heard about. What comes on top fails at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishLimits {
    /// Events.
    pub events: usize,
    /// Bytes of payload. One larger event still passes, alone.
    pub bytes: usize,
}

impl Default for PublishLimits {
    fn default() -> Self {
        Self {
            events: 10_000,
            bytes: 16 * 1024 * 1024,
        }
    }
}

/// A publisher and consumer on Pub/Sub. Clones are the same publisher: a key that failed is halted
/// for all of them.
#[derive(Debug, Clone)]
pub struct PubsubBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: PubsubConfig,
    regions: HashMap<String, Clients>,
    publishers: Mutex<HashMap<Topic, Arc<TopicPublisher>>>,
}

impl PubsubBus {
    /// Makes the clients of every region. Connections are made when they are needed, so a region that
    /// is away now is no error.
    ///
    /// # Errors
    /// When an endpoint is no address, or there are no credentials.
    pub async fn connect(config: PubsubConfig) -> Result<Self, ConnectError> {
        let mut regions = HashMap::new();
        for (region, endpoint) in &config.endpoints {
            let clients = Clients::make(endpoint, config.publish_deadline).await;
            let clients = clients.map_err(|source| ConnectError {
                region: region.clone(),
                source,
            })?;
            regions.insert(region.clone(), clients);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                regions,
                publishers: Mutex::default(),
            }),
        })
    }

    fn clients(&self, topic: &Topic) -> Result<&Clients, BusError> {
        let region = &topic.region;
        self.shared.regions.get(region).ok_or_else(|| {
            BusError::Refused(format!("no Pub/Sub endpoint is configured for {region}"))
        })
    }

    async fn ensure_by(
        &self,
        subscription: &Subscription,
        means: Means<'_>,
    ) -> Result<(), BusError> {
        let clients = self.clients(&subscription.topic)?;
        let config = &self.shared.config;
        if config.create_topics {
            admin::create(clients, &config.project, subscription, means).await
        } else {
            admin::check(clients, &config.project, subscription, means).await
        }
    }

    fn publisher(&self, topic: &Topic) -> Result<Arc<TopicPublisher>, BusError> {
        let mut publishers = self.shared.publishers.lock();
        if let Some(publisher) = publishers.get(topic) {
            return Ok(Arc::clone(publisher));
        }
        let config = &self.shared.config;
        let name = names::topic(&config.project, topic)?;
        let client = self.clients(topic)?.publisher(&name);
        let publisher = Arc::new(TopicPublisher::new(topic.clone(), client, config));
        publishers.insert(topic.clone(), Arc::clone(&publisher));
        Ok(publisher)
    }
}

#[async_trait]
impl EventBus for PubsubBus {
    async fn ensure(&self, subscription: &Subscription) -> Result<(), BusError> {
        self.ensure_by(subscription, Means::Pull).await
    }

    async fn ensure_pushed(
        &self,
        subscription: &Subscription,
        target: &PushTarget,
    ) -> Result<(), BusError> {
        self.ensure_by(subscription, Means::Push(target)).await
    }

    fn publish(&self, topic: &Topic, event: Event) -> BoxFuture<'static, Result<(), BusError>> {
        match self.publisher(topic) {
            Ok(publisher) => publisher.publish(event),
            Err(err) => std::future::ready(Err(err)).boxed(),
        }
    }

    fn resume(&self, topic: &Topic, ordering_key: &str) {
        let publisher = self.shared.publishers.lock().get(topic).cloned();
        if let Some(publisher) = publisher {
            publisher.resume(ordering_key);
        }
    }

    async fn consume(
        &self,
        subscription: &Subscription,
        limits: ConsumeLimits,
    ) -> Result<Consumer, BusError> {
        let clients = self.clients(&subscription.topic)?;
        let project = &self.shared.config.project;
        admin::check(clients, project, subscription, Means::Pull).await?;
        let name = names::subscription(project, subscription)?;
        let stream = clients.stream(&name, limits);
        let (sink, consumer) = Consumer::channel();
        receiving::start(subscription.clone(), stream, limits, sink);
        Ok(consumer)
    }
}
