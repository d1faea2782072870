//! What Switchboard counts: names in one place, and handles that are made once.

use std::sync::LazyLock;

use infrachat_identity::Verifications;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

const RESOLVES: &str = "infrachat_resolves_total";
const RESOLVE_SECONDS: &str = "infrachat_resolve_seconds";
const PARTITIONS: &str = "infrachat_partitions";
const ROUTES_AGE: &str = "infrachat_routes_age_seconds";
const SHARDS: &str = "infrachat_shards";
const PROBES: &str = "infrachat_probes_total";
const PROBER_LOST: &str = "infrachat_prober_lost";

/// Everything.
pub(crate) struct Counted {
    pub(crate) resolved: Counter,
    pub(crate) no_owner: Counter,
    pub(crate) refused: Counter,
    pub(crate) unavailable: Counter,
    pub(crate) resolve_seconds: Histogram,
    pub(crate) verifications: Verifications,
    pub(crate) partitions: Gauge,
    pub(crate) routes_age: Gauge,
    pub(crate) active: Gauge,
    pub(crate) draining: Gauge,
    pub(crate) suspect: Gauge,
    pub(crate) answered: Counter,
    pub(crate) missed: Counter,
    /// 1 while it reaches too few shards to count any out.
    pub(crate) prober_lost: Gauge,
}

pub(crate) static COUNTED: LazyLock<Counted> = LazyLock::new(|| {
    let resolve = |outcome: &'static str| counter!(RESOLVES, "outcome" => outcome);
    let shards = |state: &'static str| gauge!(SHARDS, "state" => state);
    let probe = |outcome: &'static str| counter!(PROBES, "outcome" => outcome);
    Counted {
        resolved: resolve("ok"),
        no_owner: resolve("no_owner"),
        refused: resolve("refused"),
        unavailable: resolve("unavailable"),
        resolve_seconds: histogram!(RESOLVE_SECONDS),
        verifications: Verifications::default(),
        partitions: gauge!(PARTITIONS),
        routes_age: gauge!(ROUTES_AGE),
        active: shards("active"),
        draining: shards("draining"),
        suspect: shards("suspect"),
        answered: probe("answered"),
        missed: probe("missed"),
        prober_lost: gauge!(PROBER_LOST),
    }
});
