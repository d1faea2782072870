//! Counts of what the library did out of sight.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a client did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Messages handed to the application.
    pub received: u64,
    /// Messages that came again and were dropped.
    pub duplicates_dropped: u64,
    /// The client's own messages that came back and were dropped.
    pub echoes_dropped: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages sent a second or later time.
    pub resent: u64,
    /// Gaps announced.
    pub gaps: u64,
    /// Streams that ended without being asked to.
    pub disconnects: u64,
    /// Channels joined again after that.
    pub rejoins: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received: AtomicU64,
    pub(crate) duplicates_dropped: AtomicU64,
    pub(crate) echoes_dropped: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) disconnects: AtomicU64,
    pub(crate) rejoins: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            received: read(&self.received),
            duplicates_dropped: read(&self.duplicates_dropped),
            echoes_dropped: read(&self.echoes_dropped),
            acknowledged: read(&self.acknowledged),
            resent: read(&self.resent),
            gaps: read(&self.gaps),
            disconnects: read(&self.disconnects),
            rejoins: read(&self.rejoins),
        }
    }
}
