//! What it costs to find out where things go.

use std::hint::black_box;

use criterion::Criterion;
use infrachat_routing::{LANES, PartitionCount, home_region, lane_of, owner, partition_of};

use crate::CHANNEL;

pub(crate) fn routing(criterion: &mut Criterion) {
    let count = PartitionCount::default();
    criterion.bench_function("routing/partition_of", |bencher| {
        bencher.iter(|| partition_of(black_box(CHANNEL), count));
    });
    criterion.bench_function("routing/lane_of", |bencher| {
        bencher.iter(|| lane_of(black_box(CHANNEL), LANES));
    });
    let regions = ["us-west1", "asia-northeast1"].map(str::to_owned);
    criterion.bench_function("routing/home_region of 2", |bencher| {
        bencher.iter(|| home_region(black_box(CHANNEL), &regions).map(str::len));
    });
    let shards: Vec<_> = (0..20)
        .map(|slot| format!("us-west1-shard-{slot}"))
        .collect();
    criterion.bench_function("routing/owner of 20", |bencher| {
        bencher.iter(|| owner(black_box(7), shards.iter().map(String::as_str)).map(str::len));
    });
}
