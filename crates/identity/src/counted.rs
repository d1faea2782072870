//! What is counted of sign-ins: names in one place, and handles that are made once.

use std::sync::LazyLock;

use metrics::{Counter, Histogram, counter, histogram};

const HASH_SECONDS: &str = "infrachat_password_hash_seconds";
const KEY_FETCHES: &str = "infrachat_key_fetches_total";
const FALLBACKS: &str = "infrachat_rate_limit_fallbacks_total";

/// How long passwords took to be hashed.
pub(crate) static HASHED: LazyLock<Histogram> = LazyLock::new(|| histogram!(HASH_SECONDS));

/// Limits that were decided in process.
pub(crate) static FALLEN_BACK: LazyLock<Counter> = LazyLock::new(|| counter!(FALLBACKS));

/// Fetches of public keys.
pub(crate) struct KeyFetches {
    pub(crate) ok: Counter,
    pub(crate) failed: Counter,
}

pub(crate) static KEYS_FETCHED: LazyLock<KeyFetches> = LazyLock::new(|| KeyFetches {
    ok: counter!(KEY_FETCHES, "outcome" => "ok"),
    failed: counter!(KEY_FETCHES, "outcome" => "failed"),
});
