//! Switchboard: says which shard of its region serves a channel, and lists channels.
//!
//! It keeps no state of its own. Routes come from the region's store, through a short cache; while
//! the store is away, the last known routes are served. Beside that, it copies what other regions
//! decide (channels, users) into its region's store, led by the control events on the bus, and probes
//! its region's shards: those that can't be reached are counted out.

mod cache;
mod callers;
mod config;
mod counted;
mod prober;
mod replicator;
mod service;
mod table;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::routing::get;
use infrachat_bus::{BusError, EventBus};
use infrachat_control::{DeadLetters, Follower, Hearing};
use infrachat_identity::{Revocations, TokenVerifier};
use infrachat_metadata::Metadata;
use infrachat_proto::switchboard::v1::switchboard_service_server::SwitchboardServiceServer;
use infrachat_runtime::{BindError, Listener, ServeError, ServeSettings};
use infrachat_types::Region;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use cache::RoutingCache;
use callers::Callers;
pub use config::Config;
use prober::Prober;
use replicator::Replicator;
use service::Service;

/// Largest request: 1,000 of the longest names take a third of it.
const MAX_REQUEST_BYTES: usize = 256 * 1024;

/// The deployment's parts, as Switchboard uses them.
#[derive(Debug, Clone)]
pub struct Dependencies {
    /// The region it serves.
    pub region: Region,
    /// The store of each region; its own must be among them.
    pub stores: BTreeMap<Region, Arc<dyn Metadata>>,
    /// The bus, as seen from its region.
    pub bus: Arc<dyn EventBus>,
    /// Verifies access tokens.
    pub verifier: Arc<TokenVerifier>,
    /// The region's revocations.
    pub revocations: Arc<dyn Revocations>,
    /// How it hears control events.
    pub hearing: Hearing,
}

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port can't be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The bus can't be used.
    #[error("the bus can't be used")]
    Bus(#[from] BusError),
    /// There is no store for its own region.
    #[error("there is no store for {0}, the region to serve")]
    NoStore(Region),
}

/// A Switchboard that listens.
#[derive(Debug)]
pub struct Switchboard {
    listener: Listener,
    service: Arc<Service>,
    prober: Prober<dyn Metadata>,
    follower: Follower,
    hearing: Hearing,
}

impl Switchboard {
    /// Listens from then on, and answers once it runs. Control events that are published from then
    /// on reach the region, unless the bus is away: then, from its return.
    ///
    /// # Errors
    /// When the port can't be had, or the own region's store is missing.
    pub async fn bind(config: Config, dependencies: Dependencies) -> Result<Self, StartError> {
        let listener = Listener::bind(&config.listen).await?;
        Self::on(listener, config, dependencies).await
    }

    /// On a listener that is there already, whatever the configuration says.
    ///
    /// # Errors
    /// When the own region's store is missing.
    pub async fn on(
        listener: Listener,
        config: Config,
        dependencies: Dependencies,
    ) -> Result<Self, StartError> {
        let Dependencies {
            region,
            stores,
            bus,
            verifier,
            revocations,
            hearing,
        } = dependencies;
        let Some(store) = stores.get(&region).cloned() else {
            return Err(StartError::NoStore(region));
        };
        let regions = stores.keys().map(ToString::to_string).collect();
        let callers = Callers::new(verifier, revocations);
        let routes = Arc::new(RoutingCache::new(&config, Arc::clone(&store)));
        let prober = Prober::new(&config, Arc::clone(&store), Arc::clone(&routes));
        let service = Service::new(&config, Arc::clone(&store), routes, regions, callers);
        let service = Arc::new(service);
        let sources = stores.keys().cloned().collect();
        let group = format!("switchboard-{region}");
        let dead_letters = DeadLetters::new(Arc::clone(&bus), &region);
        let replicator = Arc::new(Replicator {
            region,
            store,
            stores,
        });
        let follower = Follower::new(bus, sources, group, replicator, dead_letters);
        follower.prepare(&hearing).await?;
        Ok(Self {
            listener,
            service,
            prober,
            follower,
            hearing,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop`, then lets open calls end within a few seconds.
    ///
    /// # Errors
    /// When the port fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let Self {
            listener,
            service,
            prober,
            follower,
            hearing,
        } = self;
        let (health, health_service) = tonic_health::server::health_reporter();
        let server = SwitchboardServiceServer::from_arc(Arc::clone(&service))
            .max_decoding_message_size(MAX_REQUEST_BYTES);
        health
            .set_serving::<SwitchboardServiceServer<Service>>()
            .await;
        let mut routes = Routes::new(server).add_service(health_service);
        let router = routes.axum_router_mut();
        *router = std::mem::take(router)
            .route("/healthz", get(|| async { "ok\n" }))
            .merge(follower.routes(&hearing));
        let address = listener.address();
        let observing = Arc::clone(&service).observe();

        let serving = listener.serve(routes, ServeSettings::default(), stop.clone());
        let background = async {
            stop.run_until_cancelled(async {
                tokio::join!(follower.run(&hearing, address), observing, prober.run())
            })
            .await;
            health
                .set_not_serving::<SwitchboardServiceServer<Service>>()
                .await;
            std::future::pending().await
        };
        tokio::select! {
            served = serving => served,
            never = background => never,
        }
    }
}
