//! How fast a session's frames are read.
//!
//! Each costs the shard something, also one that is refused. Beyond what a session may send, frames are
//! not refused, since a refusal would cost as much: they wait where they are, and so in the end does the
//! client.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock as _,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use infrachat_identity::TokioClock;
use tokio::time::Instant;

use crate::config::Tuning;

/// A limit of one session's.
pub(super) type Limiter =
    RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// So much a second, and so much at once.
pub(super) fn limiter(a_second: u32, at_once: u32) -> Limiter {
    let one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_second(one(a_second)).allow_burst(one(at_once));
    RateLimiter::direct_with_clock(quota, TokioClock::default())
}

/// When a session's next frame may be read.
#[derive(Debug)]
pub(super) struct Pace {
    limiter: Limiter,
    /// Until then the last frame was too many.
    closed_until: Option<Instant>,
}

impl Pace {
    /// A second's worth may come at once, and what it takes to leave all channels and join as many.
    pub(super) fn new(tuning: &Tuning) -> Self {
        let moves = u32::try_from(tuning.max_channels).unwrap_or(u32::MAX);
        let a_second = tuning.frames_per_second;
        let at_once = a_second.saturating_add(moves.saturating_mul(2));
        Self {
            limiter: limiter(a_second, at_once),
            closed_until: None,
        }
    }

    /// Counts a frame that was read. If it was too many, answers until when no other may be; then it is to
    /// be counted again.
    pub(super) fn count(&mut self) -> Option<Instant> {
        let early = self.limiter.check().err();
        self.closed_until = early.map(|early| {
            let wait = early.wait_time_from(self.limiter.clock().now());
            Instant::now() + wait
        });
        self.closed_until
    }

    /// Until when none may be read; none: one may be read now.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        self.closed_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 10;
    const CHANNELS: usize = 5;
    const AT_ONCE: u32 = 20;

    fn pace() -> Pace {
        Pace::new(&Tuning {
            frames_per_second: RATE,
            max_channels: CHANNELS,
            ..Tuning::default()
        })
    }

    /// How many frames are read at once.
    fn at_once(pace: &mut Pace) -> u32 {
        let mut read = 0;
        while pace.closed_until().is_none() {
            pace.count();
            read += 1;
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_no_faster_than_agreed() {
        let mut pace = pace();
        // The last one is read before it is known to be too many.
        assert_eq!(at_once(&mut pace), AT_ONCE + 1);
        let (began, mut read) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(60) {
            let until = pace.closed_until().expect("too many");
            tokio::time::sleep_until(until).await;
            pace.count();
            read += at_once(&mut pace);
        }
        assert_eq!(read, 60 * RATE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_sent_may_be_sent_later() {
        let mut pace = pace();
        at_once(&mut pace);
        tokio::time::sleep(Duration::from_secs(60)).await;
        pace.count();
        // The one that was too many has been counted.
        assert_eq!(at_once(&mut pace), AT_ONCE);
    }
}
