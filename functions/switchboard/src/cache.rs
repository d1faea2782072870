//! The routing table: followed as the store tells it, without a read. While the store is not heard, it
//! is read, at most every so often; and while it does not answer either, the last known table is kept.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use infrachat_metadata::{LeaseView, MetadataError, Ownership, Routing, RoutingWatch};
use infrachat_routing::PartitionCount;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{config::Config, table::RoutingTable};

/// A read that takes longer has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Once the store has failed, a caller that can be served the last known table waits no longer.
const PATIENCE: Duration = Duration::from_millis(100);

/// The routing table of a region.
#[derive(Debug)]
pub(crate) struct RoutingCache<S: ?Sized> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S: ?Sized> {
    store: Arc<S>,
    partitions: PartitionCount,
    lease_ttl: Duration,
    refresh: Duration,
    state: Mutex<State>,
    /// Changes when a read has ended.
    read: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    watch: RoutingWatch,
    newest: Option<Newest>,
    /// When the last read ended, and how it failed; none since the store was heard.
    last: Option<(Instant, Option<MetadataError>)>,
    /// The read under way.
    reading: Option<JoinHandle<()>>,
}

/// The newest table.
#[derive(Debug)]
struct Newest {
    table: Arc<RoutingTable>,
    as_of: Instant,
    /// When the ages of its leases were what they are in it.
    made: Instant,
}

/// What is known of the routes.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// As the store was last heard, or as of the last read that succeeded.
    pub(crate) table: Arc<RoutingTable>,
    /// How old it is, when the store did not answer.
    pub(crate) stale: Option<Duration>,
}

impl<S: Routing + Send + Sync + ?Sized + 'static> RoutingCache<S> {
    pub(crate) fn new(config: &Config, store: Arc<S>) -> Self {
        let state = State {
            watch: store.watch(),
            newest: None,
            last: None,
            reading: None,
        };
        Self {
            shared: Arc::new(Shared {
                store,
                partitions: config.partitions,
                lease_ttl: config.lease_ttl,
                refresh: config.refresh,
                state: Mutex::new(state),
                read: watch::Sender::new(()),
            }),
        }
    }

    /// The routes: as the store tells them now; while it is not heard, as they are read, no older than
    /// the refresh interval; or, when it is away or slow, the last known. All callers share one read.
    ///
    /// # Errors
    /// When the store is away and nothing was ever known.
    pub(crate) async fn current(&self) -> Result<Known, MetadataError> {
        let mut read = self.shared.read.subscribe();
        let patience = {
            let mut state = self.shared.lock();
            if self.shared.follow(&mut state) || state.tried_within(self.shared.refresh) {
                return state.known(false);
            }
            if state.reading.as_ref().is_none_or(JoinHandle::is_finished) {
                // A task of its own, so that a caller who hangs up does not stop it for the others.
                state.reading = Some(tokio::spawn(Arc::clone(&self.shared).read()));
            }
            if state.newest.is_some() && state.failure().is_some() {
                PATIENCE
            } else {
                READ_TIMEOUT + PATIENCE
            }
        };
        let waited = tokio::time::timeout(patience, read.changed()).await;
        self.shared.lock().known(waited.is_err())
    }
}

impl<S: Routing + Send + Sync + ?Sized + 'static> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the store tells; answers whether it is being heard.
    fn follow(&self, state: &mut State) -> bool {
        let changed = state.watch.has_changed();
        let view = state.watch.latest();
        let Some(heard) = view.heard() else {
            return false;
        };
        let newest = state.newest.as_ref();
        if view.is_current() {
            state.last = None;
            if changed || newest.is_none_or(Newest::has_run_out) {
                let table = self.table(view.leases(), view.ownerships());
                state.newest = Some(Newest::new(table, heard));
            }
        } else if changed && newest.is_none_or(|newest| newest.as_of <= heard) {
            // As it was then: while the store is away, nobody can renew a lease.
            let table = self.table(view.leases_as_heard().to_vec(), view.ownerships());
            state.newest = Some(Newest::new(table, heard));
        }
        view.is_current()
    }

    fn table(
        &self,
        leases: impl IntoIterator<Item = LeaseView>,
        ownerships: &[Ownership],
    ) -> RoutingTable {
        let ownerships = ownerships.iter().cloned();
        RoutingTable::new(self.partitions, self.lease_ttl, leases, ownerships)
    }

    async fn read(self: Arc<Self>) {
        let reading = async { tokio::try_join!(self.store.leases(), self.store.ownerships()) };
        let began = Instant::now();
        let read = tokio::time::timeout(READ_TIMEOUT, reading)
            .await
            .unwrap_or_else(|_| {
                Err(MetadataError::Unavailable(format!(
                    "no answer in {READ_TIMEOUT:?}"
                )))
            });
        {
            let mut state = self.lock();
            let failure = match read {
                Ok((leases, ownerships)) => {
                    let newest = state.newest.as_ref();
                    if newest.is_none_or(|newest| newest.as_of <= began) {
                        let table = self.table(leases, &ownerships);
                        state.newest = Some(Newest::new(table, began));
                    }
                    None
                }
                Err(err) => {
                    tracing::warn!(%err, "routes can't be read from the store");
                    Some(err)
                }
            };
            state.last = Some((Instant::now(), failure));
            state.reading = None;
        }
        self.read.send_replace(());
    }
}

impl Newest {
    fn new(table: RoutingTable, as_of: Instant) -> Self {
        Self {
            table: Arc::new(table),
            as_of,
            made: Instant::now(),
        }
    }

    /// Whether a lease in it may have run out since it was made.
    fn has_run_out(&self) -> bool {
        self.table.has_run_out(self.made.elapsed())
    }
}

impl State {
    fn tried_within(&self, interval: Duration) -> bool {
        self.last
            .as_ref()
            .is_some_and(|(at, _)| at.elapsed() < interval)
    }

    fn failure(&self) -> Option<&MetadataError> {
        self.last.as_ref().and_then(|(_, failure)| failure.as_ref())
    }

    fn known(&self, gave_up: bool) -> Result<Known, MetadataError> {
        let failure = self.failure();
        match &self.newest {
            Some(newest) => Ok(Known {
                table: Arc::clone(&newest.table),
                stale: (gave_up || failure.is_some()).then(|| newest.as_of.elapsed()),
            }),
            None => Err(failure.cloned().unwrap_or_else(|| {
                MetadataError::Unavailable("it has not answered yet".to_owned())
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use async_trait::async_trait;
    use futures::future::join_all;
    use infrachat_metadata::{Lease, LeaseState, MemoryMetadata};
    use infrachat_types::{Epoch, OriginId, ShardId};

    use super::*;

    /// Takes a while to answer, and counts how often it was asked.
    #[derive(Debug, Default)]
    struct SlowStore {
        /// What followers hear of.
        followed: MemoryMetadata,
        reads: AtomicUsize,
        hangs: AtomicBool,
    }

    const SLOW: Duration = Duration::from_millis(300);

    fn unused<T>() -> Result<T, MetadataError> {
        Err(MetadataError::Unavailable(
            "not a part of this store".to_owned(),
        ))
    }

    #[async_trait]
    impl Routing for SlowStore {
        async fn leases(&self) -> Result<Vec<LeaseView>, MetadataError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            if self.hangs.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            tokio::time::sleep(SLOW).await;
            Ok(Vec::new())
        }
        async fn ownerships(&self) -> Result<Vec<Ownership>, MetadataError> {
            Ok(Vec::new())
        }
        fn watch(&self) -> RoutingWatch {
            self.followed.watch()
        }
        async fn begin_lease(&self, _: Lease) -> Result<(), MetadataError> {
            unused()
        }
        async fn renew_lease(&self, _: Lease) -> Result<(), MetadataError> {
            unused()
        }
        async fn suspect(
            &self,
            _: &ShardId,
            _: &OriginId,
            _: Duration,
        ) -> Result<bool, MetadataError> {
            unused()
        }
        async fn end_lease(&self, _: &ShardId, _: &OriginId) -> Result<(), MetadataError> {
            unused()
        }
        async fn take_partition(
            &self,
            _: u32,
            _: &ShardId,
            _: &OriginId,
            _: Duration,
        ) -> Result<Epoch, MetadataError> {
            unused()
        }
        async fn release_partition(&self, _: u32, _: Epoch) -> Result<(), MetadataError> {
            unused()
        }
    }

    fn cache() -> (Arc<SlowStore>, RoutingCache<SlowStore>) {
        over(Arc::default())
    }

    /// Over a store that can only be read.
    fn unheard() -> (Arc<SlowStore>, RoutingCache<SlowStore>) {
        let store = Arc::<SlowStore>::default();
        store.followed.set_unavailable(true);
        over(store)
    }

    fn over(store: Arc<SlowStore>) -> (Arc<SlowStore>, RoutingCache<SlowStore>) {
        let cache = RoutingCache::new(&Config::default(), Arc::clone(&store));
        (store, cache)
    }

    const PARTITION: u32 = 7;

    impl SlowStore {
        /// A shard takes the partition, and followers hear of it.
        async fn serve(&self, slot: u32) {
            let lease = Lease {
                shard: ShardId::new(&format!("shard-{slot}")).expect("valid"),
                incarnation: OriginId::from_text("life"),
                endpoint: format!("shard-{slot}.example:7003"),
                zone: "us-west1-b".to_owned(),
                sessions: 0,
                state: LeaseState::Active,
            };
            let (shard, life) = (lease.shard.clone(), lease.incarnation.clone());
            self.followed.renew_lease(lease).await.expect("renewed");
            let taken = self
                .followed
                .take_partition(PARTITION, &shard, &life, Duration::ZERO);
            taken.await.expect("its own, or run out");
        }
    }

    /// Where the partition is, if anybody has it.
    async fn place(cache: &RoutingCache<SlowStore>) -> (Option<String>, Option<Duration>) {
        let known = cache.current().await.expect("routes");
        let owner = known.table.place(PARTITION).owner;
        (owner.ok().map(|owner| owner.shard.to_string()), known.stale)
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_heard_is_not_read() {
        let (store, cache) = cache();
        assert_eq!(place(&cache).await, (None, None));
        let ttl = Config::default().lease_ttl;
        for slot in 0..3 {
            store.serve(slot).await;
            let owner = Some(format!("shard-{slot}"));
            assert_eq!(place(&cache).await, (owner.clone(), None));
            tokio::time::advance(ttl).await;
            assert_eq!(place(&cache).await, (owner, None));
            // That a lease runs out is told by nobody.
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(place(&cache).await, (None, None));
        }
        assert_eq!(store.reads.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_is_away_the_last_that_was_heard_holds() {
        let (store, cache) = cache();
        assert_eq!(place(&cache).await, (None, None));
        // Nobody asks for routes between this and the loss.
        store.serve(1).await;
        store.hangs.store(true, Ordering::Relaxed);
        store.followed.set_unavailable(true);
        let away = Config::default().lease_ttl * 2;
        tokio::time::advance(away).await;
        let (owner, stale) = place(&cache).await;
        assert_eq!(owner.as_deref(), Some("shard-1"));
        assert!(stale >= Some(away), "{stale:?}");

        store.followed.set_unavailable(false);
        assert_eq!(place(&cache).await, (None, None));
        store.serve(2).await;
        assert_eq!(place(&cache).await, (Some("shard-2".to_owned()), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_can_only_be_read_is_believed_when_it_answers() {
        let (store, cache) = cache();
        store.serve(1).await;
        assert_eq!(place(&cache).await, (Some("shard-1".to_owned()), None));
        store.followed.set_unavailable(true);
        // It reads as empty.
        assert_eq!(place(&cache).await, (None, None));
        assert_eq!(store.reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn all_callers_share_one_read() {
        let (store, cache) = unheard();
        let answers = join_all((0..100).map(|_| cache.current())).await;
        assert!(
            answers
                .iter()
                .all(|known| matches!(known, Ok(Known { stale: None, .. })))
        );
        assert_eq!(store.reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_store_is_read_again_once_the_routes_are_too_old() {
        let (store, cache) = unheard();
        let refresh = Config::default().refresh;
        cache.current().await.expect("routes");
        tokio::time::advance(refresh - Duration::from_millis(1)).await;
        cache.current().await.expect("routes");
        assert_eq!(store.reads.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        cache.current().await.expect("routes");
        assert_eq!(store.reads.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_hangs_up_does_not_stop_the_read_for_others() {
        let (store, cache) = unheard();
        let hung_up = tokio::time::timeout(SLOW / 2, cache.current()).await;
        assert!(hung_up.is_err());
        cache.current().await.expect("routes");
        assert_eq!(store.reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_delays_callers_little_once_it_is_known_to() {
        let (store, cache) = unheard();
        cache.current().await.expect("routes");
        store.hangs.store(true, Ordering::Relaxed);
        tokio::time::advance(Config::default().refresh).await;
        let first = cache.current().await.expect("the last known");
        assert!(first.stale.is_some());

        tokio::time::advance(Config::default().refresh).await;
        let began = Instant::now();
        let next = cache.current().await.expect("the last known");
        assert!(next.stale > first.stale);
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn without_anything_known_a_store_that_hangs_is_an_error_in_time() {
        let (store, cache) = unheard();
        store.hangs.store(true, Ordering::Relaxed);
        let began = Instant::now();
        assert!(cache.current().await.is_err());
        assert_eq!(began.elapsed(), READ_TIMEOUT);
    }
}
