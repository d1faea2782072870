//! The routing table, read from the store at most every so often, and kept while the store is away.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use infrachat_metadata::{MetadataError, Routing};
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

#[derive(Debug, Default)]
struct State {
    table: Option<(Arc<RoutingTable>, Instant)>,
    /// When the last read ended, and how it failed.
    last: Option<(Instant, Option<MetadataError>)>,
    /// The read under way.
    reading: Option<JoinHandle<()>>,
}

/// What is known of the routes.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// As of the last read that succeeded.
    pub(crate) table: Arc<RoutingTable>,
    /// How old it is, when the store did not answer.
    pub(crate) stale: Option<Duration>,
}

impl<S: Routing + Send + Sync + ?Sized + 'static> RoutingCache<S> {
    pub(crate) fn new(config: &Config, store: Arc<S>) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                partitions: config.partitions,
                lease_ttl: config.lease_ttl,
                refresh: config.refresh,
                state: Mutex::default(),
                read: watch::Sender::new(()),
            }),
        }
    }

    /// The routes: no older than the refresh interval, or, when the store is away or slow, the last
    /// known. All callers share one read.
    ///
    /// # Errors
    /// When the store is away and nothing was ever known.
    pub(crate) async fn current(&self) -> Result<Known, MetadataError> {
        let mut read = self.shared.read.subscribe();
        let patience = {
            let mut state = self.shared.lock();
            if state.tried_within(self.shared.refresh) {
                return state.known(false);
            }
            if state.reading.as_ref().is_none_or(JoinHandle::is_finished) {
                // A task of its own, so that a caller who hangs up does not stop it for the others.
                state.reading = Some(tokio::spawn(Arc::clone(&self.shared).read()));
            }
            if state.table.is_some() && state.failure().is_some() {
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
                    let table =
                        RoutingTable::new(self.partitions, self.lease_ttl, leases, ownerships);
                    state.table = Some((Arc::new(table), began));
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
        match &self.table {
            Some((table, read_at)) => Ok(Known {
                table: Arc::clone(table),
                stale: (gave_up || failure.is_some()).then(|| read_at.elapsed()),
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
    use infrachat_metadata::{Lease, LeaseView, MemoryMetadata, Ownership, RoutingWatch};
    use infrachat_types::{Epoch, OriginId, ShardId};

    use super::*;

    /// Takes a while to answer, and counts how often it was asked.
    #[derive(Debug, Default)]
    struct SlowStore {
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
        /// It is never heard.
        fn watch(&self) -> RoutingWatch {
            let gone = MemoryMetadata::new();
            gone.watch()
        }
        async fn renew_lease(&self, _: Lease) -> Result<(), MetadataError> {
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
        let store = Arc::<SlowStore>::default();
        let cache = RoutingCache::new(&Config::default(), Arc::clone(&store));
        (store, cache)
    }

    #[tokio::test(start_paused = true)]
    async fn all_callers_share_one_read() {
        let (store, cache) = cache();
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
        let (store, cache) = cache();
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
        let (store, cache) = cache();
        let hung_up = tokio::time::timeout(SLOW / 2, cache.current()).await;
        assert!(hung_up.is_err());
        cache.current().await.expect("routes");
        assert_eq!(store.reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_delays_callers_little_once_it_is_known_to() {
        let (store, cache) = cache();
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
        let (store, cache) = cache();
        store.hangs.store(true, Ordering::Relaxed);
        let began = Instant::now();
        assert!(cache.current().await.is_err());
        assert_eq!(began.elapsed(), READ_TIMEOUT);
    }
}
