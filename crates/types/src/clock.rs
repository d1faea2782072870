//! The hybrid logical clock that message ids come from.
//!
//! After Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally Distributed
//! Databases" (2014), with a ULID's layout: the milliseconds are the physical part, and an id that
//! must be above another in the same millisecond is that one plus one.

use std::{fmt, sync::Arc, time::Duration};

use crate::{MessageId, UnixMillis, unix_millis};

/// How far ahead of this clock an id may be that a client names as its last: more is refused, so
/// that one wrong clock can't drag a channel into the future.
pub const MAX_CLOCK_DRIFT: Duration = Duration::from_secs(10);

/// A wall clock that is handed to who needs one: the system's, or one that a simulation makes up.
#[derive(Clone, Default)]
pub struct WallClock(Option<Arc<dyn Fn() -> UnixMillis + Send + Sync>>);

impl WallClock {
    /// One that goes as it is told.
    pub fn new(now: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        self.0.as_ref().map_or_else(unix_millis, |now| now())
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallClock").finish_non_exhaustive()
    }
}

/// Why no id could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The id to be above is too far in the future.
    #[error("message id {after} is {ahead_ms} ms ahead of this shard's clock; at most {} ms are allowed", MAX_CLOCK_DRIFT.as_millis())]
    TooFarAhead {
        /// The id.
        after: MessageId,
        /// By how much.
        ahead_ms: u64,
    },
}

/// Makes ids that always rise, and stay near the wall clock.
#[derive(Debug)]
pub struct IdClock {
    last: MessageId,
}

impl Default for IdClock {
    fn default() -> Self {
        Self {
            last: MessageId::MIN,
        }
    }
}

impl IdClock {
    /// The next id: above all made before, and above `after`.
    ///
    /// # Errors
    /// When `after` is further ahead of `now_ms` than [`MAX_CLOCK_DRIFT`].
    pub fn next(&mut self, now_ms: u64, after: Option<MessageId>) -> Result<MessageId, ClockError> {
        let floor = match after {
            Some(after) => {
                let ahead_ms = after.millis().saturating_sub(now_ms);
                if u128::from(ahead_ms) > MAX_CLOCK_DRIFT.as_millis() {
                    return Err(ClockError::TooFarAhead { after, ahead_ms });
                }
                after.max(self.last)
            }
            None => self.last,
        };
        let fresh = MessageId::from_parts(now_ms, rand::random());
        self.last = if fresh.millis() > floor.millis() {
            fresh
        } else {
            floor.next().max(fresh)
        };
        Ok(self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_from_the_far_future_is_refused_and_changes_nothing() {
        let mut clock = IdClock::default();
        let before = clock.next(1_000, None).expect("an id");
        let drift = u64::try_from(MAX_CLOCK_DRIFT.as_millis()).expect("small");
        let far = MessageId::floor_of(1_000 + drift + 1);
        assert!(clock.next(1_000, Some(far)).is_err());
        let after = clock.next(1_000, None).expect("an id");
        assert!(after > before && after.millis() == 1_000);
    }

    proptest! {
        #[test]
        fn ids_rise_whatever_the_wall_clock_does(
            steps in prop::collection::vec((0_u64..50_000, prop::option::of(0_u64..5_000)), 1..60)
        ) {
            let mut clock = IdClock::default();
            let mut last = MessageId::MIN;
            for (now, ahead) in steps {
                let after = ahead.map(|ahead| MessageId::floor_of(now + ahead));
                let id = clock.next(now, after).expect("within the drift");
                prop_assert!(id > last);
                prop_assert!(after.is_none_or(|after| id > after));
                last = id;
            }
        }
    }
}
