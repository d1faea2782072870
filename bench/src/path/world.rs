//! Two regions to measure on, and what they stand on.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use infrachat_bus::{
    EventBus, FabricConfig, MemoryFabric, PubsubBus, PubsubConfig, PubsubEndpoint,
};
use infrachat_stack::{Bus as StackBus, Plan, Ports, Services, Stack};
use infrachat_test_services::Collector;
use serde::Serialize;
use tempfile::TempDir;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    process::{Server, free_port, free_ports},
    target::{CHANNEL, Region, Shard},
};

/// Who speaks is in the first.
pub(crate) const REGIONS: [&str; 2] = ["us-west1", "asia-northeast1"];
/// How long the shards may take to share out the channels.
const SETTLING: Duration = Duration::from_secs(60);
/// Routes that stay the same for this long are shared out: longer than a lease's renewal.
const SETTLED: Duration = Duration::from_secs(3);
/// Enough names for every shard to have some.
const NAMES: usize = 64;
const SHARDS: usize = 2;

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bus {
    /// Memory, both regions in one process.
    Embedded,
    /// The Pub/Sub emulator, with that of Firestore and Redis; every service a process of its own.
    Pubsub,
}

impl std::fmt::Display for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Embedded => "the embedded bus",
            Self::Pubsub => "the Pub/Sub emulator",
        })
    }
}

/// Two regions that run, with a channel; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct World {
    /// The channel's shards, in the order of [`REGIONS`].
    pub(crate) shards: [Shard; 2],
    pub(crate) token: String,
    pub(crate) collector: Collector,
    running: Running,
}

/// Those that ask are dropped before those that answer.
#[derive(Debug)]
enum Running {
    Embedded {
        _server: Server,
    },
    Pubsub {
        _stack: Stack,
        _services: Vec<Server>,
        _keys: TempDir,
        pubsub: String,
    },
}

impl World {
    pub(crate) async fn start(bus: Bus) -> anyhow::Result<Self> {
        let collector = Collector::start().await?;
        let first = free_ports(20)?;
        let told = ["--otlp-endpoint", &collector.endpoint, "--trace-ratio", "0"];
        let running = match bus {
            Bus::Embedded => embedded(first, &told).await?,
            Bus::Pubsub => on_pubsub(first, &told).await?,
        };
        let west = Region::register(first, 1).await?;
        let asia = Region {
            switchboard: format!("http://127.0.0.1:{}", first + 11),
            tokens: west.tokens.clone(),
        };
        settled([&west, &asia]).await?;
        let in_west = west.create(CHANNEL).await?;
        let in_asia = asia.resolve(&[CHANNEL.to_owned()]).await?.pop();
        Ok(Self {
            shards: [in_west, in_asia.context("Switchboard knows no route")?],
            token: west.token(0).to_owned(),
            collector,
            running,
        })
    }

    /// A bus of the same kind, for this process alone.
    pub(crate) async fn bare_bus(&self) -> anyhow::Result<Box<dyn EventBus>> {
        let region = REGIONS[0];
        Ok(match &self.running {
            Running::Embedded { .. } => {
                Box::new(MemoryFabric::new(FabricConfig::default()).bus(region))
            }
            Running::Pubsub { pubsub, .. } => {
                let endpoint = PubsubEndpoint::Emulator(pubsub.clone());
                let endpoints = BTreeMap::from([(region.to_owned(), endpoint)]);
                let config = PubsubConfig {
                    create_topics: true,
                    ..PubsubConfig::new("bench", endpoints)
                };
                Box::new(PubsubBus::connect(config).await?)
            }
        })
    }
}

async fn embedded(first: u16, told: &[&str]) -> anyhow::Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["traced-server", "--first-port", &first.to_string()]);
    command.args(["--log", "error"]).args(told);
    // Users can sign in once Gatekeeper listens, which is last.
    let server = Server::start(&mut command, first).await?;
    Ok(Running::Embedded { _server: server })
}

async fn on_pubsub(first: u16, told: &[&str]) -> anyhow::Result<Running> {
    let programs = programs()?;
    let [redis, pubsub, firestore, control] =
        [free_port()?, free_port()?, free_port()?, free_port()?];
    let local = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new("redis-server");
    command.args(["--port", &redis.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", "no"]);
    let redis_server = Server::start(command.stderr(Stdio::null()), redis).await?;
    let mut command = Command::new(programs.join("infrachat-emulators"));
    command.args(["--pubsub", &local(pubsub), "--firestore", &local(firestore)]);
    command.args(["--control", &local(control)]);
    command.args(["--issuer", "https://accounts.google.com"]);
    let emulators = Server::start(command.stderr(Stdio::null()), firestore).await?;
    let keys = tempfile::tempdir()?;
    let plan = Plan {
        programs,
        ports: [Ports::from(first), Ports::from(first + 10)],
        bus: StackBus::Pubsub,
        services: Services {
            pubsub: local(pubsub),
            firestore: local(firestore),
            redis: format!("redis://{}", local(redis)),
        },
        keys: keys.path().to_owned(),
        log: "error".to_owned(),
        metrics: false,
        args: told.iter().map(|arg| (*arg).to_owned()).collect(),
        shard_args: Vec::new(),
        advertised: BTreeMap::new(),
    };
    let (lines, mut said) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some((name, line)) = said.recv().await {
            eprintln!("{name}: {line}");
        }
    });
    Ok(Running::Pubsub {
        _stack: Stack::start(&plan, lines).await?,
        _services: vec![emulators, redis_server],
        _keys: keys,
        pubsub: plan.services.pubsub,
    })
}

/// The services' programs are beside this one.
fn programs() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("this program is in no folder")?;
    for program in [
        "infrachat-emulators",
        "gatekeeper",
        "switchboard",
        "chat-shard",
    ] {
        if !folder.join(program).exists() {
            bail!(
                "{program} is not in {}: build it there, as `make bench` does",
                folder.display()
            );
        }
    }
    Ok(folder.to_owned())
}

/// Waits until every shard of each region has its share of the channels, and keeps it.
async fn settled(regions: [&Region; 2]) -> anyhow::Result<()> {
    let names: Vec<_> = (0..NAMES).map(|name| format!("#name-{name}")).collect();
    let deadline = Instant::now() + SETTLING;
    let (mut before, mut since) = (Vec::new(), Instant::now());
    loop {
        let routes = async {
            let mut routes = Vec::new();
            for region in regions {
                let shards = region.resolve(&names).await?;
                let endpoints: Vec<_> = shards.into_iter().map(|shard| shard.endpoint).collect();
                let shards = endpoints.iter().collect::<BTreeSet<_>>().len();
                if shards != SHARDS || endpoints.iter().any(String::is_empty) {
                    bail!("not every shard has its share");
                }
                routes.push(endpoints);
            }
            Ok(routes)
        };
        let why = match routes.await {
            Ok(routes) if routes == before && since.elapsed() > SETTLED => return Ok(()),
            Ok(routes) if routes == before => None,
            Ok(routes) => {
                (before, since) = (routes, Instant::now());
                None
            }
            Err(err) => {
                before.clear();
                Some(err)
            }
        };
        if Instant::now() > deadline {
            let why = why.map_or_else(|| "it goes on changing".to_owned(), |err| err.to_string());
            bail!("the shards did not share out the channels: {why}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
