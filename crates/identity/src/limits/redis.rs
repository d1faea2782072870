//! Rate limits in Redis or Valkey, by the server's clock.

use std::{fmt, time::Duration};

use infrachat_redis_link::{RedisLink, RedisTarget};
use redis::Script;

use super::{Quota, RetryAfter};
use crate::REDIS_PATIENCE;

/// The key; the time for one, in microseconds, and how many at once. Answers how long to wait, in
/// microseconds, 0 when it is allowed.
///
/// What is kept is the time at which the whole quota is there again, for as long as it lies ahead.
const TAKE: &str = r"
local each, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + each
local wait = full_at - each * count - now
if wait > 0 then return wait end
local lives = math.ceil((full_at - now) / 1000)
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', lives)
return 0
";

/// The limits can't be asked at this moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rate limits are unavailable: {0}")]
pub struct LimitsUnavailable(pub String);

/// Limits that all processes share which use the same Redis and prefix.
///
/// It only says so when Redis is away: [`FallbackLimiter`](super::FallbackLimiter) is the
/// [`RateLimiter`](super::RateLimiter) that then decides by itself.
pub struct RedisLimiter {
    link: RedisLink,
    prefix: String,
    take: Script,
}

impl RedisLimiter {
    /// Limits in a Redis, under keys that start with the prefix. It connects by itself, at the first
    /// call and after every loss, and needs no Redis to be there yet.
    #[must_use]
    pub fn new(redis: &RedisTarget, prefix: &str) -> Self {
        Self {
            link: RedisLink::new(redis, REDIS_PATIENCE, "limits"),
            prefix: prefix.to_owned(),
            take: Script::new(TAKE),
        }
    }

    /// Takes one of the key's quota, or says how long to wait. A refused call takes nothing. The
    /// same key with another quota is counted apart.
    ///
    /// # Errors
    /// When Redis does not answer within half a second; the call may have been counted.
    pub async fn check(
        &self,
        key: &str,
        quota: Quota,
    ) -> Result<Result<(), RetryAfter>, LimitsUnavailable> {
        let (count, period) = (quota.count.get(), quota.period);
        let each = (period / count).max(Duration::from_millis(1)).as_micros();
        let each = u64::try_from(each).unwrap_or(u64::MAX);
        let mut call = self.take.key(format!(
            "{}:limit:{count}/{}:{key}",
            self.prefix,
            period.as_millis()
        ));
        call.arg(each).arg(count);
        let mut link = self.link.clone();
        let answer = self.link.in_time(call.invoke_async(&mut link)).await;
        let wait: u64 = answer.map_err(|err| LimitsUnavailable(err.to_string()))?;
        Ok(match wait {
            0 => Ok(()),
            wait => Err(RetryAfter(Duration::from_micros(wait))),
        })
    }
}

impl fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLimiter")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
