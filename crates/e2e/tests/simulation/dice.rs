//! Every choice of a run, from its seed.

use std::time::Duration;

use infrachat_bus::Faults;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Chooses.
#[derive(Debug)]
pub(crate) struct Dice(StdRng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Others, so that who throws them changes nothing for who throws these.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.0.random())
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.random_range(from..to))
    }

    pub(crate) fn within(&mut self, from: Duration, to: Duration) -> Duration {
        self.0.random_range(from..to)
    }

    pub(crate) fn of(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    /// How far a clock is off, in milliseconds.
    pub(crate) fn skew(&mut self, most: Duration) -> i64 {
        let most = i64::try_from(most.as_millis()).expect("seconds");
        self.0.random_range(-most..=most)
    }

    /// What is wrong with the bus all the time.
    pub(crate) fn bus_faults(&mut self) -> Faults {
        Faults {
            seed: self.0.random(),
            duplicate: self.0.random_range(0.0..0.1),
            redeliver: self.0.random_range(0.0..0.1),
            delay: Duration::ZERO..self.millis(1, 100),
            lose_publish_reply: self.0.random_range(0.0..0.05),
        }
    }
}
