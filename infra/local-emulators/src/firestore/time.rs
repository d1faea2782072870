//! Instants, to the microsecond as Firestore keeps them, and the clock that orders commits.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;

use super::error::{Error, Result};

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Time(i64);

impl Time {
    pub(super) const MIN: Self = Self(i64::MIN);

    /// The start of its millisecond: what a server timestamp in a document holds.
    pub(super) fn to_millisecond(self) -> Self {
        Self(self.0.div_euclid(1_000) * 1_000)
    }

    pub(super) fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    pub(super) fn micros(self) -> i64 {
        self.0
    }

    pub(super) fn from_micros(micros: i64) -> Self {
        Self(micros)
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        Timestamp {
            seconds: time.0.div_euclid(1_000_000),
            nanos: (time.0.rem_euclid(1_000_000) * 1_000) as i32,
        }
    }
}

impl TryFrom<Timestamp> for Time {
    type Error = Error;

    /// Rounds down to the microsecond.
    fn try_from(timestamp: Timestamp) -> Result<Self> {
        if !SECONDS.contains(&timestamp.seconds) || !(0..1_000_000_000).contains(&timestamp.nanos) {
            return Err(Error::invalid(format!(
                "Invalid timestamp: seconds {}, nanos {}.",
                timestamp.seconds, timestamp.nanos
            )));
        }
        Ok(Self(
            timestamp.seconds * 1_000_000 + i64::from(timestamp.nanos) / 1_000,
        ))
    }
}

/// The system's clock, made to rise: every commit is later than each commit and each read before it.
#[derive(Debug)]
pub(super) struct Clock {
    last: AtomicI64,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            last: AtomicI64::new(i64::MIN),
        }
    }

    /// The time of a read. No later commit shares it.
    pub(super) fn read_time(&self) -> Time {
        let now = system_micros();
        Time(self.last.fetch_max(now, Ordering::SeqCst).max(now))
    }

    /// The time of a commit, which no one has seen before.
    pub(super) fn commit_time(&self) -> Time {
        let now = system_micros();
        let next = |last: i64| Some(now.max(last.saturating_add(1)));
        match self
            .last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
        {
            Ok(last) | Err(last) => Time(now.max(last.saturating_add(1))),
        }
    }
}

fn system_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, micros)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_later_than_every_read_and_commit_before_it() {
        let clock = Clock::new();
        let mut last = Time::MIN;
        for _ in 0..1_000 {
            let read = clock.read_time();
            assert!(read >= last);
            let commit = clock.commit_time();
            assert!(commit > read);
            last = commit;
        }
    }

    #[test]
    fn timestamps_round_down_to_microseconds() {
        let time = Time::try_from(Timestamp {
            seconds: -1,
            nanos: 999_999_999,
        })
        .expect("in range");
        assert_eq!(
            Timestamp::from(time),
            Timestamp {
                seconds: -1,
                nanos: 999_999_000
            }
        );
        let year_10000 = Timestamp {
            seconds: 253_402_300_800,
            nanos: 0,
        };
        assert!(Time::try_from(year_10000).is_err());
    }
}
