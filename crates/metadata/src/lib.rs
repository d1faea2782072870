//! What a region stores: users, revocations, channels, history, and who serves which partition.
//!
//! One store a region ([`Metadata`]). Records that have a home region are decided there and copied
//! to the others, each copy with its version; a copy never goes back to an older one.

mod channels;
#[cfg(feature = "contract")]
pub mod contract;
#[cfg(feature = "firestore")]
mod firestore;
mod history;
mod memory;
mod revocations;
mod routing;
mod users;
mod watch;

use std::fmt;

#[cfg(feature = "firestore")]
pub use self::firestore::{FirestoreConfig, FirestoreMetadata};
pub use channels::{ChannelRecord, Channels};
pub use history::{Direction, History, HistoryEntry, HistoryPage};
pub use memory::{DEFAULT_HISTORY_LIMIT, MemoryMetadata};
pub use revocations::RevocationRecords;
pub use routing::{Lease, LeaseState, LeaseView, Ownership, Routing};
pub use users::{TokenFamily, UserRecord, Users};
pub use watch::{RoutingView, RoutingWatch};

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// There is a record of that name.
    #[error("{0} exists already")]
    Exists(String),
    /// There is no record of that name.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The record was changed in the meantime: read it again.
    #[error("{0} was changed by somebody else")]
    Conflict(String),
    /// The writer no longer owns the partition: stop serving it.
    #[error("partition {partition} is now owned under epoch {current}")]
    Fenced {
        /// Which.
        partition: u32,
        /// Its epoch now.
        current: u64,
    },
    /// The partition's owner is alive.
    #[error("partition {partition} is held by {holder}")]
    Held {
        /// Which.
        partition: u32,
        /// By which shard.
        holder: String,
    },
    /// A later life of the shard has its lease: this one must stop.
    #[error("another process has taken over as {0}: this one must stop")]
    Replaced(String),
    /// The shard can't be reached and is counted out for now: it may not serve.
    #[error("{0} is counted out for now: Switchboard can't reach it")]
    Suspected(String),
    /// The store is away or too slow: the outcome is unknown.
    #[error("the metadata store is unavailable: {0}")]
    Unavailable(String),
}

/// A region's store.
pub trait Metadata:
    Users + RevocationRecords + Channels + History + Routing + fmt::Debug + Send + Sync + 'static
{
}

impl<T> Metadata for T where
    T: Users
        + RevocationRecords
        + Channels
        + History
        + Routing
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}
