//! The words InfraChat speaks in: names, ids, positions, messages and codes.
//!
//! Nothing here does I/O or knows a transport, so every other crate can depend on it.

mod clock;
mod code;
mod ids;
mod message;
mod names;
mod position;
mod revocation;

pub use clock::{ClockError, IdClock, MAX_CLOCK_DRIFT, WallClock};
pub use code::{CloseCode, ErrorCode};
pub use ids::{
    BadId, ClientMessageId, Epoch, MessageId, Offset, OriginId, SessionId, TokenFamilyId,
};
pub use message::{Channel, Identity, Message, SlowReaderPolicy, Visibility};
pub use names::{BadName, ChannelName, Region, ShardId, UserName};
pub use position::{BadPosition, Position, RegionTag};
pub use revocation::Revocation;

/// Milliseconds since the Unix epoch.
pub type UnixMillis = i64;

/// The wall clock, in [`UnixMillis`].
///
/// For stamps that people or other machines read. Intervals use the monotonic clock.
#[must_use]
#[allow(
    clippy::disallowed_types,
    reason = "the one place that reads the wall clock"
)]
pub fn unix_millis() -> UnixMillis {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
