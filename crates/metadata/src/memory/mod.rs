//! The store in memory, for a deployment in one process and for tests. Nothing survives the process.

mod channels;
mod history;
mod revocations;
mod routing;
mod users;

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use infrachat_types::ChannelName;

use self::{
    channels::ChannelTables, history::ChannelHistory, revocations::RevocationTable,
    routing::RoutingTables, users::UserTables,
};
use crate::MetadataError;

/// Messages that are kept of a channel unless [`MemoryMetadata::with_history_limit`] says otherwise.
pub const DEFAULT_HISTORY_LIMIT: usize = 100_000;

/// A region's store in memory.
///
/// Every call is atomic, and ages follow tokio's clock. Of each channel's history the newest
/// messages in append order are kept, up to a limit.
///
/// Faults can be injected, to see how the rest of a region behaves without its store.
pub struct MemoryMetadata {
    users: Mutex<UserTables>,
    revocations: Mutex<RevocationTable>,
    channels: Mutex<ChannelTables>,
    /// Taken before `history` and `faults` by whoever needs both.
    routing: Mutex<RoutingTables>,
    history: Mutex<HashMap<ChannelName, ChannelHistory>>,
    history_limit: usize,
    faults: Mutex<Faults>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    unavailable: bool,
    latency: Duration,
}

impl MemoryMetadata {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_history_limit(DEFAULT_HISTORY_LIMIT)
    }

    /// An empty store that keeps at most so many messages of each channel: the oldest in append
    /// order go first, and are not found any more in any way.
    #[must_use]
    pub fn with_history_limit(messages_per_channel: usize) -> Self {
        Self {
            users: Mutex::default(),
            revocations: Mutex::default(),
            channels: Mutex::default(),
            routing: Mutex::default(),
            history: Mutex::default(),
            history_limit: messages_per_channel,
            faults: Mutex::default(),
        }
    }

    /// While set, every call answers [`MetadataError::Unavailable`] and changes nothing, and
    /// followers hear nothing.
    pub fn set_unavailable(&self, unavailable: bool) {
        let tables = lock(&self.routing);
        lock(&self.faults).unavailable = unavailable;
        tables.show(!unavailable);
    }

    /// Every call from now on takes so long before it reads or changes anything. Followers hear of
    /// changes at once.
    pub fn set_latency(&self, latency: Duration) {
        lock(&self.faults).latency = latency;
    }

    /// The way to the store, which every call goes first.
    async fn reach(&self) -> Result<(), MetadataError> {
        let latency = lock(&self.faults).latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if lock(&self.faults).unavailable {
            return Err(MetadataError::Unavailable("set so".to_owned()));
        }
        Ok(())
    }

    /// Changes who serves what, and shows it to followers unless it was refused.
    fn change_routing<T>(
        &self,
        change: impl FnOnce(&mut RoutingTables) -> Result<T, MetadataError>,
    ) -> Result<T, MetadataError> {
        let mut tables = lock(&self.routing);
        let changed = change(&mut tables)?;
        tables.show(!lock(&self.faults).unavailable);
        Ok(changed)
    }
}

impl Default for MemoryMetadata {
    fn default() -> Self {
        Self::new()
    }
}

/// Without the records: they hold password hashes, and can be many.
impl fmt::Debug for MemoryMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryMetadata")
            .field("history_limit", &self.history_limit)
            .field("faults", &*lock(&self.faults))
            .finish_non_exhaustive()
    }
}

/// No change of a table can panic half-way, so a poisoned lock still guards whole records.
fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
