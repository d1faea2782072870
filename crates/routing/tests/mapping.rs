//! The mappings spread evenly, move little, and never change.

use std::collections::BTreeMap;

use infrachat_routing::{
    LANES, PartitionCount, home_region, lane_of, messages_topic, owner, partition_of,
};
use proptest::prelude::*;

/// The owner of each of many partitions.
fn owners(shards: &[String]) -> Vec<&str> {
    let names = || shards.iter().map(String::as_str);
    (0..PartitionCount::MAX)
        .map(|partition| owner(partition, names()).expect("there are shards"))
        .collect()
}

/// Pearson's statistic of how far the buckets are from even, over what an even spread exceeds about
/// once in a thousand million times (mean + 6 standard deviations + a margin for the skew).
fn unevenness(counts: impl IntoIterator<Item = usize>) -> f64 {
    let counts: Vec<_> = counts.into_iter().map(|count| count as f64).collect();
    let expected = counts.iter().sum::<f64>() / counts.len() as f64;
    let distance = |count| (count - expected) * (count - expected) / expected;
    let statistic: f64 = counts.iter().copied().map(distance).sum();
    let freedom = (counts.len() as f64 - 1.0).max(1.0);
    statistic / (freedom + 6.0 * (2.0 * freedom).sqrt() + 20.0)
}

fn tally(buckets: u32, places: impl Iterator<Item = u32>) -> Vec<usize> {
    let mut counts = vec![0; buckets as usize];
    for place in places {
        counts[place as usize] += 1;
    }
    counts
}

fn shards() -> impl Strategy<Value = Vec<String>> {
    let prefix = "[a-z]{1,12}-[a-z]{2,10}[0-9]-shard-";
    (prefix, 2_usize..12)
        .prop_map(|(prefix, count)| (0..count).map(|slot| format!("{prefix}{slot}")).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn channels_spread_evenly_over_partitions(prefix in "#[a-z0-9]{1,30}", bits in 0_u32..9) {
        let count = PartitionCount::new(1 << bits).expect("a power of two");
        let places = (0..20_000).map(|n| partition_of(&format!("{prefix}-{n}"), count));
        prop_assert!(unevenness(tally(count.get(), places)) < 1.0);
    }

    #[test]
    fn the_channels_of_one_partition_spread_evenly_over_lanes(prefix in "#[a-z0-9]{1,30}") {
        let count = PartitionCount::default();
        let places = (0..200_000)
            .map(|n| format!("{prefix}-{n}"))
            .filter(|channel| partition_of(channel, count) == 17)
            .map(|channel| lane_of(&channel, LANES));
        prop_assert!(unevenness(tally(LANES, places)) < 1.0);
    }

    #[test]
    fn partitions_spread_evenly_over_shards(shards in shards()) {
        let mut counts: BTreeMap<_, usize> = shards.iter().map(|s| (s.as_str(), 0)).collect();
        for shard in owners(&shards) {
            *counts.entry(shard).or_default() += 1;
        }
        prop_assert!(unevenness(counts.into_values()) < 1.0);
    }

    #[test]
    fn names_spread_evenly_over_regions(prefix in "[a-z0-9]{1,30}") {
        let regions = ["us-west1", "asia-northeast1", "europe-west4"].map(str::to_owned);
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for n in 0..3_000 {
            *counts.entry(home_region(&format!("{prefix}{n}"), &regions)).or_default() += 1;
        }
        prop_assert_eq!(counts.len(), regions.len());
        prop_assert!(unevenness(counts.into_values()) < 1.0);
    }

    #[test]
    fn when_a_shard_goes_only_its_partitions_move(shards in shards(), gone: prop::sample::Index) {
        let gone = gone.get(&shards).clone();
        let left: Vec<_> = shards.iter().filter(|shard| **shard != gone).cloned().collect();
        for (before, after) in owners(&shards).into_iter().zip(owners(&left)) {
            prop_assert!(before == after || before == gone, "{before} lost a partition to {after}");
        }
    }

    #[test]
    fn when_a_shard_comes_partitions_move_to_it_only(shards in shards(), newcomer in "[a-z]{3,20}") {
        let more: Vec<_> = shards.iter().cloned().chain([newcomer.clone()]).collect();
        for (before, after) in owners(&shards).into_iter().zip(owners(&more)) {
            prop_assert!(before == after || after == newcomer, "{before} lost a partition to {after}");
        }
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(
        (shards, shuffled) in shards().prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
        name in "[a-z0-9]{1,30}",
    ) {
        prop_assert_eq!(owners(&shards), owners(&shuffled));
        prop_assert_eq!(home_region(&name, &shards), home_region(&name, &shuffled));
    }

    #[test]
    fn only_powers_of_two_in_range_are_numbers_of_partitions(count: u32) {
        let taken = PartitionCount::new(count).is_ok();
        prop_assert_eq!(taken, count.is_power_of_two() && count <= 4_096);
        prop_assert_eq!(count.to_string().parse::<PartitionCount>().is_ok(), taken);
    }
}

#[test]
fn without_candidates_there_is_no_choice() {
    assert_eq!(owner(0, std::iter::empty()), None);
    assert_eq!(home_region("#general", &[]), None);
}

#[test]
fn the_mapping_never_changes() {
    let count = PartitionCount::default();
    let channels = ["#general", "#random", "#a", "#release.2026_11-01"];
    let places = channels.map(|channel| (partition_of(channel, count), lane_of(channel, LANES)));
    assert_eq!(places, [(14, 187), (52, 246), (46, 149), (0, 14)]);

    let regions = ["us-west1", "asia-northeast1"].map(str::to_owned);
    let homes = ["#general", "#random", "#a", "alice", "bob"]
        .map(|name| home_region(name, &regions).expect("there are regions"));
    let (west, asia) = ("us-west1", "asia-northeast1");
    assert_eq!(homes, [asia, asia, west, asia, west]);

    let shards = [0, 1, 2].map(|slot| format!("us-west1-shard-{slot}"));
    let slots: String = count
        .partitions()
        .map(|partition| owner(partition, shards.iter().map(String::as_str)).expect("a shard"))
        .filter_map(|shard| shard.chars().last())
        .collect();
    assert_eq!(
        slots,
        "0000000112022121000110222022121022101020111010212121122121201100"
    );
    assert_eq!(messages_topic(17), "messages-17");
}
