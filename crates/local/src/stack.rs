//! Starts the services of all regions on shared embedded parts, and stops them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use infrachat_bus::{EventBus, MemoryFabric};
use infrachat_control::Hearing;
use infrachat_gatekeeper::{Gatekeeper, RegionEndpoints};
use infrachat_identity::{
    KeyRing, MemoryLimiter, RateLimiter, RemoteKeys, Revocations, SigningKey, TokenIssuer,
    TokenVerifier,
};
use infrachat_metadata::{LeaseState, MemoryMetadata, Metadata};
use infrachat_presence::{MemoryPresence, Presence};
use infrachat_revocations::StoredRevocations;
use infrachat_runtime::Listener;
use infrachat_shard::{Shard, ShardConfig};
use infrachat_switchboard::Switchboard;
use infrachat_types::{Region, ShardId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{LocalConfig, RegionConfig};

/// How long the shards may take to share out the partitions at the start.
const SETTLING: Duration = Duration::from_secs(30);

/// A service that runs.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(
        name: String,
        run: impl FnOnce(CancellationToken) -> futures::future::BoxFuture<'static, anyhow::Result<()>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let run = run(stop.clone());
        let task = tokio::spawn(async move {
            run.await
                .inspect_err(|err| tracing::error!(name, %err, "a service ended"))
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        if let Err(err) = self.task.await {
            tracing::error!(%err, "a service did not end well");
        }
    }
}

/// A shard that runs.
#[derive(Debug)]
pub struct RunningShard {
    /// Its slot's name.
    pub shard: ShardId,
    /// Where it listens.
    pub address: SocketAddr,
    running: Running,
}

/// What a region's services stand on.
#[derive(Debug, Clone)]
pub struct RegionParts {
    /// Its store.
    pub store: Arc<dyn Metadata>,
    /// The bus, as seen from it.
    pub bus: Arc<dyn EventBus>,
    /// Its presence.
    pub presence: Arc<dyn Presence>,
    /// Its rate limits.
    pub limiter: Arc<dyn RateLimiter>,
    /// Its revocations.
    pub revocations: Arc<dyn Revocations>,
    /// How its Gatekeeper and Switchboard hear control events.
    pub hearing: Hearing,
}

impl RegionParts {
    /// Everything in this process; the fabric joins the regions.
    #[must_use]
    pub fn embedded(region: &Region, fabric: &MemoryFabric) -> Self {
        let store = Arc::new(MemoryMetadata::new());
        Self {
            revocations: Arc::new(StoredRevocations::new(store.clone())),
            store,
            bus: Arc::new(fabric.bus(region.as_str())),
            presence: Arc::new(MemoryPresence::new()),
            limiter: Arc::new(MemoryLimiter::new()),
            hearing: Hearing::Pull,
        }
    }
}

/// A region that runs.
#[derive(Debug)]
pub struct RunningRegion {
    /// Its name.
    pub region: Region,
    /// Where Gatekeeper listens.
    pub gatekeeper: SocketAddr,
    /// Where Switchboard listens.
    pub switchboard: SocketAddr,
    /// Its shards.
    pub shards: Vec<RunningShard>,
    /// What its services stand on.
    pub parts: RegionParts,
    services: Vec<Running>,
    shard_parts: infrachat_shard::Dependencies,
}

/// All regions, running.
#[derive(Debug)]
pub struct LocalStack {
    /// The regions, in the order configured.
    pub regions: Vec<RunningRegion>,
    config: LocalConfig,
}

/// A region's listener and parts, before its services start.
struct Prepared {
    config: RegionConfig,
    gatekeeper: Listener,
    parts: RegionParts,
    keys: KeyRing,
    issuer: String,
}

impl LocalStack {
    /// Starts everything on embedded parts; returns once every partition of every region is served.
    ///
    /// # Errors
    /// When a port can't be had, or a service can't start.
    pub async fn start(config: LocalConfig) -> anyhow::Result<Self> {
        let fabric = MemoryFabric::new(config.fabric.clone());
        Self::start_on(config, |region| RegionParts::embedded(region, &fabric)).await
    }

    /// The same, on the parts that each region is given.
    ///
    /// # Errors
    /// When a port can't be had, or a service can't start.
    pub async fn start_on(
        config: LocalConfig,
        parts_of: impl Fn(&Region) -> RegionParts,
    ) -> anyhow::Result<Self> {
        let mut prepared = Vec::new();
        for region in &config.regions {
            let address = format!("{}:{}", config.host, region.ports.gatekeeper);
            let signing_key = match &config.signing_key {
                Some(key) => key.clone(),
                None => SigningKey::generate()?,
            };
            prepared.push(Prepared {
                config: region.clone(),
                gatekeeper: Listener::bind(&address).await?,
                parts: parts_of(&region.region),
                keys: KeyRing::new(signing_key),
                issuer: TokenIssuer::default_name(&region.region),
            });
        }
        let stores: BTreeMap<Region, Arc<dyn Metadata>> = prepared
            .iter()
            .map(|region| {
                (
                    region.config.region.clone(),
                    Arc::clone(&region.parts.store),
                )
            })
            .collect();
        let issuers: Vec<(String, String)> = prepared
            .iter()
            .map(|region| {
                let url = format!(
                    "http://{}/.well-known/jwks.json",
                    region.gatekeeper.address()
                );
                (region.issuer.clone(), url)
            })
            .collect();
        let mut regions = Vec::new();
        let mut gatekeepers = Vec::new();
        for region in prepared {
            let parts = region.parts;
            let shard_parts = infrachat_shard::Dependencies {
                region: region.config.region.clone(),
                stores: stores.clone(),
                bus: Arc::clone(&parts.bus),
                presence: Arc::clone(&parts.presence),
                verifier: Arc::new(TokenVerifier::new(Arc::new(RemoteKeys::new(
                    issuers.clone(),
                )?))),
                revocations: Arc::clone(&parts.revocations),
                clock: region.config.clock.clone(),
            };
            let switchboard =
                bind_switchboard(&config, &region.config, &shard_parts, parts.hearing.clone())
                    .await?;
            let mut running = RunningRegion {
                region: region.config.region.clone(),
                gatekeeper: region.gatekeeper.address(),
                switchboard: switchboard.address(),
                shards: Vec::new(),
                services: vec![Running::start(
                    format!("switchboard {}", region.config.region),
                    |stop| Box::pin(async move { Ok(switchboard.run(stop).await?) }),
                )],
                parts,
                shard_parts,
            };
            for (slot, port) in region.config.ports.shards.iter().enumerate() {
                let shard = start_shard(&config, &running, slot, *port).await?;
                running.shards.push(shard);
            }
            gatekeepers.push((region.gatekeeper, region.keys));
            regions.push(running);
        }
        let endpoints: Vec<RegionEndpoints> = regions.iter().map(endpoints).collect();
        for (region, (listener, keys)) in regions.iter_mut().zip(gatekeepers) {
            let gatekeeper =
                bind_gatekeeper(&config, region, (listener, keys), endpoints.clone()).await?;
            region.services.push(Running::start(
                format!("gatekeeper {}", region.region),
                |stop| Box::pin(async move { Ok(gatekeeper.run(stop).await?) }),
            ));
        }
        let stack = Self { regions, config };
        stack.settled().await?;
        Ok(stack)
    }

    /// Waits until every partition of every region has an owner that should have it.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let settled = async {
            let mut every = tokio::time::interval(Duration::from_millis(20));
            loop {
                every.tick().await;
                let mut all = true;
                for region in &self.regions {
                    all &= self.region_settled(region).await?;
                }
                if all {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(SETTLING, settled)
            .await
            .context("the shards did not share out the partitions in time")?
    }

    async fn region_settled(&self, region: &RunningRegion) -> anyhow::Result<bool> {
        let store = &region.parts.store;
        let leases = store.leases().await?;
        let live: Vec<_> = leases
            .iter()
            .filter(|view| {
                view.age < self.config.tuning.lease_ttl && view.lease.state == LeaseState::Active
            })
            .map(|view| view.lease.shard.as_str())
            .collect();
        let ownerships = store.ownerships().await?;
        let as_chosen = ownerships.iter().filter(|ownership| {
            let chosen = infrachat_routing::owner(ownership.partition, live.iter().copied());
            chosen.is_some() && ownership.owner.as_ref().map(ShardId::as_str) == chosen
        });
        let all = as_chosen.count() == self.config.partitions.get() as usize;
        Ok(live.len() == region.shards.len() && all)
    }

    /// Starts another shard in a region.
    ///
    /// # Errors
    /// When its port can't be had.
    pub async fn add_shard(&mut self, region: usize) -> anyhow::Result<()> {
        let running = &self.regions[region];
        let taken: Vec<_> = running
            .shards
            .iter()
            .map(|shard| shard.shard.clone())
            .collect();
        let free = (0..).find(|slot| {
            !taken
                .iter()
                .any(|name| *name == slot_name(&running.region, *slot))
        });
        let shard = start_shard(&self.config, running, free.unwrap_or_default(), 0).await?;
        self.regions[region].shards.push(shard);
        Ok(())
    }

    /// Stops a shard as a deployment does: it drains, and gives its partitions back.
    pub async fn stop_shard(&mut self, region: usize, shard: usize) {
        self.regions[region]
            .shards
            .remove(shard)
            .running
            .stop()
            .await;
    }

    /// Stops everything, shards first.
    pub async fn stop(self) {
        for region in self.regions {
            let shards = region.shards.into_iter().map(|shard| shard.running.stop());
            futures::future::join_all(shards).await;
            futures::future::join_all(region.services.into_iter().map(Running::stop)).await;
        }
    }
}

fn endpoints(region: &RunningRegion) -> RegionEndpoints {
    RegionEndpoints {
        region: region.region.clone(),
        gatekeeper: region.gatekeeper.to_string(),
        switchboard: region.switchboard.to_string(),
    }
}

fn slot_name(region: &Region, slot: usize) -> ShardId {
    // A region's name with a suffix is always a valid name of a shard.
    ShardId::new(&format!("{region}-shard-{slot}")).unwrap_or_else(|err| unreachable!("{err}"))
}

async fn bind_switchboard(
    config: &LocalConfig,
    region: &RegionConfig,
    parts: &infrachat_shard::Dependencies,
    hearing: Hearing,
) -> anyhow::Result<Switchboard> {
    let settings = infrachat_switchboard::Config {
        listen: format!("{}:{}", config.host, region.ports.switchboard),
        partitions: config.partitions,
        lease_ttl: config.tuning.lease_ttl,
        ..infrachat_switchboard::Config::default()
    };
    let dependencies = infrachat_switchboard::Dependencies {
        region: region.region.clone(),
        stores: parts.stores.clone(),
        bus: Arc::clone(&parts.bus),
        verifier: Arc::clone(&parts.verifier),
        revocations: Arc::clone(&parts.revocations),
        hearing,
    };
    Ok(Switchboard::bind(settings, dependencies).await?)
}

async fn bind_gatekeeper(
    config: &LocalConfig,
    region: &RunningRegion,
    (listener, keys): (Listener, KeyRing),
    endpoints: Vec<RegionEndpoints>,
) -> anyhow::Result<Gatekeeper> {
    let settings = infrachat_gatekeeper::Config {
        endpoints,
        registrations_per_minute_per_address: config.registrations_per_minute,
        sign_ins_per_minute_per_address: config.sign_ins_per_minute,
        refreshes_per_minute_per_address: config.sign_ins_per_minute,
        ..infrachat_gatekeeper::Config::default()
    };
    let dependencies = infrachat_gatekeeper::Dependencies {
        region: region.region.clone(),
        stores: region.shard_parts.stores.clone(),
        bus: Arc::clone(&region.parts.bus),
        limiter: Arc::clone(&region.parts.limiter),
        revocations: Arc::clone(&region.parts.revocations),
        keys,
        hearing: region.parts.hearing.clone(),
    };
    Ok(Gatekeeper::on(listener, settings, dependencies).await?)
}

async fn start_shard(
    config: &LocalConfig,
    region: &RunningRegion,
    slot: usize,
    port: u16,
) -> anyhow::Result<RunningShard> {
    let name = slot_name(&region.region, slot);
    let settings = ShardConfig {
        shard: name.clone(),
        listen: format!("{}:{port}", config.host),
        advertise: None,
        partitions: config.partitions,
        tuning: config.tuning,
    };
    let shard = Shard::bind(settings, region.shard_parts.clone()).await?;
    let address = shard.address();
    let running = Running::start(name.to_string(), |stop| {
        Box::pin(async move { Ok(shard.run(stop).await?) })
    });
    Ok(RunningShard {
        shard: name,
        address,
        running,
    })
}
