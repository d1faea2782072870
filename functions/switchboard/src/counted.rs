//! What Switchboard counts: names in one place, and handles that are made once.

use std::sync::LazyLock;

use infrachat_types::ErrorCode;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

const RESOLVES: &str = "infrachat_resolves_total";
const RESOLVE_SECONDS: &str = "infrachat_resolve_seconds";
const VERIFICATIONS: &str = "infrachat_token_verifications_total";
const PARTITIONS: &str = "infrachat_partitions";
const ROUTES_AGE: &str = "infrachat_routes_age_seconds";
const SHARDS: &str = "infrachat_shards";

/// Everything.
pub(crate) struct Counted {
    pub(crate) resolved: Counter,
    pub(crate) no_owner: Counter,
    pub(crate) refused: Counter,
    pub(crate) unavailable: Counter,
    pub(crate) resolve_seconds: Histogram,
    verified: Counter,
    unauthenticated: Counter,
    expired: Counter,
    revoked: Counter,
    keys_unavailable: Counter,
    pub(crate) partitions: Gauge,
    pub(crate) routes_age: Gauge,
    pub(crate) active: Gauge,
    pub(crate) draining: Gauge,
    pub(crate) suspect: Gauge,
}

pub(crate) static COUNTED: LazyLock<Counted> = LazyLock::new(|| {
    let resolve = |outcome: &'static str| counter!(RESOLVES, "outcome" => outcome);
    let verification = |outcome: &'static str| counter!(VERIFICATIONS, "outcome" => outcome);
    let shards = |state: &'static str| gauge!(SHARDS, "state" => state);
    Counted {
        resolved: resolve("ok"),
        no_owner: resolve("no_owner"),
        refused: resolve("refused"),
        unavailable: resolve("unavailable"),
        resolve_seconds: histogram!(RESOLVE_SECONDS),
        verified: verification("ok"),
        unauthenticated: verification("unauthenticated"),
        expired: verification("token_expired"),
        revoked: verification("token_revoked"),
        keys_unavailable: verification("keys_unavailable"),
        partitions: gauge!(PARTITIONS),
        routes_age: gauge!(ROUTES_AGE),
        active: shards("active"),
        draining: shards("draining"),
        suspect: shards("suspect"),
    }
});

impl Counted {
    /// A token was checked, and was good, or was refused for this reason.
    pub(crate) fn verification(&self, refusal: Option<ErrorCode>) {
        let counter = match refusal {
            None => &self.verified,
            Some(ErrorCode::TokenExpired) => &self.expired,
            Some(ErrorCode::TokenRevoked) => &self.revoked,
            Some(ErrorCode::Unavailable) => &self.keys_unavailable,
            Some(_) => &self.unauthenticated,
        };
        counter.increment(1);
    }
}
