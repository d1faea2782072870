//! Looks whether the region's shards can be reached, as clients reach them, and has those counted out
//! that can't.
//!
//! A shard that lives and nobody reaches would hold its partitions for ever: it renews its lease. Three
//! probes that it misses in a row make it suspect, for as long as a lease lasts; every further one
//! prolongs that. So a shard comes back once no Switchboard of the region has missed it for that long,
//! and a Switchboard that stops, or no longer sees the store, keeps nobody out.
//!
//! Who misses more shards than it reaches takes itself for the one that can't be reached, and counts none
//! out. Several that each miss another part don't count out more than half together: the store refuses
//! that.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::join_all;
use infrachat_metadata::{Lease, LeaseState, Routing};
use infrachat_proto::chat::v1::server::chat_service_server;
use infrachat_types::{OriginId, ShardId};
use tokio::time::{MissedTickBehavior, timeout};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{cache::RoutingCache, config::Config, counted::COUNTED};

/// A probe that takes longer is missed.
const LIMIT: Duration = Duration::from_secs(1);
/// How long the store may take to count a shard out.
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// So many missed in a row make a shard suspect.
const MISSES: u32 = 3;

/// Probes the shards of a region.
pub(crate) struct Prober<S: ?Sized> {
    store: Arc<S>,
    routes: Arc<RoutingCache<S>>,
    lease_ttl: Duration,
    interval: Duration,
    /// By life, of those that were there at the last round.
    missed: HashMap<(ShardId, OriginId), u32>,
    /// It misses more than it reaches.
    lost: bool,
}

impl<S: ?Sized> std::fmt::Debug for Prober<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober")
            .field("interval", &self.interval)
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

impl<S: Routing + Send + Sync + ?Sized + 'static> Prober<S> {
    pub(crate) fn new(config: &Config, store: Arc<S>, routes: Arc<RoutingCache<S>>) -> Self {
        Self {
            store,
            routes,
            lease_ttl: config.lease_ttl,
            interval: config.probe_interval,
            missed: HashMap::new(),
            lost: false,
        }
    }

    /// Probes for ever, unless it is told not to.
    pub(crate) async fn run(self) {
        if !self.interval.is_zero() {
            self.run_with(|endpoint| async move { answers(&endpoint).await })
                .await;
        }
    }

    async fn run_with<F: Future<Output = bool>>(mut self, probe: impl Fn(String) -> F) {
        let mut pace = tokio::time::interval(self.interval);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            self.round(&probe).await;
        }
    }

    async fn round<F: Future<Output = bool>>(&mut self, probe: impl Fn(String) -> F) {
        // What was known once says nothing of who lives, and the store could not be told anyway.
        let Ok(known) = self.routes.current().await else {
            return;
        };
        if known.stale.is_some() {
            return;
        }
        let of = |state| known.table.shards(state);
        let leases: Vec<_> = of(LeaseState::Active)
            .chain(of(LeaseState::Suspect))
            .collect();
        let probes = leases.iter().map(|lease| {
            let probing = probe(lease.endpoint.clone());
            async { timeout(LIMIT, probing).await.unwrap_or_default() }
        });
        let answers = join_all(probes).await;
        let former = std::mem::take(&mut self.missed);
        let mut failing = Vec::new();
        for (lease, answered) in leases.iter().zip(answers) {
            let life = (lease.shard.clone(), lease.incarnation.clone());
            let before = former.get(&life).copied().unwrap_or_default();
            let missed = if answered { 0 } else { before + 1 };
            self.missed.insert(life, missed);
            if answered {
                COUNTED.answered.increment(1);
            } else {
                COUNTED.missed.increment(1);
            }
            if answered && before >= MISSES {
                tracing::info!(shard = %lease.shard, "a shard answers its probes again");
            }
            if missed == MISSES {
                tracing::warn!(shard = %lease.shard, endpoint = lease.endpoint, "a shard does not answer its probes");
            }
            if missed >= MISSES {
                failing.push(*lease);
            }
        }
        let reached = self.missed.values().filter(|missed| **missed == 0).count();
        if !self.is_lost(failing.len(), reached) {
            join_all(failing.into_iter().map(|lease| self.count_out(lease))).await;
        }
    }

    /// Whether it is rather this Switchboard that can't be reached.
    fn is_lost(&mut self, failing: usize, reached: usize) -> bool {
        let lost = failing > reached;
        if lost && !self.lost {
            tracing::error!(
                failing,
                reached,
                "more shards miss their probes than answer: counting none out"
            );
        }
        self.lost = lost;
        COUNTED.prober_lost.set(u32::from(lost));
        lost
    }

    async fn count_out(&self, lease: &Lease) {
        let shard = &lease.shard;
        let suspecting = self
            .store
            .suspect(shard, &lease.incarnation, self.lease_ttl);
        match timeout(STORE_LIMIT, suspecting).await {
            Ok(Ok(true)) => tracing::debug!(%shard, "a shard is counted out"),
            Ok(Ok(false)) => tracing::warn!(
                %shard,
                "a shard that misses its probes is not counted out: it is gone, or too few would be left"
            ),
            Ok(Err(err)) => tracing::warn!(%shard, %err, "a shard can't be counted out"),
            Err(_) => tracing::warn!(%shard, "a shard can't be counted out: no answer in time"),
        }
    }
}

/// Whether a shard serves whoever comes to this address now.
async fn answers(address: &str) -> bool {
    let asked = ask(address).await;
    if let Err(err) = &asked {
        tracing::debug!(address, %err, "a probe was missed");
    }
    asked.is_ok_and(|status| status == ServingStatus::Serving)
}

/// On a connection of its own: that a former one still works says little to who needs one.
async fn ask(address: &str) -> Result<ServingStatus, Box<dyn std::error::Error + Send + Sync>> {
    let mut endpoint = Endpoint::from_shared(infrachat_proto::uri_of(address))?;
    if endpoint.uri().scheme_str() == Some("https") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_webpki_roots())?;
    }
    let request = HealthCheckRequest {
        service: chat_service_server::SERVICE_NAME.to_owned(),
    };
    let mut client = HealthClient::new(endpoint.connect().await?);
    Ok(client.check(request).await?.into_inner().status())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{Mutex, PoisonError},
    };

    use infrachat_metadata::{MemoryMetadata, MetadataError};
    use tokio::{task::JoinHandle, time::sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NONE: [usize; 0] = [];

    /// The addresses where nobody answers.
    type Silent = Arc<Mutex<HashSet<String>>>;

    fn is_silent(silent: &Silent, endpoint: &str) -> bool {
        let silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.contains(endpoint)
    }

    /// Shards that live, and who can't be reached by whom.
    #[derive(Default)]
    struct World {
        store: Arc<MemoryMetadata>,
        shards: Vec<Lease>,
        silent: Silent,
    }

    fn lease(slot: u32, life: &str) -> Lease {
        Lease {
            shard: ShardId::new(&format!("shard-{slot}")).expect("valid"),
            incarnation: OriginId::from_text(life),
            endpoint: format!("shard-{slot}.example:7003"),
            zone: "us-west1-b".to_owned(),
            sessions: 0,
            state: LeaseState::Active,
        }
    }

    impl World {
        async fn of(shards: u32) -> Self {
            let world = Self {
                shards: (0..shards).map(|slot| lease(slot, "life")).collect(),
                ..Self::default()
            };
            for lease in &world.shards {
                let begun = world.store.begin_lease(lease.clone()).await;
                begun.expect("begun");
            }
            world
        }

        /// A Switchboard's prober, and whom it doesn't reach.
        fn prober(&self, silent: &Silent) -> JoinHandle<()> {
            let config = Config::default();
            let routes = RoutingCache::new(&config, Arc::clone(&self.store));
            let prober = Prober::new(&config, Arc::clone(&self.store), Arc::new(routes));
            let silent = Arc::clone(silent);
            tokio::spawn(prober.run_with(move |endpoint| {
                let silent = Arc::clone(&silent);
                async move {
                    if is_silent(&silent, &endpoint) {
                        std::future::pending::<()>().await;
                    }
                    true
                }
            }))
        }

        fn silence(&self, slots: &[usize]) {
            let silenced = slots.iter().map(|slot| self.shards[*slot].endpoint.clone());
            let silenced = silenced.collect();
            *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = silenced;
        }

        /// Lets so many seconds pass, in which all shards renew; answers who is counted out then.
        async fn pass(&self, seconds: u32) -> Vec<usize> {
            let mut refused = Vec::new();
            for _ in 0..seconds {
                // Half-way between probes.
                sleep(SECOND).await;
                refused.clear();
                for (slot, lease) in self.shards.iter().enumerate() {
                    match self.store.renew_lease(lease.clone()).await {
                        Ok(()) => {}
                        Err(MetadataError::Suspected(_)) => refused.push(slot),
                        Err(err) => panic!("{err}"),
                    }
                }
            }
            refused
        }
    }

    #[tokio::test(start_paused = true)]
    async fn three_misses_in_a_row_count_a_shard_out_and_answers_let_it_return() {
        let world = World::of(3).await;
        sleep(SECOND / 2).await;
        let _prober = world.prober(&world.silent);
        assert_eq!(world.pass(10).await, NONE);
        // Missed twice, and answered: and that again and again.
        for _ in 0..3 {
            world.silence(&[1]);
            assert_eq!(world.pass(2).await, NONE);
            world.silence(&[]);
            assert_eq!(world.pass(2).await, NONE);
        }
        world.silence(&[1]);
        assert_eq!(world.pass(5).await, [1]);
        assert_eq!(world.pass(60).await, [1], "for as long as it is silent");
        world.silence(&[]);
        let lasting = u32::try_from(Config::default().lease_ttl.as_secs()).expect("short");
        assert_eq!(world.pass(lasting - 1).await, [1]);
        assert_eq!(world.pass(3).await, NONE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_misses_more_than_it_reaches_counts_none_out() {
        let world = World::of(3).await;
        let _prober = world.prober(&world.silent);
        world.silence(&[0, 1]);
        assert_eq!(world.pass(20).await, NONE);
        world.silence(&[0, 1, 2]);
        assert_eq!(world.pass(20).await, NONE);
        // And lets those return that it had counted out.
        world.silence(&[2]);
        assert_eq!(world.pass(10).await, [2]);
        world.silence(&[0, 1, 2]);
        assert_eq!(world.pass(10).await, NONE);
    }

    #[tokio::test(start_paused = true)]
    async fn another_life_is_probed_afresh() {
        let mut world = World::of(2).await;
        let _prober = world.prober(&world.silent);
        world.silence(&[0]);
        assert_eq!(world.pass(10).await, [0]);
        world.shards[0] = lease(0, "next-life");
        let begun = world.store.begin_lease(world.shards[0].clone()).await;
        begun.expect("begun");
        assert_eq!(world.pass(2).await, NONE);
        assert_eq!(world.pass(5).await, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_switchboards_any_keeps_a_shard_out_while_it_lives() {
        let world = World::of(4).await;
        let (misses_none, misses_one) = (Silent::default(), &world.silent);
        let _first = world.prober(&misses_none);
        let second = world.prober(misses_one);
        world.silence(&[3]);
        assert_eq!(world.pass(30).await, [3]);
        second.abort();
        assert_eq!(world.pass(10).await, NONE);
    }

    #[tokio::test(start_paused = true)]
    async fn switchboards_that_each_miss_another_half_leave_half() {
        let world = World::of(4).await;
        let other = Arc::new(Mutex::new(HashSet::from(
            [2, 3].map(|slot: usize| world.shards[slot].endpoint.clone()),
        )));
        world.silence(&[0, 1]);
        let _probers = [world.prober(&world.silent), world.prober(&other)];
        for _ in 0..20 {
            assert!(world.pass(1).await.len() <= 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_is_away_nothing_is_found_out() {
        let world = World::of(2).await;
        let _prober = world.prober(&world.silent);
        assert_eq!(world.pass(5).await, NONE);
        world.store.set_unavailable(true);
        world.silence(&[1]);
        sleep(SECOND * 30).await;
        world.silence(&[]);
        world.store.set_unavailable(false);
        assert_eq!(world.pass(5).await, NONE);
    }
}
