//! Shards share a region's partitions, over Firestore.
#![allow(clippy::expect_used)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use infrachat_bus::MemoryFabric;
use infrachat_identity::{FixedKeys, MemoryRevocations, TokenVerifier};
use infrachat_metadata::{
    FirestoreConfig, FirestoreMetadata, Lease, LeaseState, LeaseView, Metadata, MetadataError,
    Ownership, Routing as _,
};
use infrachat_presence::MemoryPresence;
use infrachat_routing::PartitionCount;
use infrachat_shard::{Dependencies, Shard, ShardConfig, Tuning};
use infrachat_test_services::FirestoreEmulator;
use infrachat_types::{OriginId, Region, ShardId, WallClock};
use tokio::{
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than that.
const NEVER: Duration = Duration::from_secs(3_600);

/// Nobody may read leases and ownerships: shards have to hear of them.
const NO_READS: &str = r#"{"firestore": {"refuse": {"RunQuery": 1.0}}}"#;
/// Nobody hears of anything: shards have to read.
const NO_LISTENING: &str = r#"{"firestore": {"refuse": {"Listen": 1.0}}}"#;
const PAUSED: &str = r#"{"firestore": {"paused": true}}"#;

fn leases(ttl: Duration, renewal: Duration) -> Tuning {
    let mut tuning = Tuning::default();
    tuning.lease_ttl = ttl;
    tuning.lease_renewal = renewal;
    tuning
}

/// Leases run out soon after their shard dies.
fn fast() -> Tuning {
    leases(Duration::from_secs(2), Duration::from_millis(100))
}

fn region() -> Region {
    Region::new("us-west1").expect("valid")
}

fn name(slot: u32) -> ShardId {
    ShardId::new(&format!("us-west1-shard-{slot}")).expect("valid")
}

/// Who should have a partition, of these.
fn chosen(partition: u32, slots: &[u32]) -> ShardId {
    let names: Vec<_> = slots.iter().map(|slot| name(*slot)).collect();
    let owner = infrachat_routing::owner(partition, names.iter().map(ShardId::as_str));
    ShardId::new(owner.expect("one of them")).expect("valid")
}

fn shared_by(ownerships: &[Ownership], slots: &[u32]) -> bool {
    let as_chosen = |found: &Ownership| found.owner == Some(chosen(found.partition, slots));
    ownerships.len() == PartitionCount::default().partitions().count()
        && ownerships.iter().all(as_chosen)
}

/// A region with a store.
struct World {
    emulator: FirestoreEmulator,
    store: Arc<FirestoreMetadata>,
    fabric: MemoryFabric,
    tuning: Tuning,
}

impl World {
    async fn start(tuning: Tuning) -> Self {
        let emulator = FirestoreEmulator::start().await.expect("an emulator");
        let config = FirestoreConfig {
            emulator: Some(emulator.address.clone()),
            silence: tuning.lease_renewal * 5,
            ..FirestoreConfig::new("demo-infrachat", "us-west1")
        };
        let store = FirestoreMetadata::connect(config).await.expect("connected");
        Self {
            emulator,
            store: Arc::new(store),
            fabric: MemoryFabric::default(),
            tuning,
        }
    }

    async fn shard(&self, slot: u32) -> Running {
        let store: Arc<dyn Metadata> = self.store.clone();
        let config = ShardConfig {
            shard: name(slot),
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            partitions: PartitionCount::default(),
            tuning: self.tuning,
        };
        let dependencies = Dependencies {
            region: region(),
            stores: BTreeMap::from([(region(), store)]),
            bus: Arc::new(self.fabric.bus("us-west1")),
            presence: Arc::new(MemoryPresence::new()),
            verifier: Arc::new(TokenVerifier::new(Arc::new(FixedKeys::default()))),
            revocations: Arc::new(MemoryRevocations::new()),
            clock: WallClock::default(),
        };
        let shard = Shard::bind(config, dependencies).await.expect("binds");
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let task = tokio::spawn(async move { shard.run(stopping).await.expect("serves") });
        Running { stop, task }
    }

    /// Waits until every partition is with whom it should be with, of these.
    async fn settles(&self, slots: &[u32]) -> Vec<Ownership> {
        let mut watch = self.store.watch();
        let settling = async {
            loop {
                let view = watch.latest();
                if shared_by(view.ownerships(), slots) {
                    return view.ownerships().to_vec();
                }
                watch.changed().await;
            }
        };
        let settled = timeout(PATIENCE, settling).await;
        settled.unwrap_or_else(|_| panic!("not shared by {slots:?}: {:?}", watch.latest()))
    }

    /// The life of a shard that has a lease.
    async fn life(&self, slot: u32) -> OriginId {
        let leases = self.store.leases().await.expect("answers");
        let lease = leases.iter().find(|view| view.lease.shard == name(slot));
        lease.expect("it lives").lease.incarnation.clone()
    }

    /// Counts a shard out for so long.
    async fn suspect(&self, slot: u32, time: Duration) {
        let life = self.life(slot).await;
        let suspected = self.store.suspect(&name(slot), &life, time).await;
        assert_eq!(suspected, Ok(true));
    }

    /// The same, where there is nothing to hear.
    async fn settles_to_read(&self, slots: &[u32]) {
        let settling = async {
            let mut pace = interval(Duration::from_millis(20));
            while !shared_by(&self.store.ownerships().await.expect("read"), slots) {
                pace.tick().await;
            }
        };
        let settled = timeout(PATIENCE, settling).await;
        assert!(settled.is_ok(), "not shared by {slots:?}");
    }
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("stopped");
    }
}

#[tokio::test]
async fn partitions_change_hands_as_shards_hear_of_each_other_without_reading() {
    // Who waits for the clock waits for ever.
    let world = World::start(leases(NEVER * 10, NEVER)).await;
    world.emulator.set_faults(NO_READS).await.expect("set");
    let first = world.shard(0).await;
    world.settles(&[0]).await;
    let second = world.shard(1).await;
    world.settles(&[0, 1]).await;
    let third = world.shard(2).await;
    world.settles(&[0, 1, 2]).await;
    second.stop().await;
    world.settles(&[0, 2]).await;
    first.stop().await;
    // Nobody took what it had, or gave up what it was to have.
    for found in world.settles(&[2]).await {
        let times = [&[0][..], &[0, 1], &[0, 1, 2], &[0, 2], &[2]];
        let mut owners = times.map(|slots| chosen(found.partition, slots)).to_vec();
        owners.dedup();
        assert_eq!(found.epoch.0, owners.len() as u64, "{found:?}: {owners:?}");
    }
    third.stop().await;
}

#[tokio::test]
async fn what_a_dead_shard_held_is_taken_once_its_lease_has_run_out() {
    let world = World::start(fast()).await;
    let (gone, life) = (name(9), OriginId::from_text("life"));
    let dead = Lease {
        shard: gone.clone(),
        incarnation: life.clone(),
        endpoint: "shard-9.example:7003".to_owned(),
        zone: "us-west1-b".to_owned(),
        sessions: 0,
        state: LeaseState::Active,
    };
    world.store.renew_lease(dead).await.expect("renewed");
    for partition in PartitionCount::default().partitions() {
        let taken = world.store.take_partition(partition, &gone, &life, NEVER);
        taken.await.expect("free");
    }
    world.emulator.set_faults(NO_READS).await.expect("set");
    let shard = world.shard(0).await;
    let ownerships = world.settles(&[0]).await;
    assert!(ownerships.iter().all(|found| found.epoch.0 == 2));
    shard.stop().await;
}

#[tokio::test]
async fn a_partition_whose_release_got_lost_is_released_again() {
    let world = World::start(fast()).await;
    let shards = [world.shard(0).await, world.shard(1).await];
    let settled = world.settles(&[0, 1]).await;
    let of_other = settled
        .iter()
        .find(|found| found.owner == Some(name(1)))
        .expect("the other has some");
    let incarnation = &world.life(0).await;
    // As after a release that was not answered: the records name a shard that does not serve it, and that
    // lives on.
    let first = name(0);
    let left = timeout(PATIENCE, async {
        let mut epoch = of_other.epoch;
        loop {
            let released = world.store.release_partition(of_other.partition, epoch);
            released.await.expect("answers");
            let taking = world.store.take_partition(
                of_other.partition,
                &first,
                incarnation,
                fast().lease_ttl,
            );
            match taking.await {
                Ok(epoch) => return epoch,
                // Its owner was quicker.
                Err(MetadataError::Held { .. }) => {
                    let now = world.store.ownerships().await.expect("answers");
                    let found = now.iter().find(|o| o.partition == of_other.partition);
                    epoch = found.expect("is there").epoch;
                }
                Err(err) => panic!("{err}"),
            }
        }
    });
    let left = left.await.expect("in time");
    world.settles_to_read(&[0, 1]).await;
    let again = world.store.ownerships().await.expect("answers");
    let found = again.iter().find(|o| o.partition == of_other.partition);
    assert!(found.expect("is there").epoch > left);
    for shard in shards {
        shard.stop().await;
    }
}

#[tokio::test]
async fn a_suspect_shard_gives_back_what_it_has_without_waiting_for_its_lease() {
    // No lease is renewed or ends.
    let world = World::start(leases(NEVER * 10, NEVER)).await;
    let shards = [world.shard(0).await, world.shard(1).await];
    let before = world.settles(&[0, 1]).await;
    world.suspect(0, NEVER * 10).await;
    let after = world.settles(&[1]).await;
    for (before, after) in before.iter().zip(&after) {
        let moves = u64::from(before.owner != after.owner);
        assert_eq!(
            after.epoch.0,
            before.epoch.0 + moves,
            "{before:?} {after:?}"
        );
    }
    for shard in shards {
        shard.stop().await;
    }
}

#[tokio::test]
async fn a_shard_serves_again_once_it_is_no_longer_suspected() {
    let world = World::start(fast()).await;
    let shards = [world.shard(0).await, world.shard(1).await];
    for _ in 0..2 {
        world.settles(&[0, 1]).await;
        world.suspect(0, NEVER).await;
        world.settles(&[1]).await;
        // Its lease ends meanwhile, and it asks for it.
        let asking = timeout(PATIENCE, async {
            let asks = |view: &LeaseView| {
                let asks = view.asked < fast().lease_ttl / 2;
                view.lease.shard == name(0) && view.age > fast().lease_ttl && asks
            };
            while !world.store.leases().await.expect("read").iter().any(asks) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        asking.await.expect("it goes on asking");
        world.suspect(0, Duration::from_secs(1)).await;
    }
    world.settles(&[0, 1]).await;
    for shard in shards {
        shard.stop().await;
    }
}

#[tokio::test]
async fn a_store_that_can_only_be_read_is_read() {
    let world = World::start(fast()).await;
    world.emulator.set_faults(NO_LISTENING).await.expect("set");
    let first = world.shard(0).await;
    world.settles_to_read(&[0]).await;
    let second = world.shard(1).await;
    world.settles_to_read(&[0, 1]).await;
    first.stop().await;
    world.settles_to_read(&[1]).await;
    second.stop().await;
}

#[tokio::test]
async fn broken_streams_and_a_frozen_store_move_nothing() {
    let world = World::start(leases(Duration::from_secs(20), Duration::from_millis(100))).await;
    let shards = [world.shard(0).await, world.shard(1).await];
    let before = world.settles(&[0, 1]).await;
    for _ in 0..5 {
        world.emulator.break_streams().await.expect("broken");
        world.settles(&[0, 1]).await;
    }
    let mut watch = world.store.watch();
    let heard = timeout(PATIENCE, async {
        while !watch.latest().is_current() {
            watch.changed().await;
        }
        world.emulator.set_faults(PAUSED).await.expect("paused");
        while watch.latest().is_current() {
            watch.changed().await;
        }
    });
    heard.await.expect("the silence is noticed");
    world.emulator.clear_faults().await.expect("lifted");
    let third = world.shard(2).await;
    let after = world.settles(&[0, 1, 2]).await;
    for (before, after) in before.iter().zip(&after) {
        let moves = u64::from(before.owner != after.owner);
        assert_eq!(
            after.epoch.0,
            before.epoch.0 + moves,
            "{before:?}: {after:?}"
        );
    }
    for shard in shards.into_iter().chain([third]) {
        shard.stop().await;
    }
}

#[tokio::test]
async fn of_two_shards_with_one_name_the_later_serves_and_the_former_stops_by_itself() {
    let world = World::start(fast()).await;
    let former = world.shard(0).await;
    let before = world.settles(&[0]).await;
    let later = world.shard(0).await;
    let stopped = timeout(PATIENCE, former.task).await;
    stopped.expect("stops").expect("in good order");
    let mut watch = world.store.watch();
    let serving = timeout(PATIENCE, async {
        loop {
            let view = watch.latest();
            let taken = |found: &Ownership| found.incarnation != before[0].incarnation;
            if shared_by(view.ownerships(), &[0]) && view.ownerships().iter().all(taken) {
                return;
            }
            watch.changed().await;
        }
    });
    serving.await.expect("the later one serves everything");
    later.stop().await;
}
