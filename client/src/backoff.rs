//! How long to wait before trying again.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// "Full jitter": a wait chosen evenly between nothing and a bound that doubles at each attempt.
///
/// After Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog (2015): of the ways
/// compared there, it makes the fewest calls when many clients lose the same server at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub base: Duration,
    /// The bound that later waits don't exceed.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The wait before the attempt after `failures` failed ones.
    pub fn wait(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let bound = self
            .base
            .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
            .min(self.cap);
        bound.mul_f64(rng.random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn waits_stay_below_a_doubling_bound_and_use_all_of_it() {
        let backoff = Backoff::default();
        let mut rng = StdRng::seed_from_u64(7);
        for (failures, bound_ms) in [(1, 100), (2, 200), (5, 1_600), (8, 10_000), (60, 10_000)] {
            let bound = Duration::from_millis(bound_ms);
            let waits: Vec<_> = (0..500).map(|_| backoff.wait(failures, &mut rng)).collect();
            assert!(waits.iter().all(|wait| *wait <= bound), "{failures}");
            assert!(
                waits.iter().any(|wait| *wait > bound.mul_f64(0.9)),
                "{failures}"
            );
            assert!(
                waits.iter().any(|wait| *wait < bound.mul_f64(0.1)),
                "{failures}"
            );
        }
    }

    #[test]
    fn the_same_seed_waits_the_same() {
        let waits = || {
            let mut rng = StdRng::seed_from_u64(1);
            (1..9)
                .map(|n| Backoff::default().wait(n, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(), waits());
    }
}
