//! The emulator's own time, which can be moved forward: a retention of days or a deadline of minutes
//! is tried in no time.

use std::{
    ops::{Add, Sub},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;
use tokio::{sync::watch, time::Instant};

/// A point of the emulator's time: how long after its start, in whole microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

impl Moment {
    /// A number of seconds after the start.
    #[must_use]
    pub fn after_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// How long after `earlier`; zero if it isn't.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        let micros = u64::try_from(later.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    /// Stops at the start.
    fn sub(self, earlier: Duration) -> Self {
        let micros = u64::try_from(earlier.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

/// Tells the emulator's time. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Clock {
    began: Instant,
    /// The start as microseconds of the Unix epoch.
    epoch: u64,
    ahead: Arc<watch::Sender<Duration>>,
}

impl Clock {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
        Self {
            began: Instant::now(),
            epoch,
            ahead: Arc::new(watch::Sender::new(Duration::ZERO)),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::default() + self.began.elapsed() + *self.ahead.borrow()
    }

    /// Moves the time forward. Whoever sleeps until then wakes.
    pub fn advance(&self, by: Duration) {
        self.ahead
            .send_modify(|ahead| *ahead = ahead.saturating_add(by));
    }

    /// Resolves at that time; never for `None`.
    pub async fn sleep_until(&self, moment: Option<Moment>) {
        let Some(moment) = moment else {
            return std::future::pending().await;
        };
        let mut ahead = self.ahead.subscribe();
        loop {
            let left = moment.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                _ = ahead.changed() => {}
            }
        }
    }

    /// The wall clock's reading at that time.
    #[must_use]
    pub fn timestamp(&self, moment: Moment) -> Timestamp {
        let micros = self.epoch.saturating_add(moment.0);
        Timestamp {
            seconds: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
            nanos: i32::try_from(micros % 1_000_000).unwrap_or(0) * 1_000,
        }
    }

    /// The time at which the wall clock reads that; the start for anything before it.
    #[must_use]
    pub fn moment(&self, timestamp: &Timestamp) -> Moment {
        let seconds = u64::try_from(timestamp.seconds).unwrap_or(0);
        let micros = u64::try_from(timestamp.nanos).unwrap_or(0).div_ceil(1_000);
        Moment(
            seconds
                .saturating_mul(1_000_000)
                .saturating_add(micros)
                .saturating_sub(self.epoch),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn advancing_wakes_who_sleeps_until_then() {
        let clock = Clock::start();
        let week = Duration::from_secs(7 * 24 * 3600);
        let wake = clock.now() + week;
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(Some(wake)).await }
        });
        let began = Instant::now();
        clock.advance(week);
        sleeper.await.expect("the sleeper doesn't panic");
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn timestamps_and_moments_convert_both_ways() {
        let clock = Clock::start();
        let moment = Moment::after_seconds(12) + Duration::from_micros(345);
        assert_eq!(clock.moment(&clock.timestamp(moment)), moment);
    }
}
