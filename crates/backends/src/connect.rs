//! From what was set to parts that work.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use infrachat_bus::{
    CountedBus, EventBus, FabricConfig, MemoryFabric, PubsubBus, PubsubConfig, PubsubEndpoint,
    RedisStreamsBus, RedisStreamsConfig,
};
use infrachat_control::{GooglePushTokens, Hearing, PushSetUp};
use infrachat_identity::{
    FallbackLimiter, MemoryLimiter, RateLimiter, RedisLimiter, RedisRevocations, Revocations,
};
use infrachat_metadata::{FirestoreConfig, FirestoreMetadata, MemoryMetadata, Metadata};
use infrachat_presence::{MemoryPresence, Presence, RedisPresence};
use infrachat_redis_link::{BadTarget, RedisTarget};
use infrachat_revocations::{SharedRevocations, StoredRevocations};
use infrachat_routing::{CONTROL_TOPIC, DEAD_LETTER_TOPIC};
use infrachat_types::Region;
use tokio::net::TcpStream;

use crate::{BackendOptions, BusKind, MetadataKind, redis::RedisServers};

/// How long an emulator may take to be there.
const PATIENCE: Duration = Duration::from_secs(3);

/// The kinds of topics: a partition's messages go to one with its number.
const TOPICS: [&str; 3] = ["messages", CONTROL_TOPIC, DEAD_LETTER_TOPIC];

/// Why the backends can't be used. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The region is none of the deployment's.
    #[error("--region {0} is not among --regions: add it, or correct it")]
    NotAmongRegions(Region),
    /// Something has to be set with what was set.
    #[error("{0}")]
    Missing(String),
    /// Nothing listens there.
    #[error(
        "nothing answers at {address} ({variable}): {reason}; start the emulators with `make emulators`, or correct the address"
    )]
    NoEmulator {
        /// The variable that names it.
        variable: &'static str,
        /// Where it should be.
        address: String,
        /// Why it is not.
        reason: String,
    },
    /// What is said of a Redis contradicts itself, or means nothing.
    #[error("{variables}: {reason}")]
    BadRedis {
        /// The variables that say it.
        variables: String,
        /// Why.
        reason: BadTarget,
    },
    /// A Redis does not let this process in.
    #[error("the Redis at {address} ({variable}) can't be used: {reason}")]
    Refused {
        /// The variable that names it.
        variable: &'static str,
        /// Where it is.
        address: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The backend can't be used as configured.
    #[error("{part} can't be used: {reason}")]
    Unusable {
        /// Which.
        part: &'static str,
        /// Why.
        reason: String,
    },
}

fn unusable(part: &'static str, reason: impl ToString) -> ConnectError {
    let reason = reason.to_string();
    ConnectError::Unusable { part, reason }
}

/// A service's parts, connected. Connections come back by themselves.
#[derive(Debug)]
pub struct Backends {
    /// The region served.
    pub region: Region,
    /// Each region's store.
    pub stores: BTreeMap<Region, Arc<dyn Metadata>>,
    /// The bus, as seen from the region.
    pub bus: Arc<dyn EventBus>,
    /// The region's presence.
    pub presence: Arc<dyn Presence>,
    /// The region's revocations.
    pub revocations: Arc<dyn Revocations>,
    /// How control events are heard.
    pub hearing: Hearing,
    redis: Option<RedisTarget>,
    /// What the keys start with: regions may share one Redis on a laptop.
    prefix: String,
}

impl Backends {
    /// Connects everything that was chosen.
    ///
    /// What is away at the moment is no error, since services go on without it and it comes back;
    /// an emulator that is not there is one.
    ///
    /// # Errors
    /// When something is missing or contradicts itself, a Redis does not let this process in, or an
    /// emulator is not there.
    pub async fn connect(options: &BackendOptions) -> Result<Self, ConnectError> {
        // An error means that it is settled already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let region = options.region.clone();
        if !options.regions.contains(&region) {
            return Err(ConnectError::NotAmongRegions(region));
        }
        let redis = RedisServers::reach(options).await?;
        let prefix = format!("infrachat:{region}");
        let stores = stores(options).await?;
        let store = stores.get(&region).cloned();
        let stored =
            StoredRevocations::new(store.ok_or(ConnectError::NotAmongRegions(region.clone()))?);
        let (presence, revocations): (Arc<dyn Presence>, Arc<dyn Revocations>) = match &redis.state
        {
            Some(target) => {
                let shared = RedisRevocations::new(target, &prefix);
                (
                    Arc::new(RedisPresence::new(target, &prefix)),
                    Arc::new(SharedRevocations::new(shared, stored)),
                )
            }
            None => (Arc::new(MemoryPresence::new()), Arc::new(stored)),
        };
        Ok(Self {
            bus: Arc::new(CountedBus::new(bus(options, redis.bus).await?, &TOPICS)),
            hearing: hearing(options)?,
            region,
            stores,
            presence,
            revocations,
            redis: redis.state,
            prefix,
        })
    }

    /// The region's rate limits. While its Redis is away each process allows one part of every limit,
    /// of so many.
    #[must_use]
    pub fn limiter(&self, parts: NonZeroU32) -> Arc<dyn RateLimiter> {
        let Some(target) = &self.redis else {
            return Arc::new(MemoryLimiter::new());
        };
        let shared = RedisLimiter::new(target, &self.prefix);
        Arc::new(FallbackLimiter::new(shared, parts))
    }
}

/// Whether somebody listens at an emulator's address.
async fn there(variable: &'static str, address: &str) -> Result<(), ConnectError> {
    let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
    let reason = match connecting {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(err)) => err.to_string(),
        Err(_) => format!("no answer in {PATIENCE:?}"),
    };
    Err(ConnectError::NoEmulator {
        variable,
        address: address.to_owned(),
        reason,
    })
}

async fn stores(
    options: &BackendOptions,
) -> Result<BTreeMap<Region, Arc<dyn Metadata>>, ConnectError> {
    let mut stores: BTreeMap<Region, Arc<dyn Metadata>> = BTreeMap::new();
    if let (MetadataKind::Firestore, Some(address)) =
        (options.metadata, &options.firestore_emulator)
    {
        there("FIRESTORE_EMULATOR_HOST", address).await?;
    }
    for region in &options.regions {
        let store: Arc<dyn Metadata> = match options.metadata {
            MetadataKind::Memory => Arc::new(MemoryMetadata::new()),
            MetadataKind::Firestore => {
                let database = options
                    .firestore_databases
                    .as_ref()
                    .and_then(|databases| databases.of(region))
                    .map_or_else(|| format!("infrachat-{region}"), ToOwned::to_owned);
                let config = FirestoreConfig {
                    emulator: options.firestore_emulator.clone(),
                    ..FirestoreConfig::new(&options.project, &database)
                };
                let connecting = FirestoreMetadata::connect(config).await;
                Arc::new(connecting.map_err(|err| unusable("Firestore", err))?)
            }
        };
        stores.insert(region.clone(), store);
    }
    Ok(stores)
}

async fn bus(
    options: &BackendOptions,
    redis: BTreeMap<String, RedisTarget>,
) -> Result<Arc<dyn EventBus>, ConnectError> {
    match options.bus {
        BusKind::Memory => {
            let fabric = MemoryFabric::new(FabricConfig::default());
            Ok(Arc::new(fabric.bus(options.region.as_str())))
        }
        BusKind::Pubsub => {
            let mut endpoints = BTreeMap::new();
            for region in &options.regions {
                let emulator = options.pubsub_emulator.as_ref();
                let endpoint = match emulator.and_then(|emulator| emulator.of(region)) {
                    Some(address) => {
                        there("PUBSUB_EMULATOR_HOST", address).await?;
                        PubsubEndpoint::Emulator(address.to_owned())
                    }
                    None => PubsubEndpoint::of_region(region.as_str()),
                };
                endpoints.insert(region.to_string(), endpoint);
            }
            let config = PubsubConfig {
                create_topics: options.create_topics,
                ..PubsubConfig::new(&options.project, endpoints)
            };
            let connecting = PubsubBus::connect(config).await;
            Ok(Arc::new(
                connecting.map_err(|err| unusable("Pub/Sub", err))?,
            ))
        }
        BusKind::RedisStreams => Ok(Arc::new(RedisStreamsBus::new(RedisStreamsConfig::new(
            redis,
        )))),
    }
}

fn hearing(options: &BackendOptions) -> Result<Hearing, ConnectError> {
    let (Some(audience), Some(service_account)) =
        (&options.push_audience, &options.push_service_account)
    else {
        return Ok(Hearing::Pull);
    };
    if options.bus != BusKind::Pubsub {
        return Err(ConnectError::Missing(
            "--push-audience needs --bus pubsub: no other bus pushes".to_owned(),
        ));
    }
    // Tokens of an emulator are signed with keys of its own. Regions may have one each.
    let emulator = options.pubsub_emulator.as_ref();
    let keys: Vec<String> = options
        .regions
        .iter()
        .filter_map(|region| emulator.and_then(|emulator| emulator.of(region)))
        .map(|address| format!("http://{address}/oauth2/v3/certs"))
        .collect();
    Ok(Hearing::Push {
        tokens: Arc::new(GooglePushTokens::new(audience, service_account, &keys)),
        set_up: options.create_topics.then(|| PushSetUp {
            url: options.push_url.clone(),
            service_account: service_account.clone(),
            audience: audience.clone(),
        }),
    })
}
