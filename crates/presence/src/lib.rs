//! Who is in which channel, as one region knows it.
//!
//! Each session that joined a channel holds a seat there, refreshed before its time to live ends.
//! Seats of other regions' sessions are told over the bus and kept here too, so that each region
//! knows everyone.

#[cfg(feature = "contract")]
pub mod contract;
mod memory;
mod redis;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use infrachat_types::{ChannelName, Region, SessionId, UserName};

pub use memory::MemoryPresence;
pub use redis::RedisPresence;

/// One session in one channel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// Whose session.
    pub user: UserName,
    /// The region it is in.
    pub region: Region,
    /// The session.
    pub session: SessionId,
}

/// What a change meant for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was the user's first seat: they came.
    Came,
    /// It was the user's last seat: they went.
    Went,
    /// They have other seats, or nothing changed.
    Same,
}

/// A user who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Who.
    pub user: UserName,
    /// The regions of their sessions, sorted.
    pub regions: Vec<Region>,
}

/// Presence can't be asked or changed now: what was known before is stale, not wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("presence is unavailable: {0}")]
pub struct PresenceError(pub String);

/// The seats that a region knows.
#[async_trait]
pub trait Presence: fmt::Debug + Send + Sync + 'static {
    /// Takes a seat until `ttl` from now. Taking it again refreshes it.
    async fn take(
        &self,
        channel: &ChannelName,
        seat: &Seat,
        ttl: Duration,
    ) -> Result<Change, PresenceError>;

    /// Gives a seat up. Giving up one that is not held changes nothing.
    async fn give_up(&self, channel: &ChannelName, seat: &Seat) -> Result<Change, PresenceError>;

    /// Refreshes many seats at once, taking again those that had expired; answers the users who
    /// thereby came.
    async fn refresh(
        &self,
        seats: &[(ChannelName, Seat)],
        ttl: Duration,
    ) -> Result<Vec<(ChannelName, UserName)>, PresenceError>;

    /// The users of a channel by name, after a name, at most `limit`. Expired seats don't count.
    async fn list(
        &self,
        channel: &ChannelName,
        after: Option<&UserName>,
        limit: usize,
    ) -> Result<Vec<Present>, PresenceError>;

    /// How many users a channel has.
    async fn count(&self, channel: &ChannelName) -> Result<usize, PresenceError>;

    /// Takes out at most `limit` expired seats, each for one caller only, and says what that meant.
    async fn sweep(&self, limit: usize) -> Result<Vec<(ChannelName, Seat, Change)>, PresenceError>;
}
