//! Rendezvous hashing: of many candidates, the one that weighs most for a key.
//!
//! After Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM
//! Transactions on Networking 6(1), 1998. When a candidate goes, only its keys move; when one
//! comes, only the keys that it gets move.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The shard that should own a partition; none only where there are no shards. The order of the
/// shards does not matter.
#[must_use]
pub fn owner<'a>(partition: u32, shards: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    heaviest(xxh3_64(&partition.to_le_bytes()), shards)
}

/// The region that decides about a user or channel of that name; none only where there are no
/// regions. The order of the regions does not matter.
///
/// It is chosen when the record is created, and stored with it: only names without a record follow
/// a change of the regions.
#[must_use]
pub fn home_region<'a>(name: &str, regions: &'a [String]) -> Option<&'a str> {
    heaviest(xxh3_64(name.as_bytes()), regions.iter().map(String::as_str))
}

/// Equal weights are decided by name.
fn heaviest<'a>(key: u64, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.max_by_key(|candidate| (xxh3_64_with_seed(candidate.as_bytes(), key), *candidate))
}
