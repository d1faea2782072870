//! Real services that tests start for themselves, each on a port and in a directory of its own.

mod emulators;
mod firestore;
mod redis_server;

pub use emulators::{EmulatorError, PubsubEmulator};
pub use firestore::FirestoreEmulator;
pub use redis_server::{RedisServer, StartError};
