//! What a local stack looks like.

use std::num::NonZeroU32;

use infrachat_bus::FabricConfig;
use infrachat_identity::SigningKey;
use infrachat_routing::PartitionCount;
use infrachat_shard::Tuning;
use infrachat_types::{Region, WallClock};

/// Where the services of a region listen; 0 picks a free port.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    /// Gatekeeper.
    pub gatekeeper: u16,
    /// Switchboard.
    pub switchboard: u16,
    /// The shards: as many as there are ports.
    pub shards: Vec<u16>,
}

/// A region.
#[derive(Debug, Clone)]
pub struct RegionConfig {
    /// Its name.
    pub region: Region,
    /// Its ports.
    pub ports: Ports,
    /// The clock that its shards go by.
    pub clock: WallClock,
}

/// A local stack.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Its regions.
    pub regions: Vec<RegionConfig>,
    /// The address all services listen on.
    pub host: String,
    /// The bus between them.
    pub fabric: FabricConfig,
    /// Partitions of the deployment.
    pub partitions: PartitionCount,
    /// The shards' sizes, limits and times.
    pub tuning: Tuning,
    /// The key that every Gatekeeper signs with; none: each makes its own.
    pub signing_key: Option<SigningKey>,
    /// Registrations a minute from one address.
    pub registrations_per_minute: NonZeroU32,
    /// Sign-ins a minute from one address.
    pub sign_ins_per_minute: NonZeroU32,
}

impl LocalConfig {
    /// Two regions of two shards each, as production has them, on the given ports.
    ///
    /// Everyone comes from the same address here, so that the limits an address has are high.
    #[must_use]
    pub fn two_regions(regions: Vec<RegionConfig>) -> Self {
        let many = NonZeroU32::new(100_000).unwrap_or(NonZeroU32::MAX);
        Self {
            regions,
            host: "127.0.0.1".to_owned(),
            fabric: FabricConfig::default(),
            partitions: PartitionCount::default(),
            tuning: Tuning::default(),
            signing_key: None,
            registrations_per_minute: many,
            sign_ins_per_minute: many,
        }
    }
}
