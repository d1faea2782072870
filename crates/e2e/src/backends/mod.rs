//! What a stack stands on in a test, chosen by name: the same tests run on each.

mod external;

use std::sync::Arc;

use clap::{Parser, ValueEnum};
use infrachat_bus::MemoryFabric;
use infrachat_local::{LocalConfig, RegionParts};
use infrachat_routing::PartitionCount;
use infrachat_types::Region;

use external::External;

/// The sets of backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// Everything in the test's process.
    Embedded,
    /// The Pub/Sub and Firestore emulators, and Redis.
    Pubsub,
    /// Redis Streams, the Firestore emulator, and Redis.
    RedisStreams,
}

/// What the tests are told, by the environment: the command line is the test runner's.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// What the stacks stand on.
    #[arg(long, env = "INFRACHAT_BACKENDS", default_value = "embedded")]
    backends: Choice,
    /// Which log lines of the services to show.
    #[arg(long, env = "INFRACHAT_LOG", default_value = "error")]
    pub(crate) log: String,
}

impl Options {
    pub(crate) fn of_the_run() -> Self {
        Self::try_parse_from([""]).unwrap_or_else(|err| panic!("{err}"))
    }
}

impl Choice {
    /// What `INFRACHAT_BACKENDS` says.
    ///
    /// # Panics
    /// When it says something else.
    #[must_use]
    pub fn of_the_run() -> Self {
        Options::of_the_run().backends
    }
}

/// Partitions of the stacks: fewer than in production, since each is a few subscriptions.
///
/// # Panics
/// Never.
#[must_use]
pub fn partitions() -> PartitionCount {
    match Choice::of_the_run() {
        Choice::Embedded => PartitionCount::default(),
        Choice::Pubsub | Choice::RedisStreams => "16".parse().expect("a power of two"),
    }
}

/// The backends of one stack, and the faults of what joins them.
#[derive(Debug)]
pub(crate) enum Backends {
    Embedded(MemoryFabric),
    External(Arc<External>),
}

impl Backends {
    pub(crate) async fn start(config: &LocalConfig) -> Self {
        match Choice::of_the_run() {
            Choice::Embedded => Self::Embedded(MemoryFabric::new(config.fabric.clone())),
            choice => Self::External(Arc::new(External::start(choice, config).await)),
        }
    }

    /// What a region's services stand on.
    pub(crate) async fn parts(&self, region: &Region) -> RegionParts {
        match self {
            Self::Embedded(fabric) => RegionParts::embedded(region, fabric),
            Self::External(external) => external.parts(region).await,
        }
    }

    pub(crate) fn set_cut(&self, a: &Region, b: &Region, cut: bool) {
        match self {
            Self::Embedded(fabric) if cut => fabric.cut(a.as_str(), b.as_str()),
            Self::Embedded(fabric) => fabric.heal(a.as_str(), b.as_str()),
            Self::External(external) => external.set_cut(a, b, cut),
        }
    }

    pub(crate) fn set_down(&self, region: &Region, down: bool) {
        match self {
            Self::Embedded(fabric) => fabric.set_down(region.as_str(), down),
            Self::External(external) => external.set_down(region, down),
        }
    }
}
