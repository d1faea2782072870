//! What can go wrong, decided by dice with a seed.

use std::{ops::Range, time::Duration};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// What goes wrong, each with a probability from 0 to 1. The order within a key always holds.
///
/// The same seed gives the same faults to the same sequence of calls, as in a single-threaded
/// runtime with paused time.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// Where the dice start.
    pub seed: u64,
    /// An accepted event is kept twice, as after a publisher's own retry.
    pub duplicate: f64,
    /// An acknowledgement is lost: the event and the later ones of its key are delivered again.
    /// Below 1, or nothing is ever done.
    pub redeliver: f64,
    /// How long an event takes, at random: so keys overtake each other, events of one key don't.
    pub delay: Range<Duration>,
    /// An event is accepted and the publisher told that it is unknown.
    pub lose_publish_reply: f64,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self {
            seed: 0,
            duplicate: 0.0,
            redeliver: 0.0,
            delay: Duration::ZERO..Duration::ZERO,
            lose_publish_reply: 0.0,
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

pub(super) struct Dice(Mutex<StdRng>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    pub(super) fn restart(&self, seed: u64) {
        *self.0.lock() = StdRng::seed_from_u64(seed);
    }

    pub(super) fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.0.lock().random::<f64>() < probability
    }

    pub(super) fn within(&self, range: &Range<Duration>) -> Duration {
        if range.is_empty() {
            range.start
        } else {
            self.0.lock().random_range(range.clone())
        }
    }
}
