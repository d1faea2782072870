//! Which partition and which lane a channel is in.

use std::{fmt, num::ParseIntError, ops::Range, str::FromStr};

use xxhash_rust::xxh3::xxh3_64;

/// How many lanes a region has. Ordering keys are lanes, never channels: the bus keeps state for
/// every key it has seen, so there must be a bounded set of them.
pub const LANES: u32 = 256;

/// How many partitions a deployment has, a power of two from 1 to 4,096. Set once: another number
/// puts every channel elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCount(u32);

/// Why a number of partitions was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPartitionCount {
    /// It is not a number.
    #[error("the number of partitions is not a number: {0}")]
    NotANumber(#[from] ParseIntError),
    /// It is not a power of two, or out of range.
    #[error("{0} partitions can't be had: use a power of two from 1 to {max}", max = PartitionCount::MAX)]
    NotAPowerOfTwo(u32),
}

impl PartitionCount {
    /// The most there can be.
    pub const MAX: u32 = 4_096;

    /// Checks and takes a number.
    ///
    /// # Errors
    /// When it is not a power of two from 1 to [`PartitionCount::MAX`].
    pub fn new(count: u32) -> Result<Self, BadPartitionCount> {
        if count.is_power_of_two() && count <= Self::MAX {
            Ok(Self(count))
        } else {
            Err(BadPartitionCount::NotAPowerOfTwo(count))
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// All the partitions.
    #[must_use]
    pub fn partitions(self) -> Range<u32> {
        0..self.0
    }
}

impl Default for PartitionCount {
    /// 64.
    fn default() -> Self {
        Self(64)
    }
}

impl fmt::Display for PartitionCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for PartitionCount {
    type Err = BadPartitionCount;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.parse()?)
    }
}

/// The partition of a channel: the low bits of its name's XXH3 hash.
#[must_use]
pub fn partition_of(channel: &str, count: PartitionCount) -> u32 {
    low_half(xxh3_64(channel.as_bytes())) & (count.get() - 1)
}

/// The lane of a channel, below `lanes` (0 lanes count as 1). It comes from the high half of the
/// hash, so that the channels of one partition spread over all lanes.
#[must_use]
pub fn lane_of(channel: &str, lanes: u32) -> u32 {
    low_half(xxh3_64(channel.as_bytes()) >> 32) % lanes.max(1)
}

/// What is masked fits, so nothing is cut off.
#[allow(clippy::cast_possible_truncation)]
fn low_half(hash: u64) -> u32 {
    (hash & u64::from(u32::MAX)) as u32
}
