//! What is counted of sign-ins: names in one place, and handles that are made once.

use std::{fmt, sync::LazyLock};

use infrachat_types::ErrorCode;
use metrics::{Counter, Histogram, counter, histogram};

const HASH_SECONDS: &str = "infrachat_password_hash_seconds";
const KEY_FETCHES: &str = "infrachat_key_fetches_total";
const FALLBACKS: &str = "infrachat_rate_limit_fallbacks_total";
const VERIFICATIONS: &str = "infrachat_token_verifications_total";

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

/// Access tokens that were checked, by what they were found to be.
pub struct Verifications {
    ok: Counter,
    unauthenticated: Counter,
    expired: Counter,
    revoked: Counter,
    keys_unavailable: Counter,
}

impl Verifications {
    /// A token was good, or was refused for this reason.
    pub fn count(&self, refusal: Option<ErrorCode>) {
        let counter = match refusal {
            None => &self.ok,
            Some(ErrorCode::TokenExpired) => &self.expired,
            Some(ErrorCode::TokenRevoked) => &self.revoked,
            Some(ErrorCode::Unavailable) => &self.keys_unavailable,
            Some(_) => &self.unauthenticated,
        };
        counter.increment(1);
    }
}

impl Default for Verifications {
    /// Seen from now on, at 0.
    fn default() -> Self {
        let outcome = |outcome: &'static str| counter!(VERIFICATIONS, "outcome" => outcome);
        Self {
            ok: outcome("ok"),
            unauthenticated: outcome("unauthenticated"),
            expired: outcome("token_expired"),
            revoked: outcome("token_revoked"),
            keys_unavailable: outcome("keys_unavailable"),
        }
    }
}

impl fmt::Debug for Verifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifications").finish_non_exhaustive()
    }
}
