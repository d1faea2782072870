//! Tells the gauges, every so often, how things stand: nothing on a message's way counts for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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

/// What a shard holds at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Open sessions.
    pub sessions: usize,
    /// Partitions served.
    pub partitions: usize,
    /// Channels with a log in memory.
    pub channels: usize,
    /// The most that a reader is behind.
    pub log_lag: u64,
    /// Messages that history does not have yet.
    pub backlog_messages: usize,
    /// Their bytes.
    pub backlog_bytes: usize,
    /// Bytes that it holds, of those that it may.
    pub memory_bytes: usize,
}

impl Standing {
    fn of(parts: &Parts) -> Self {
        let partitions = parts.partitions.all();
        let mut standing = Self {
            sessions: parts.sessions.count(),
            partitions: partitions.len(),
            backlog_messages: parts.history_budget.messages(),
            backlog_bytes: parts.history_budget.bytes(),
            memory_bytes: parts.memory.used(),
            ..Self::default()
        };
        for channel in partitions.iter().flat_map(|partition| partition.loaded()) {
            standing.channels += 1;
            standing.log_lag = channel.lag().max(standing.log_lag);
        }
        standing
    }
}

/// Says how a shard stands, for as long as somebody asks.
#[derive(Debug, Clone)]
pub struct ShardStanding(pub(crate) Arc<Parts>);

impl ShardStanding {
    /// At this moment.
    #[must_use]
    pub fn now(&self) -> Standing {
        Standing::of(&self.0)
    }
}

/// Observes for ever.
pub(crate) async fn observe(parts: &Parts) {
    COUNTED.sessions_max.set(parts.tuning.max_sessions as f64);
    COUNTED.partitions.set(parts.partition_count.get());
    COUNTED.backlog_max.set(parts.history_budget.limit() as f64);
    COUNTED.memory_max.set(parts.memory.limit() as f64);
    for round in 0_u32.. {
        let standing = Standing::of(parts);
        COUNTED.sessions.set(standing.sessions as f64);
        COUNTED.partitions_owned.set(standing.partitions as f64);
        COUNTED.channels.set(standing.channels as f64);
        COUNTED.log_lag.set(standing.log_lag as f64);
        COUNTED
            .backlog_messages
            .set(standing.backlog_messages as f64);
        COUNTED.backlog_bytes.set(standing.backlog_bytes as f64);
        COUNTED.memory.set(standing.memory_bytes as f64);
        if round % LAG_WINDOW == 0 {
            COUNTED.relay_lag.set(parts.lag.mean());
        }
        tokio::time::sleep(EVERY).await;
    }
}
