//! From what was set to parts that work.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use infrachat_bus::{
    EventBus, FabricConfig, MemoryFabric, PubsubBus, PubsubConfig, PubsubEndpoint, RedisStreamsBus,
    RedisStreamsConfig,
};
use infrachat_control::{GooglePushTokens, Hearing, PushSetUp};
use infrachat_identity::{
    FallbackLimiter, MemoryLimiter, RateLimiter, RedisLimiter, RedisRevocations, Revocations,
};
use infrachat_metadata::{FirestoreConfig, FirestoreMetadata, MemoryMetadata, Metadata};
use infrachat_presence::{MemoryPresence, Presence, RedisPresence};
use infrachat_revocations::{SharedRevocations, StoredRevocations};
use infrachat_types::Region;
use tokio::net::TcpStream;

use crate::{BackendOptions, BusKind, MetadataKind, Regional, StateKind};

/// How long an emulator may take to be there.
const PATIENCE: Duration = Duration::from_secs(3);

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
    redis: Option<Redis>,
}

/// The region's Redis, and what its keys start with: regions may share one on a laptop.
#[derive(Clone)]
struct Redis {
    url: String,
    prefix: String,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the URL: it may hold a password.
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Backends {
    /// Connects everything that was chosen.
    ///
    /// What is away at the moment is no error, since services go on without it and it comes back;
    /// an emulator that is not there is one.
    ///
    /// # Errors
    /// When something is missing or contradicts itself, or an emulator is not there.
    pub async fn connect(options: &BackendOptions) -> Result<Self, ConnectError> {
        // An error means that it is settled already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let region = options.region.clone();
        if !options.regions.contains(&region) {
            return Err(ConnectError::NotAmongRegions(region));
        }
        let redis = redis(options)?;
        let stores = stores(options).await?;
        let store = stores.get(&region).cloned();
        let stored =
            StoredRevocations::new(store.ok_or(ConnectError::NotAmongRegions(region.clone()))?);
        let (presence, revocations): (Arc<dyn Presence>, Arc<dyn Revocations>) = match &redis {
            Some(Redis { url, prefix }) => {
                let presence = RedisPresence::connect(url, prefix);
                let shared = RedisRevocations::connect(url, prefix);
                let shared = shared.map_err(|err| unusable("the revocations", err))?;
                (
                    Arc::new(presence.map_err(|err| unusable("presence", err))?),
                    Arc::new(SharedRevocations::new(shared, stored)),
                )
            }
            None => (Arc::new(MemoryPresence::new()), Arc::new(stored)),
        };
        Ok(Self {
            bus: bus(options).await?,
            hearing: hearing(options)?,
            region,
            stores,
            presence,
            revocations,
            redis,
        })
    }

    /// The region's rate limits. While its Redis is away each process allows one part of every limit,
    /// of so many.
    ///
    /// # Errors
    /// When the Redis can't be used.
    pub fn limiter(&self, parts: NonZeroU32) -> Result<Arc<dyn RateLimiter>, ConnectError> {
        let Some(Redis { url, prefix }) = &self.redis else {
            return Ok(Arc::new(MemoryLimiter::new()));
        };
        let shared =
            RedisLimiter::connect(url, prefix).map_err(|err| unusable("the rate limits", err))?;
        Ok(Arc::new(FallbackLimiter::new(shared, parts)))
    }
}

fn redis(options: &BackendOptions) -> Result<Option<Redis>, ConnectError> {
    match (options.state, &options.redis_url) {
        (StateKind::Memory, _) => Ok(None),
        (StateKind::Redis, Some(url)) => Ok(Some(Redis {
            url: url.clone(),
            prefix: format!("infrachat:{}", options.region),
        })),
        (StateKind::Redis, None) => Err(ConnectError::Missing(
            "--state redis needs --redis-url (REDIS_URL): where this region's Redis is".to_owned(),
        )),
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

async fn bus(options: &BackendOptions) -> Result<Arc<dyn EventBus>, ConnectError> {
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
        BusKind::RedisStreams => {
            let urls = options.bus_redis_urls.clone();
            let urls = urls.or_else(|| options.redis_url.clone().map(Regional::All));
            let missing = |region: &Region| {
                ConnectError::Missing(format!(
                    "--bus redis-streams needs --bus-redis-urls with the Redis of {region}, or --redis-url for all regions"
                ))
            };
            let mut by_region = BTreeMap::new();
            for region in &options.regions {
                let url = urls.as_ref().and_then(|urls| urls.of(region));
                let url = url.ok_or_else(|| missing(region))?;
                by_region.insert(region.to_string(), url.to_owned());
            }
            let config = RedisStreamsConfig::new(by_region);
            let connecting = RedisStreamsBus::connect(config);
            Ok(Arc::new(
                connecting.map_err(|err| unusable("the bus", err))?,
            ))
        }
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
