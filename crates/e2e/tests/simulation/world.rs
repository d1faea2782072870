//! Both regions in one process, each shard behind its own faults.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use infrachat_bus::{EventBus, FabricConfig, Faults, MemoryFabric};
use infrachat_client::{Client, Options, Password, SignIn};
use infrachat_control::Hearing;
use infrachat_e2e::{Ledger, REGIONS, channel, eventually, user};
use infrachat_gatekeeper::{Gatekeeper, RegionEndpoints};
use infrachat_identity::{
    FixedKeys, KeyRing, MemoryLimiter, SigningKey, TokenIssuer, TokenVerifier,
};
use infrachat_metadata::{MemoryMetadata, Metadata, Routing as _};
use infrachat_presence::Presence as _;
use infrachat_revocations::StoredRevocations;
use infrachat_routing::PartitionCount;
use infrachat_runtime::Listener;
use infrachat_shard::{Shard, ShardConfig, ShardStanding, Standing, Tuning};
use infrachat_switchboard::Switchboard;
use infrachat_types::{Region, ShardId, UnixMillis, WallClock, unix_millis};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{FaultyBus, Losses, Owners},
    dice::Dice,
    life::Life,
    net::{Cutter, Net},
    presence::MoodyPresence,
    store::FaultyStore,
    trace::Trace,
};

pub(crate) const SLOTS: usize = 2;
const PARTITIONS: u32 = 4;
/// How far a shard's clock is off at most: two of them disagree by less than a message id may be ahead.
const SKEW: Duration = Duration::from_secs(4);

/// A shard that runs.
pub(crate) struct Running {
    pub(crate) life: Life,
    pub(crate) road: Cutter,
    stop: CancellationToken,
    task: JoinHandle<()>,
    pub(crate) standing: ShardStanding,
}

pub(crate) struct InRegion {
    region: Region,
    pub(crate) store: Arc<MemoryMetadata>,
    bus: Arc<dyn EventBus>,
    pub(crate) presence: MoodyPresence,
    gatekeeper: String,
    /// Whoever is not a shard: nothing happens to it.
    well: Life,
    /// By slot; none while it is away.
    pub(crate) shards: Vec<Option<Running>>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) fabric: MemoryFabric,
    pub(crate) regions: Vec<InRegion>,
    pub(crate) ledger: Arc<Ledger>,
    /// What went wrong so far.
    pub(crate) happened: Vec<String>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) losses: Arc<Losses>,
    pub(crate) owners: Arc<Owners>,
    net: Net,
    skews: Dice,
    began: (UnixMillis, Instant),
    keys: KeyRing,
    verifier: Arc<TokenVerifier>,
}

/// What tokens are signed with: the same in every run, so that they are.
fn keys() -> KeyRing {
    // PKCS#8 of an Ed25519 key, up to the key.
    const PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let key = BASE64_STANDARD.encode([PREFIX.as_slice(), &[7; 32]].concat());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
    KeyRing::new(SigningKey::from_pem(&pem).expect("a key"))
}

fn tuning() -> Tuning {
    let mut tuning = Tuning::default();
    tuning.heartbeat_interval = Duration::from_secs(1);
    tuning.drain = Duration::from_secs(1);
    tuning
}

impl World {
    pub(crate) async fn start(faults: Faults, dice: &mut Dice, trace: Trace) -> Self {
        let fabric = MemoryFabric::new(FabricConfig {
            cross_region_delay: Duration::from_millis(60),
            nack_backoff: Duration::from_millis(50),
            faults,
        });
        let (ledger, trace) = (Arc::new(Ledger::default()), Arc::new(trace));
        let net = Net::new(dice.fork(), Arc::clone(&trace));
        let keys = keys();
        let mut known = FixedKeys::default();
        let mut listeners = Vec::new();
        let mut regions = Vec::new();
        for name in REGIONS {
            let region = Region::new(name).expect("valid");
            let issuer = TokenIssuer::default_name(&region);
            known = known.with_issuer(issuer, &keys.jwks());
            let life = ShardId::new(&format!("{name}-others")).expect("valid");
            let well = Life::new(life, Arc::clone(&trace));
            let (listener, _) = net.listen(&well);
            regions.push(InRegion {
                store: Arc::new(MemoryMetadata::new()),
                bus: Arc::new(fabric.bus(name)),
                presence: MoodyPresence::default(),
                region,
                gatekeeper: listener.address().to_string(),
                well,
                shards: (0..SLOTS).map(|_| None).collect(),
            });
            listeners.push(listener);
        }
        let mut world = Self {
            owners: Arc::new(Owners::new(Arc::clone(&ledger))),
            ledger,
            happened: Vec::new(),
            regions,
            fabric,
            trace,
            net,
            skews: dice.fork(),
            losses: Arc::new(Losses::new(dice.fork())),
            began: (unix_millis(), Instant::now()),
            keys,
            verifier: Arc::new(TokenVerifier::new(Arc::new(known))),
        };
        let mut endpoints = Vec::new();
        for region in 0..REGIONS.len() {
            endpoints.push(world.start_switchboard(region).await);
        }
        for (region, listener) in listeners.into_iter().enumerate() {
            world
                .start_gatekeeper(region, listener, endpoints.clone())
                .await;
            for slot in 0..SLOTS {
                world.start_shard(region, slot).await;
            }
        }
        world.settled().await;
        world
    }

    /// A wall clock that nobody keeps right.
    fn clock(&mut self) -> WallClock {
        let (base, began) = self.began;
        let skew = self.skews.skew(SKEW);
        WallClock::new(move || {
            let elapsed = UnixMillis::try_from(began.elapsed().as_millis());
            base + skew + elapsed.expect("a short run")
        })
    }

    fn stores(&self) -> BTreeMap<Region, Arc<dyn Metadata>> {
        let stores = self.regions.iter();
        stores
            .map(|region| (region.region.clone(), Arc::clone(&region.store) as _))
            .collect()
    }

    async fn start_switchboard(&self, region: usize) -> RegionEndpoints {
        let at = &self.regions[region];
        let config = infrachat_switchboard::Config {
            partitions: PartitionCount::new(PARTITIONS).expect("a power of two"),
            lease_ttl: tuning().lease_ttl,
            // Its probes would go through the kernel.
            probe_interval: Duration::ZERO,
            ..infrachat_switchboard::Config::default()
        };
        let dependencies = infrachat_switchboard::Dependencies {
            region: at.region.clone(),
            stores: self.stores(),
            bus: Arc::clone(&at.bus),
            verifier: Arc::clone(&self.verifier),
            revocations: Arc::new(StoredRevocations::new(at.store.clone())),
            hearing: Hearing::Pull,
        };
        let (listener, _) = self.net.listen(&at.well);
        let switchboard = Switchboard::on(listener, config, dependencies)
            .await
            .expect("starts");
        let endpoints = RegionEndpoints {
            region: at.region.clone(),
            gatekeeper: at.gatekeeper.clone(),
            switchboard: switchboard.address().to_string(),
        };
        tokio::spawn(switchboard.run(CancellationToken::new()));
        endpoints
    }

    async fn start_gatekeeper(
        &self,
        region: usize,
        listener: Listener,
        endpoints: Vec<RegionEndpoints>,
    ) {
        let at = &self.regions[region];
        let config = infrachat_gatekeeper::Config {
            endpoints,
            ..infrachat_gatekeeper::Config::default()
        };
        let dependencies = infrachat_gatekeeper::Dependencies {
            region: at.region.clone(),
            stores: self.stores(),
            bus: Arc::clone(&at.bus),
            limiter: Arc::new(MemoryLimiter::new()),
            revocations: Arc::new(StoredRevocations::new(at.store.clone())),
            keys: self.keys.clone(),
            hearing: Hearing::Pull,
        };
        let gatekeeper = Gatekeeper::on(listener, config, dependencies)
            .await
            .expect("starts");
        tokio::spawn(gatekeeper.run(CancellationToken::new()));
    }

    /// Starts a shard: the first life of its slot, or the next.
    pub(crate) async fn start_shard(&mut self, region: usize, slot: usize) {
        let clock = self.clock();
        let at = &self.regions[region];
        let name = ShardId::new(&format!("{}-shard-{slot}", at.region)).expect("valid");
        let life = Life::new(name.clone(), Arc::clone(&self.trace));
        let (listener, road) = self.net.listen(&life);
        let mut stores = self.stores();
        let own = FaultyStore {
            life: life.clone(),
            store: Arc::clone(&at.store),
        };
        stores.insert(at.region.clone(), Arc::new(own));
        let dependencies = infrachat_shard::Dependencies {
            region: at.region.clone(),
            stores,
            bus: Arc::new(FaultyBus {
                life: life.clone(),
                bus: Arc::clone(&at.bus),
                owners: Arc::clone(&self.owners),
                losses: Arc::clone(&self.losses),
                halted: Mutex::default(),
            }),
            presence: Arc::new(at.presence.clone()),
            verifier: Arc::clone(&self.verifier),
            revocations: Arc::new(StoredRevocations::new(at.store.clone())),
            clock,
        };
        let config = ShardConfig {
            shard: name,
            listen: String::new(),
            advertise: None,
            partitions: PartitionCount::new(PARTITIONS).expect("a power of two"),
            tuning: tuning(),
        };
        let starting = Shard::on(listener, config, dependencies);
        let shard = starting.await.expect("starts");
        let (stop, standing) = (CancellationToken::new(), shard.standing());
        let running = shard.run(stop.clone());
        let task = tokio::spawn(async move { running.await.expect("serves") });
        self.regions[region].shards[slot] = Some(Running {
            life,
            road,
            stop,
            task,
            standing,
        });
    }

    /// Ends a shard as a crash does.
    pub(crate) fn crash(&mut self, region: usize, slot: usize) {
        if let Some(shard) = self.regions[region].shards[slot].take() {
            shard.life.end();
            shard.task.abort();
        }
    }

    /// Ends a shard as a deployment does.
    pub(crate) async fn stop_shard(&mut self, region: usize, slot: usize) {
        if let Some(shard) = self.regions[region].shards[slot].take() {
            shard.stop.cancel();
            shard.task.await.expect("drains");
            shard.life.end();
        }
    }

    /// Waits until every partition has a living owner.
    pub(crate) async fn settled(&self) {
        for region in &self.regions {
            eventually("every partition is served", async || {
                let (Ok(leases), Ok(owned)) =
                    (region.store.leases().await, region.store.ownerships().await)
                else {
                    return false;
                };
                let lives = |shard: &ShardId| {
                    let mut leases = leases.iter();
                    leases.any(|view| view.lease.shard == *shard && view.age < tuning().lease_ttl)
                };
                let served = owned
                    .iter()
                    .filter(|owned| owned.owner.as_ref().is_some_and(lives));
                served.count() == PARTITIONS as usize
            })
            .await;
        }
    }

    /// Who serves what, by the records.
    pub(crate) async fn records(&self) -> String {
        let mut text = String::new();
        for region in &self.regions {
            let leases = region.store.leases().await;
            let owned = region.store.ownerships().await;
            text += &format!("{}: {leases:#?} {owned:#?}\n", region.region);
        }
        text
    }

    /// What is left of sessions and messages, once everybody has gone.
    pub(crate) async fn left(&self, channels: &[String]) -> Vec<String> {
        let mut left = Vec::new();
        for region in &self.regions {
            for shard in region.shards.iter().flatten() {
                let standing = shard.standing.now();
                let empty = Standing {
                    partitions: standing.partitions,
                    ..Standing::default()
                };
                if standing != empty {
                    left.push(format!("{}: {standing:?}", shard.life.name));
                }
            }
            for name in channels.iter().map(|name| channel(name)) {
                let seats = region.presence.presence.count(&name).await;
                if seats.as_ref() != Ok(&0) {
                    left.push(format!("seats of {name} in {}: {seats:?}", region.region));
                }
            }
        }
        for subscription in self.owners.known() {
            let count = self.fabric.unacknowledged(&subscription);
            if count > 0 {
                left.push(format!("{count} events of {subscription}"));
            }
        }
        left
    }

    pub(crate) async fn client(&self, region: usize, name: &str) -> Client {
        let gatekeeper = self.regions[region].gatekeeper.clone();
        let mut options = Options::new(gatekeeper, user(name), Password::new("correct horse"));
        options.sign_in = SignIn::LoginOrRegister;
        options.network = self.net.for_clients();
        options.publish_deadline = Duration::from_secs(3_600);
        options.call_deadline = Duration::from_secs(3_600);
        options.event_buffer = 65_536;
        Client::connect(options).await.expect("signs in")
    }
}
