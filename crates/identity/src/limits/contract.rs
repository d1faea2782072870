//! What every backend of [`RateLimiter`] must do, case by case. Backends may be shared and may run on
//! the real clock, so periods are short and waits are as long as the backend says.

use std::{num::NonZeroU32, time::Duration};

use infrachat_types::SessionId;

use super::{Quota, RateLimiter, RetryAfter};

/// Makes a test of each case, on tokio's paused clock. `$make` is an expression that is awaited for a
/// fresh backend. A backend with a clock of its own calls the cases itself.
#[macro_export]
macro_rules! rate_limiter_contract {
    ($make:expr) => {
        $crate::rate_limiter_contract!(@ $make;
            a_quota_is_allowed_at_once_and_no_more,
            one_more_is_allowed_after_the_wait,
            a_refused_call_takes_nothing,
            keys_are_counted_apart,
            quotas_are_counted_apart,
            concurrent_calls_get_no_more_than_the_quota,
        );
    };
    (@ $make:expr; $($case:ident,)+) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $case() {
                $crate::limits::contract::$case(&$make.await).await;
            }
        )+
    };
}

fn quota(count: u32) -> Quota {
    Quota {
        count: NonZeroU32::new(count).expect("not zero"),
        period: Duration::from_secs(2),
    }
}

fn key() -> String {
    format!("key-{}", SessionId::random())
}

async fn exhaust(backend: &impl RateLimiter, key: &str, count: u32) -> RetryAfter {
    for _ in 0..count {
        let taken = backend.check(key, quota(count)).await;
        assert_eq!(taken, Ok(()), "within the quota");
    }
    let refused = backend.check(key, quota(count)).await;
    refused.expect_err("one more than the quota")
}

/// The whole quota may be used at once; the wait after it is that for one.
pub async fn a_quota_is_allowed_at_once_and_no_more(backend: &impl RateLimiter) {
    let RetryAfter(wait) = exhaust(backend, &key(), 4).await;
    assert!(!wait.is_zero() && wait <= quota(4).period / 4, "{wait:?}");
}

/// Whoever waits as told gets one.
pub async fn one_more_is_allowed_after_the_wait(backend: &impl RateLimiter) {
    let key = key();
    let RetryAfter(wait) = exhaust(backend, &key, 2).await;
    tokio::time::sleep(wait + Duration::from_millis(2)).await;
    assert_eq!(backend.check(&key, quota(2)).await, Ok(()));
    assert!(backend.check(&key, quota(2)).await.is_err());
}

/// Whoever asks too early is not put back for it.
pub async fn a_refused_call_takes_nothing(backend: &impl RateLimiter) {
    let key = key();
    let first = exhaust(backend, &key, 1).await;
    for _ in 0..10 {
        let again = backend.check(&key, quota(1)).await;
        assert!(again.expect_err("still too many").0 <= first.0);
    }
}

/// One key's use is not another's.
pub async fn keys_are_counted_apart(backend: &impl RateLimiter) {
    exhaust(backend, &key(), 1).await;
    assert_eq!(backend.check(&key(), quota(1)).await, Ok(()));
}

/// One quota's use is not another's.
pub async fn quotas_are_counted_apart(backend: &impl RateLimiter) {
    let key = key();
    exhaust(backend, &key, 1).await;
    assert_eq!(backend.check(&key, quota(3)).await, Ok(()));
}

/// Calls at the same time share the quota.
pub async fn concurrent_calls_get_no_more_than_the_quota(backend: &impl RateLimiter) {
    let key = key();
    let call = || backend.check(&key, quota(2));
    let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
    let allowed = [a, b, c, d].iter().filter(|taken| taken.is_ok()).count();
    assert_eq!(allowed, 2);
}
