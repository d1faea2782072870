//! What can be set.

use std::{num::ParseIntError, time::Duration};

use clap::Args;
use infrachat_routing::PartitionCount;

/// What can be set, by flag or environment.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Where to listen, "host:port"; port 0 picks a free one.
    #[arg(long, env = "INFRACHAT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: String,
    /// How many partitions the deployment has: a power of two, the same everywhere, set once.
    #[arg(long, env = "INFRACHAT_PARTITIONS", default_value_t)]
    pub partitions: PartitionCount,
    /// How long a lease is good without being renewed, milliseconds; the same everywhere.
    #[arg(long = "lease-ttl-ms", env = "INFRACHAT_LEASE_TTL_MS", default_value = "4000", value_parser = millis)]
    pub lease_ttl: Duration,
    /// How old the routes may be that are served while the store is read for them, since it can't be
    /// followed, milliseconds.
    #[arg(long = "refresh-ms", env = "INFRACHAT_REFRESH_MS", default_value = "250", value_parser = millis)]
    pub refresh: Duration,
    /// How often each shard of the region is probed, milliseconds. One that misses three probes in a
    /// row is counted out. 0 probes none.
    #[arg(long = "probe-interval-ms", env = "INFRACHAT_PROBE_INTERVAL_MS", default_value = "1000", value_parser = millis)]
    pub probe_interval: Duration,
}

impl Default for Config {
    /// As without any flag, but on a free port.
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            partitions: PartitionCount::default(),
            lease_ttl: Duration::from_secs(4),
            refresh: Duration::from_millis(250),
            probe_interval: Duration::from_secs(1),
        }
    }
}

fn millis(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_millis)
}
