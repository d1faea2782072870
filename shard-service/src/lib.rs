//! The ChatShard: long-lived sessions, and the message path between them and the bus.
//!
//! In the order in which a message passes: `grpc`, `session`, `ingest`, `publish`, (the bus),
//! `relay`, `channel` and its `log`, back to `session` and out. Beside it: `history` makes it
//! durable, `ownership` decides which partitions this shard serves, `presence` who is there, and
//! `control` what was revoked or changed.

mod access;
#[cfg(feature = "bench")]
pub mod bench;
mod callers;
mod channel;
mod comings;
mod config;
mod control;
mod counted;
mod dedupe;
mod gate;
mod grpc;
mod history;
mod holes;
mod inbound;
mod ingest;
mod log;
mod memory;
mod observe;
mod outlet;
mod ownership;
mod partition;
mod parts;
mod presence;
mod publish;
mod reader;
mod refused;
mod registry;
mod relay;
mod run;
mod server;
mod session;
mod tally;
mod traces;

pub use config::{BadTuning, ShardConfig, Tuning};
pub use observe::{ShardStanding, Standing};
pub use parts::Dependencies;
pub use server::{Shard, StartError};
