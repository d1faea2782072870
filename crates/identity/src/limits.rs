//! Rate limits.

#[cfg(feature = "contract")]
pub mod contract;
mod fallback;
mod memory;
mod redis;

use std::{fmt, num::NonZeroU32, time::Duration};

use async_trait::async_trait;

pub use fallback::FallbackLimiter;
pub use memory::{MemoryLimiter, TokioClock};
pub use redis::{LimitsUnavailable, RedisLimiter};

/// How much is allowed: this many at once, and again as many over each period, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many.
    pub count: NonZeroU32,
    /// In how long. At least a millisecond for each.
    pub period: Duration,
}

impl Quota {
    /// So many a minute.
    #[must_use]
    pub fn per_minute(count: NonZeroU32) -> Self {
        Self {
            count,
            period: Duration::from_secs(60),
        }
    }
}

/// It was one too many: the next is allowed after this wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests: wait {} s", .0.as_secs().saturating_add(1))]
pub struct RetryAfter(pub Duration);

/// Limits how often something happens, by key (generic cell rate algorithm).
///
/// A key's limits hold over all processes that share the backend. A backend that can't reach what it
/// shares decides by itself, in process; it neither fails nor lets everything pass.
#[async_trait]
pub trait RateLimiter: fmt::Debug + Send + Sync + 'static {
    /// Takes one of the key's quota, or says how long to wait. A refused call takes nothing. The
    /// same key with another quota is counted apart.
    async fn check(&self, key: &str, quota: Quota) -> Result<(), RetryAfter>;
}
