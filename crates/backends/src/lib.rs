//! What a service program stands on (bus, stores, presence, revocations, limits), chosen and connected
//! by its configuration. Only programs use this; services take what they need as values.

mod connect;
mod options;
mod redis;
mod regional;

pub use connect::{Backends, ConnectError};
pub use options::{BackendOptions, BusKind, MetadataKind, RedisAuth, StateKind, VerifierOptions};
pub use regional::{BadRegional, Regional};
