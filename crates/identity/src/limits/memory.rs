//! Rate limits in this process.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use governor::{clock::Clock, middleware::NoOpMiddleware, state::keyed::DefaultKeyedStateStore};
use tokio::time::Instant;

use super::{Quota, RateLimiter, RetryAfter};

/// Below this many keys, idle ones are not looked for.
const KEEP: usize = 4096;

/// Limits within one process. Keys that are as good as fresh are dropped as their number grows, so
/// memory follows the keys in use.
#[derive(Debug)]
pub struct MemoryLimiter {
    clock: TokioClock,
    buckets: Mutex<HashMap<Quota, Arc<Buckets>>>,
}

impl Default for MemoryLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLimiter {
    /// With every key fresh.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: TokioClock::default(),
            buckets: Mutex::default(),
        }
    }

    /// Each quota has its own, and there are only a few quotas.
    fn buckets(&self, quota: Quota) -> Arc<Buckets> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Buckets::new(quota, self.clock.clone()));
        Arc::clone(buckets.entry(quota).or_insert_with(fresh))
    }
}

#[async_trait]
impl RateLimiter for MemoryLimiter {
    async fn check(&self, key: &str, quota: Quota) -> Result<(), RetryAfter> {
        self.buckets(quota).check(key, &self.clock)
    }
}

#[derive(Debug)]
struct Buckets {
    limiter: governor::RateLimiter<
        String,
        DefaultKeyedStateStore<String>,
        TokioClock,
        NoOpMiddleware<Duration>,
    >,
    /// The number of keys at which to look for idle ones again.
    shrink_at: AtomicUsize,
}

impl Buckets {
    fn new(quota: Quota, clock: TokioClock) -> Self {
        let each = (quota.period / quota.count.get()).max(Duration::from_millis(1));
        let quota = governor::Quota::with_period(each)
            .unwrap_or(governor::Quota::per_second(quota.count))
            .allow_burst(quota.count);
        Self {
            limiter: governor::RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock),
            shrink_at: AtomicUsize::new(KEEP),
        }
    }

    fn check(&self, key: &str, clock: &TokioClock) -> Result<(), RetryAfter> {
        let checked = self.limiter.check_key(&key.to_owned());
        if self.limiter.len() > self.shrink_at.load(Ordering::Relaxed) {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            let next = self.limiter.len().saturating_mul(2).max(KEEP);
            self.shrink_at.store(next, Ordering::Relaxed);
        }
        checked.map_err(|refused| RetryAfter(refused.wait_time_from(clock.now())))
    }
}

/// Tokio's clock for limits of the crate `governor`: unlike that crate's own, tests can stop it.
#[derive(Debug, Clone)]
pub struct TokioClock(Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_keys_are_dropped() {
        let limiter = MemoryLimiter::new();
        let quota = Quota::per_minute(NonZeroU32::new(5).expect("not zero"));
        let fill = async |prefix: &str| {
            for key in 0..KEEP {
                let taken = limiter.check(&format!("{prefix}{key}"), quota).await;
                assert!(taken.is_ok());
            }
        };
        fill("old").await;
        tokio::time::advance(Duration::from_secs(120)).await;
        fill("new").await;
        let kept = limiter.buckets(quota).limiter.len();
        assert!(kept <= KEEP + 1, "{kept} keys are kept");
    }
}
