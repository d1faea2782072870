//! Real services that tests start for themselves, each on a port and in a directory of its own.

mod certificates;
mod collector;
mod firestore;
mod link;
mod process;
mod pubsub;
mod redis_server;

pub use certificates::{Authority, Certificate};
pub use collector::{Collector, Sent};
pub use firestore::FirestoreEmulator;
pub use link::Link;
pub use process::EmulatorError;
pub use pubsub::PubsubEmulator;
pub use redis_server::{RedisGuard, RedisServer, StartError};
