//! A shard as a value: bound, run, stopped.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use infrachat_bus::{BusError, Subscription, Topic};
use infrachat_control::Hearing;
use infrachat_identity::Revocations;
use infrachat_runtime::{BindError, Listener, ServeError, ServeSettings};
use infrachat_types::{CloseCode, OriginId, Region};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Access,
    callers::Callers,
    config::{BadTuning, ShardConfig},
    control,
    counted::{COUNTED, Source},
    gate::Gate,
    history::HistoryBudget,
    memory::{self, Memory},
    observe::{self, Lag, ShardStanding},
    ownership,
    parts::{Clock, Dependencies, Partitions, Parts},
    presence::{self, SeatBook},
    registry::Sessions,
};

/// Topics made sure of at once.
const TOPICS_AT_ONCE: usize = 32;

/// Why a shard could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port can't be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The bus can't be used.
    #[error("the bus can't be used")]
    Bus(#[from] BusError),
    /// The settings contradict each other.
    #[error(transparent)]
    Tuning(#[from] BadTuning),
    /// The configuration contradicts itself.
    #[error("region {0} has no store among the configured ones")]
    NoStore(Region),
}

/// A shard that listens.
#[derive(Debug)]
pub struct Shard {
    listener: Listener,
    parts: Arc<Parts>,
    revocations: Arc<dyn Revocations>,
}

impl Shard {
    /// Binds the port and checks what it depends on.
    ///
    /// # Errors
    /// When the port can't be had, or the configuration or the bus can't be used.
    pub async fn bind(config: ShardConfig, dependencies: Dependencies) -> Result<Self, StartError> {
        config.tuning.check()?;
        let listener = Listener::bind(&config.listen).await?;
        Self::on(listener, config, dependencies).await
    }

    /// On a listener that is there already, whatever the configuration says.
    ///
    /// # Errors
    /// When the configuration or the bus can't be used.
    pub async fn on(
        listener: Listener,
        config: ShardConfig,
        dependencies: Dependencies,
    ) -> Result<Self, StartError> {
        config.tuning.check()?;
        let Dependencies {
            region,
            stores,
            bus,
            presence,
            verifier,
            revocations,
            clock,
        } = dependencies;
        let store = stores
            .get(&region)
            .cloned()
            .ok_or_else(|| StartError::NoStore(region.clone()))?;
        let endpoint = config
            .advertise
            .unwrap_or_else(|| listener.address().to_string());
        let others = stores.keys().filter(|other| **other != region);
        let regions: Vec<Region> = std::iter::once(&region).chain(others).cloned().collect();
        let memory = Memory::new(config.tuning.memory_budget_bytes);
        let parts = Arc::new(Parts {
            sources: regions.iter().map(Source::new).collect(),
            lag: Arc::new(Lag::new(clock.clone())),
            region,
            regions,
            shard: config.shard,
            incarnation: OriginId::random(),
            endpoint,
            store,
            stores,
            bus,
            presence,
            callers: Callers::new(verifier),
            sessions: Arc::new(Sessions::new(config.tuning.max_sessions)),
            access: Access::default(),
            seats: SeatBook::default(),
            partitions: Partitions::default(),
            tuning: config.tuning,
            partition_count: config.partitions,
            clock: Clock::new(clock),
            history_budget: Arc::new(HistoryBudget::new(
                config.tuning.history_backlog_bytes,
                Arc::clone(&memory),
            )),
            memory,
            tasks: TaskTracker::new(),
        });
        control::follower(&parts).prepare(&Hearing::Pull).await?;
        ensure_topics(&parts).await?;
        Ok(Self {
            listener,
            parts,
            revocations,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Says how it stands, also while it runs.
    #[must_use]
    pub fn standing(&self) -> ShardStanding {
        ShardStanding(Arc::clone(&self.parts))
    }

    /// Serves until `stop`; then gives its partitions back, sends its sessions away, and waits for
    /// them for as long as the tuning says.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let Self {
            listener,
            parts,
            revocations,
        } = self;
        let stop = stop.child_token();
        let sessions = TaskTracker::new();
        let background = TaskTracker::new();
        let end = CancellationToken::new();
        background.spawn(
            end.clone()
                .run_until_cancelled_owned(presence::maintain(Arc::clone(&parts))),
        );
        let load = {
            let parts = Arc::clone(&parts);
            async move { parts.callers.load(&*revocations).await }
        };
        background.spawn(end.clone().run_until_cancelled_owned(load));
        let observed = Arc::clone(&parts);
        let observing = async move { observe::observe(&observed).await };
        background.spawn(end.clone().run_until_cancelled_owned(observing));
        let kept = Arc::clone(&parts);
        let keeping = async move { memory::keep(&kept).await };
        background.spawn(end.clone().run_until_cancelled_owned(keeping));
        let (follower, address) = (control::follower(&parts), listener.address());
        let hearing = async move { follower.run(&Hearing::Pull, address).await };
        background.spawn(end.clone().run_until_cancelled_owned(hearing));
        let owning = background.spawn(ownership::run(Arc::clone(&parts), stop.clone()));
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<Gate>().await;
        let mut routes =
            tonic::service::Routes::new(Gate::new(&parts, &sessions)).add_service(health_service);
        let healthz = axum::routing::get(async || "ok\n");
        *routes.axum_router_mut() =
            std::mem::take(routes.axum_router_mut()).route("/healthz", healthz);
        let closed = CancellationToken::new();
        let serving = async {
            let served = listener
                .serve(routes, ServeSettings::default(), closed.clone())
                .await;
            // Without a port there is nothing to hold partitions for.
            stop.cancel();
            served
        };
        let drain = async {
            COUNTED.draining.set(0);
            stop.cancelled().await;
            COUNTED.draining.set(1);
            health.set_not_serving::<Gate>().await;
            drain(&parts, owning, &sessions).await;
            closed.cancel();
        };
        let (served, ()) = tokio::join!(serving, drain);
        end.cancel();
        background.close();
        background.wait().await;
        served
    }
}

/// Sends everyone away, and closes those who stay.
async fn drain(parts: &Parts, owning: tokio::task::JoinHandle<()>, sessions: &TaskTracker) {
    let grace = parts.tuning.drain;
    if let Err(err) = owning.await {
        tracing::error!(%err, "giving partitions back failed");
    }
    // Only now: who is sent away is not sent back here.
    parts.sessions.go_away(grace / 2);
    sessions.close();
    if tokio::time::timeout(grace, sessions.wait()).await.is_err() {
        parts.sessions.close_all(
            CloseCode::ShuttingDown,
            "the shard stops: connect to another",
        );
        if tokio::time::timeout(Duration::from_secs(3), sessions.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = sessions.len(),
                ?grace,
                "sessions were still open at the end of the drain"
            );
        }
    }
    parts.tasks.close();
    drop(tokio::time::timeout(Duration::from_secs(2), parts.tasks.wait()).await);
}

/// That this region has its place in every partition's topics. A bus that is away is waited for by
/// who consumes.
async fn ensure_topics(parts: &Parts) -> Result<(), BusError> {
    let partitions = parts.partition_count.partitions();
    let places = parts.stores.keys().flat_map(|source| {
        partitions.clone().map(|number| Subscription {
            topic: Topic {
                region: source.to_string(),
                name: infrachat_routing::messages_topic(number),
            },
            group: parts.region.to_string(),
        })
    });
    let ensuring = places.map(|place| async move {
        match parts.bus.ensure(&place).await {
            Err(BusError::Unavailable(err)) => {
                tracing::warn!(subscription = %place, err, "the subscription can't be made sure of now");
                Ok(())
            }
            ensured => ensured,
        }
    });
    stream::iter(ensuring)
        .buffered(TOPICS_AT_ONCE)
        .try_collect()
        .await
}
