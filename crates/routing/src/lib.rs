//! Where things go: which partition a channel is in, which shard should serve a partition, which
//! region decides about a name.
//!
//! Pure functions of strings and integers: every process that asks gets the same answer, with no
//! leader and no exchange. The answers are part of the deployment's data, since topics, stored
//! records and ordering keys follow from them: they never change.

mod partition;
mod rendezvous;

pub use partition::{BadPartitionCount, LANES, PartitionCount, lane_of, partition_of};
pub use rendezvous::{home_region, owner};

/// The topic of control events, in each region.
pub const CONTROL_TOPIC: &str = "control";

/// The topic, in each region, of the events that could not be read.
pub const DEAD_LETTER_TOPIC: &str = "dead-letter";

/// The topic of a partition's events, in each region.
#[must_use]
pub fn messages_topic(partition: u32) -> String {
    format!("messages-{partition}")
}
