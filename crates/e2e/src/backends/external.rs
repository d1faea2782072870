//! Backends that are other processes: emulators, and Redis. The regions' buses are reached through
//! links that can fail.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use infrachat_bus::{
    EventBus, Faults, PubsubBus, PubsubConfig, PubsubEndpoint, RedisStreamsBus, RedisStreamsConfig,
};
use infrachat_control::{GooglePushTokens, Hearing, PushSetUp};
use infrachat_identity::{FallbackLimiter, RedisLimiter, RedisRevocations};
use infrachat_local::{LocalConfig, RegionParts};
use infrachat_metadata::{FirestoreConfig, FirestoreMetadata};
use infrachat_presence::RedisPresence;
use infrachat_redis_link::RedisTarget;
use infrachat_revocations::{SharedRevocations, StoredRevocations};
use infrachat_test_services::{FirestoreEmulator, Link, PubsubEmulator, RedisServer};
use infrachat_types::Region;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Choice;

const PROJECT: &str = "infrachat-e2e";
const PUSHER: &str = "pubsub@infrachat-e2e.iam.gserviceaccount.com";
const AUDIENCE: &str = "infrachat";

/// The servers of one stack.
#[derive(Debug)]
pub(crate) struct External {
    bus: Bus,
    firestore: FirestoreEmulator,
    redis: RedisServer,
    /// From the services of the first region to the bus of the second.
    links: BTreeMap<(Region, Region), Arc<Link>>,
    _breaking: DropGuard,
}

#[derive(Debug)]
enum Bus {
    Pubsub(PubsubEmulator),
    /// One Redis a region.
    RedisStreams(BTreeMap<Region, RedisServer>),
}

fn redis(url: &str) -> RedisTarget {
    RedisTarget::new(url).expect("a good URL")
}

impl Bus {
    fn address(&self, region: &Region) -> &str {
        match self {
            Self::Pubsub(emulator) => &emulator.address,
            Self::RedisStreams(servers) => servers[region].url.trim_start_matches("redis://"),
        }
    }
}

impl External {
    pub(super) async fn start(choice: Choice, config: &LocalConfig) -> Self {
        // An error means that it is settled already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let regions: Vec<Region> = config.regions.iter().map(|r| r.region.clone()).collect();
        let (firestore, redis) = tokio::join!(FirestoreEmulator::start(), RedisServer::start());
        let bus = match choice {
            Choice::RedisStreams => {
                let mut servers = BTreeMap::new();
                for region in &regions {
                    let server = RedisServer::start().await.expect("redis-server starts");
                    servers.insert(region.clone(), server);
                }
                Bus::RedisStreams(servers)
            }
            _ => Bus::Pubsub(PubsubEmulator::start().await.expect("the emulator starts")),
        };
        let mut links = BTreeMap::new();
        for from in &regions {
            for to in &regions {
                let link = Link::to(bus.address(to)).await.expect("a free port");
                if from != to {
                    // A question and its answer take as long as an event takes one way.
                    link.set_delay(config.fabric.cross_region_delay / 2);
                }
                links.insert((from.clone(), to.clone()), Arc::new(link));
            }
        }
        let breaking = fail(
            &bus,
            &config.fabric.faults,
            links.values().cloned().collect(),
        )
        .await;
        Self {
            bus,
            firestore: firestore.expect("the emulator starts"),
            redis: redis.expect("redis-server starts"),
            links,
            _breaking: breaking.drop_guard(),
        }
    }

    /// The bus of each region, as the services of a region reach it.
    fn addresses(&self, from: &Region) -> impl Iterator<Item = (String, String)> {
        let links = self
            .links
            .iter()
            .filter(move |((viewer, _), _)| viewer == from);
        links.map(|((_, to), link)| (to.to_string(), link.address.clone()))
    }

    async fn bus(&self, region: &Region) -> Arc<dyn EventBus> {
        let addresses = self.addresses(region);
        match self.bus {
            Bus::Pubsub(_) => {
                let endpoint = |(to, address)| (to, PubsubEndpoint::Emulator(address));
                let config = PubsubConfig {
                    create_topics: true,
                    ..PubsubConfig::new(PROJECT, addresses.map(endpoint).collect())
                };
                Arc::new(PubsubBus::connect(config).await.expect("connects"))
            }
            Bus::RedisStreams(_) => {
                let target = |(to, address)| (to, redis(&format!("redis://{address}")));
                let config = RedisStreamsConfig {
                    // What a stopped shard had comes back in a test's time.
                    lease: Duration::from_secs(4),
                    ..RedisStreamsConfig::new(addresses.map(target).collect())
                };
                Arc::new(RedisStreamsBus::new(config))
            }
        }
    }

    fn hearing(&self) -> Hearing {
        let Bus::Pubsub(emulator) = &self.bus else {
            return Hearing::Pull;
        };
        let keys = format!("http://{}/oauth2/v3/certs", emulator.address);
        Hearing::Push {
            tokens: Arc::new(GooglePushTokens::new(AUDIENCE, PUSHER, &[keys])),
            set_up: Some(PushSetUp {
                url: None,
                service_account: PUSHER.to_owned(),
                audience: AUDIENCE.to_owned(),
            }),
        }
    }

    pub(super) async fn parts(&self, region: &Region) -> RegionParts {
        let prefix = format!("infrachat:{region}");
        let redis = redis(&self.redis.url);
        let config = FirestoreConfig {
            emulator: Some(self.firestore.address.clone()),
            ..FirestoreConfig::new(PROJECT, region.as_str())
        };
        let limits = RedisLimiter::new(&redis, &prefix);
        let store = Arc::new(FirestoreMetadata::connect(config).await.expect("connects"));
        let stored = StoredRevocations::new(store.clone());
        let shared = RedisRevocations::new(&redis, &prefix);
        RegionParts {
            store,
            bus: self.bus(region).await,
            presence: Arc::new(RedisPresence::new(&redis, &prefix)),
            limiter: Arc::new(FallbackLimiter::new(limits, NonZeroU32::MIN)),
            revocations: Arc::new(SharedRevocations::new(shared, stored)),
            hearing: self.hearing(),
        }
    }

    /// Neither region reaches the other's bus.
    pub(super) fn set_cut(&self, a: &Region, b: &Region, cut: bool) {
        for pair in [(a, b), (b, a)] {
            self.links[&(pair.0.clone(), pair.1.clone())].set_cut(cut);
        }
    }

    /// Nobody reaches a region's bus.
    pub(super) fn set_down(&self, region: &Region, down: bool) {
        let to = self.links.iter().filter(|((_, to), _)| to == region);
        to.for_each(|(_, link)| link.set_cut(down));
    }
}

/// Puts the faults in force: the emulator knows them by name; otherwise connections break now and
/// then, so that replies get lost, events come twice, and what was taken is taken again.
async fn fail(bus: &Bus, faults: &Faults, links: Vec<Arc<Link>>) -> CancellationToken {
    let stop = CancellationToken::new();
    if *faults == Faults::none() {
        return stop;
    }
    if let Bus::Pubsub(emulator) = bus {
        let settings = format!(
            r#"{{"delivery": {{"duplicate": {}, "redeliver": {}, "delay": 1.0, "delay_ms": {}}}}}"#,
            faults.duplicate,
            faults.redeliver,
            faults.delay.end.as_millis()
        );
        emulator.set_faults(&settings).await.expect("sets faults");
    }
    let breaking = stop.clone();
    tokio::spawn(async move {
        // The pauses are what happens, not what is waited for.
        let mut every = tokio::time::interval(Duration::from_millis(700));
        every.tick().await;
        for link in links.iter().cycle() {
            if breaking.run_until_cancelled(every.tick()).await.is_none() {
                return;
            }
            link.break_connections();
        }
    });
    stop
}
