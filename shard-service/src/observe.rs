//! Tells the gauges, every so often, how things stand: nothing on a message's way counts for them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use infrachat_types::{UnixMillis, WallClock};

use crate::{counted::COUNTED, parts::Parts};

const EVERY: Duration = Duration::from_secs(2);
/// Over how many observations the relay's lag is a mean: ten seconds.
const LAG_WINDOW: u32 = 5;

/// How old messages are when they reach a log.
#[derive(Debug)]
pub(crate) struct Lag {
    clock: WallClock,
    millis: AtomicU64,
    messages: AtomicU64,
}

impl Lag {
    pub(crate) fn new(clock: WallClock) -> Self {
        Self {
            clock,
            millis: AtomicU64::default(),
            messages: AtomicU64::default(),
        }
    }

    pub(crate) fn add(&self, published_at: UnixMillis) {
        let age = u64::try_from(self.clock.now().saturating_sub(published_at)).unwrap_or_default();
        self.millis.fetch_add(age, Ordering::Relaxed);
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// The mean in seconds since it was last asked; 0 without messages.
    fn mean(&self) -> f64 {
        let millis = self.millis.swap(0, Ordering::Relaxed);
        let messages = self.messages.swap(0, Ordering::Relaxed);
        millis as f64 / 1_000.0 / messages.max(1) as f64
    }
}

/// Observes for ever.
pub(crate) async fn observe(parts: &Parts) {
    COUNTED.sessions_max.set(parts.tuning.max_sessions as f64);
    COUNTED.partitions.set(parts.partition_count.get());
    let budget = &parts.history_budget;
    COUNTED.backlog_max.set(budget.limit() as f64);
    for round in 0_u32.. {
        COUNTED.sessions.set(parts.sessions.count() as f64);
        let partitions = parts.partitions.all();
        COUNTED.partitions_owned.set(partitions.len() as f64);
        let (mut channels, mut lag) = (0, 0);
        for channel in partitions.iter().flat_map(|partition| partition.loaded()) {
            channels += 1;
            lag = channel.lag().max(lag);
        }
        COUNTED.channels.set(f64::from(channels));
        COUNTED.log_lag.set(lag as f64);
        COUNTED.backlog_messages.set(budget.messages() as f64);
        COUNTED.backlog_bytes.set(budget.bytes() as f64);
        if round % LAG_WINDOW == 0 {
            COUNTED.relay_lag.set(parts.lag.mean());
        }
        tokio::time::sleep(EVERY).await;
    }
}
