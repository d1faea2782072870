//! Shared limits while they can be asked, and stricter ones in process while not.

use std::{
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{LimitsUnavailable, MemoryLimiter, Quota, RateLimiter, RedisLimiter, RetryAfter};
use crate::counted::FALLEN_BACK;

/// How long the shared limits are left alone after they failed, so that not every caller waits for
/// them.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks the shared limits; while these are away, decides in this process, by a part of each quota.
///
/// At most one caller at a time finds out whether they are back; the others don't wait for it.
#[derive(Debug)]
pub struct FallbackLimiter {
    shared: RedisLimiter,
    local: MemoryLimiter,
    parts: NonZeroU32,
    /// When the shared limits may be asked again; `None` while they answer.
    away_until: Mutex<Option<Instant>>,
}

impl FallbackLimiter {
    /// While the shared limits are away, each process allows one part of every quota, of so many,
    /// and at least one: with as many parts as there are processes, all together allow no more than
    /// before.
    #[must_use]
    pub fn new(shared: RedisLimiter, parts: NonZeroU32) -> Self {
        // Seen from the start on, at 0.
        FALLEN_BACK.increment(0);
        Self {
            shared,
            local: MemoryLimiter::new(),
            parts,
            away_until: Mutex::default(),
        }
    }

    fn away_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this caller asks the shared limits. When they were away it does so for all others.
    fn may_ask(&self) -> bool {
        let mut away_until = self.away_until();
        match *away_until {
            None => true,
            Some(until) if until > Instant::now() => false,
            Some(_) => {
                *away_until = Some(Instant::now() + PAUSE);
                true
            }
        }
    }

    fn are_back(&self) {
        if self.away_until().take().is_some() {
            tracing::info!("rate limits are shared again");
        }
    }

    fn are_away(&self, why: &LimitsUnavailable) {
        let before = self.away_until().replace(Instant::now() + PAUSE);
        if before.is_none() {
            tracing::warn!(%why, "rate limits are stricter, and of this process only");
        }
    }

    fn stricter(&self, quota: Quota) -> Quota {
        let count = NonZeroU32::new(quota.count.get() / self.parts);
        Quota {
            count: count.unwrap_or(NonZeroU32::MIN),
            ..quota
        }
    }
}

#[async_trait]
impl RateLimiter for FallbackLimiter {
    async fn check(&self, key: &str, quota: Quota) -> Result<(), RetryAfter> {
        if self.may_ask() {
            match self.shared.check(key, quota).await {
                Ok(answer) => {
                    self.are_back();
                    return answer;
                }
                Err(err) => self.are_away(&err),
            }
        }
        FALLEN_BACK.increment(1);
        self.local.check(key, self.stricter(quota)).await
    }
}
