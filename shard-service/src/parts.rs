//! What every part of a shard works with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infrachat_bus::EventBus;
use infrachat_identity::{Revocations, TokenVerifier};
use infrachat_metadata::{Metadata, MetadataError};
use infrachat_presence::Presence;
use infrachat_types::{
    ClockError, IdClock, MessageId, OriginId, Region, ShardId, UnixMillis, WallClock,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    access::Access, callers::Callers, config::Tuning, counted::Source, history::HistoryBudget,
    memory::Memory, observe::Lag, partition::Partition, presence::SeatBook, registry::Sessions,
};

/// Longest wait for a store's answer.
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// The region's and the deployment's parts, as a shard uses them.
#[derive(Debug, Clone)]
pub struct Dependencies {
    /// The shard's region.
    pub region: Region,
    /// The store of each region; the shard's own region must be among them.
    pub stores: BTreeMap<Region, Arc<dyn Metadata>>,
    /// The bus, as seen from this region.
    pub bus: Arc<dyn EventBus>,
    /// The region's presence.
    pub presence: Arc<dyn Presence>,
    /// Verifies access tokens.
    pub verifier: Arc<TokenVerifier>,
    /// The region's revocations: loaded once at the start, control events tell the rest.
    pub revocations: Arc<dyn Revocations>,
    /// The clock that messages and sessions are stamped by.
    pub clock: WallClock,
}

/// Everything, shared by the shard's tasks.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) region: Region,
    /// All regions, this one first.
    pub(crate) regions: Vec<Region>,
    pub(crate) shard: ShardId,
    pub(crate) incarnation: OriginId,
    /// Where clients reach this shard.
    pub(crate) endpoint: String,
    pub(crate) store: Arc<dyn Metadata>,
    pub(crate) stores: BTreeMap<Region, Arc<dyn Metadata>>,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) callers: Callers,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) access: Access,
    pub(crate) seats: SeatBook,
    pub(crate) partitions: Partitions,
    pub(crate) tuning: Tuning,
    pub(crate) partition_count: infrachat_routing::PartitionCount,
    pub(crate) clock: Clock,
    pub(crate) history_budget: Arc<HistoryBudget>,
    pub(crate) memory: Arc<Memory>,
    /// What is counted by region, this one first.
    pub(crate) sources: Vec<Source>,
    /// Of the messages that reach this shard's logs.
    pub(crate) lag: Arc<Lag>,
    /// Short work that no session should wait for.
    pub(crate) tasks: TaskTracker,
}

/// The answer of a store, or that it did not come in time: no session and no partition waits longer.
pub(crate) async fn in_time<T>(
    answer: impl Future<Output = Result<T, MetadataError>>,
) -> Result<T, MetadataError> {
    let late = || Err(MetadataError::Unavailable("no answer in time".to_owned()));
    tokio::time::timeout(STORE_LIMIT, answer)
        .await
        .unwrap_or_else(|_| late())
}

/// The wall clock, and the id clock that goes by it.
#[derive(Debug)]
pub(crate) struct Clock {
    wall: WallClock,
    ids: Mutex<IdClock>,
}

impl Clock {
    pub(crate) fn new(wall: WallClock) -> Self {
        let ids = Mutex::default();
        Self { wall, ids }
    }

    /// What the wall clock shows.
    pub(crate) fn now(&self) -> UnixMillis {
        self.wall.now()
    }

    pub(crate) fn next(&self, after: Option<MessageId>) -> Result<MessageId, ClockError> {
        let now = u64::try_from(self.now()).unwrap_or_default();
        self.ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next(now, after)
    }
}

/// The partitions that this shard serves, and where the others are.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    owned: RwLock<HashMap<u32, Arc<Partition>>>,
    lease: Lease,
    elsewhere: RwLock<HashMap<u32, String>>,
}

/// Until when the shard may serve. It is asked before each delivery, so without a lock; it is changed
/// while the partitions are locked.
#[derive(Debug)]
struct Lease {
    /// Nanoseconds after this are what the others count.
    began: Instant,
    /// When it may have run out, whatever else this process has come to know of it: it may have been
    /// frozen.
    good_until: AtomicU64,
    /// When nothing is served any more: the same, or at once.
    serves_until: AtomicU64,
}

impl Default for Lease {
    /// Nothing is served before the lease is there.
    fn default() -> Self {
        Self {
            began: Instant::now(),
            good_until: AtomicU64::new(0),
            serves_until: AtomicU64::new(0),
        }
    }
}

impl Lease {
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_fenced(&self) -> bool {
        self.serves_until.load(Ordering::Acquire) == 0
    }
}

impl Partitions {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<u32, Arc<Partition>>> {
        self.owned.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u32, Arc<Partition>>> {
        self.owned.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition, if it is served here.
    pub(crate) fn get(&self, number: u32) -> Option<Arc<Partition>> {
        self.read()
            .get(&number)
            .filter(|partition| partition.is_open())
            .cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.read().values().cloned().collect()
    }

    /// Adds a partition, unless nothing may be served.
    pub(crate) fn insert(&self, partition: Arc<Partition>) -> bool {
        let mut owned = self.write();
        let served = self.may_serve_at(Instant::now());
        if served {
            owned.insert(partition.number, partition);
        }
        served
    }

    pub(crate) fn remove(&self, number: u32) {
        self.write().remove(&number);
    }

    /// Serves nothing from now on; answers what was served.
    pub(crate) fn fence(&self) -> Vec<Arc<Partition>> {
        let mut owned = self.write();
        self.lease.serves_until.store(0, Ordering::Release);
        owned.drain().map(|(_, partition)| partition).collect()
    }

    /// The lease is good until then.
    pub(crate) fn unfence(&self, until: Instant) {
        let _owned = self.write();
        let until = self.lease.nanos(until);
        self.lease.good_until.store(until, Ordering::Release);
        // 0 says that it is fenced.
        self.lease
            .serves_until
            .store(until.max(1), Ordering::Release);
    }

    /// Until when the lease is good.
    pub(crate) fn good_until(&self) -> Instant {
        let until = self.lease.good_until.load(Ordering::Acquire);
        self.lease.began + Duration::from_nanos(until)
    }

    /// Whether the lease is good at this very moment, which is now.
    pub(crate) fn may_serve_at(&self, now: Instant) -> bool {
        self.lease.nanos(now) < self.lease.serves_until.load(Ordering::Acquire)
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.lease.is_fenced()
    }

    /// The address of the shard that serves a partition, as far as is known.
    pub(crate) fn endpoint(&self, number: u32) -> Option<String> {
        self.elsewhere
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }

    /// What the routing records say of partitions served by other shards.
    pub(crate) fn learn(&self, endpoints: HashMap<u32, String>) {
        *self
            .elsewhere
            .write()
            .unwrap_or_else(PoisonError::into_inner) = endpoints;
    }
}
