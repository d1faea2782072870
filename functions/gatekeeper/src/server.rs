//! The server: parts put together behind one port.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{Router, http::header, routing::get};
use bytes::Bytes;
use infrachat_bus::EventBus;
use infrachat_control::{DeadLetters, Follower, Hearing};
use infrachat_identity::{KeyRing, RateLimiter, Revocations, TokenIssuer};
use infrachat_metadata::Metadata;
use infrachat_proto::gatekeeper::v1::gatekeeper_service_server::GatekeeperServiceServer;
use infrachat_runtime::{Listener, ServeError, ServeSettings};
use infrachat_types::Region;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::{
    Config, StartError,
    accounts::Accounts,
    announcer::Announcer,
    copies::Copies,
    guard::Guard,
    regions::Regions,
    service::{Service, endpoints},
    sign_ins::{Lifetimes, SignIns},
};

/// The largest request is a password or a token with a name.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Verifiers that meet a new key id ask at once; this is for whoever caches blindly.
const KEYS_CACHE_CONTROL: &str = "public, max-age=60";

type Server = GatekeeperServiceServer<Service>;

/// What Gatekeeper needs of others.
#[derive(Debug)]
pub struct Dependencies {
    /// This region.
    pub region: Region,
    /// Each region's store, this region's among them.
    pub stores: BTreeMap<Region, Arc<dyn Metadata>>,
    /// The bus, as seen from this region.
    pub bus: Arc<dyn EventBus>,
    /// Guards sign-ins and registrations.
    pub limiter: Arc<dyn RateLimiter>,
    /// This region's revocations.
    pub revocations: Arc<dyn Revocations>,
    /// Signs access tokens.
    pub keys: KeyRing,
    /// How it hears control events.
    pub hearing: Hearing,
}

/// A Gatekeeper that listens.
#[derive(Debug)]
pub struct Gatekeeper {
    listener: Listener,
    routes: Routes,
    health: HealthReporter,
    follower: Follower,
    hearing: Hearing,
    announcer: Announcer,
}

impl Gatekeeper {
    /// Listens where the configuration says. Calls that come before [`Gatekeeper::run`] wait.
    ///
    /// # Errors
    /// When the port can't be had, or this region has no store.
    pub async fn bind(config: Config, dependencies: Dependencies) -> Result<Self, StartError> {
        let listener = Listener::bind(&config.listen).await?;
        Self::on(listener, config, dependencies).await
    }

    /// On a port that is bound already, whatever the configuration says: for a process that must
    /// know the ports of all its services before it configures any.
    ///
    /// # Errors
    /// When this region has no store.
    pub async fn on(
        listener: Listener,
        config: Config,
        dependencies: Dependencies,
    ) -> Result<Self, StartError> {
        let Dependencies {
            region,
            stores,
            bus,
            limiter,
            revocations,
            keys,
            hearing,
        } = dependencies;
        let regions = Arc::new(Regions::new(region.clone(), stores)?);
        let announcer = Announcer::new(Arc::clone(&bus), region.clone());
        let http = http(keys.jwks().to_json()?.into());
        let issuer = TokenIssuer::new(
            config
                .issuer
                .clone()
                .unwrap_or_else(|| TokenIssuer::default_name(&region)),
            region.clone(),
            keys,
            config.access_token,
        );
        let lifetimes = Lifetimes {
            refresh: config.refresh_token,
            grace: config.refresh_grace,
        };
        let service = Service {
            guard: Guard::new(limiter, &config),
            accounts: Accounts::new(Arc::clone(&regions), announcer.clone()),
            sign_ins: SignIns::new(
                Arc::clone(&regions),
                issuer,
                lifetimes,
                Arc::clone(&revocations),
                announcer.clone(),
            ),
            endpoints: endpoints(&region, &config.endpoints),
            trusted_proxies: config.trusted_proxies,
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<Server>().await;
        let server = Server::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
        let mut routes = Routes::new(server).add_service(health_service);
        let follower = Follower::new(
            Arc::clone(&bus),
            regions.all().map(|store| store.region.clone()).collect(),
            format!("gatekeeper-{region}"),
            Arc::new(Copies {
                regions,
                revocations,
            }),
            DeadLetters::new(bus, &region),
        );
        follower.prepare(&hearing).await?;
        let router = std::mem::take(routes.axum_router_mut());
        *routes.axum_router_mut() = router.merge(http).merge(follower.routes(&hearing));
        Ok(Self {
            listener,
            routes,
            health,
            follower,
            hearing,
            announcer,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop`, then lets open calls end.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let stop = stop.child_token();
        let address = self.address();
        let serving = async {
            let settings = ServeSettings::default();
            let served = self.listener.serve(self.routes, settings, stop.clone());
            let served = served.await;
            stop.cancel();
            served
        };
        let leaving = async {
            stop.cancelled().await;
            self.health.set_not_serving::<Server>().await;
        };
        let hearing = stop.run_until_cancelled(self.follower.run(&self.hearing, address));
        let (served, _, ()) = tokio::join!(serving, hearing, leaving);
        self.announcer.drain().await;
        served
    }
}

/// What is plain HTTP: the public keys, and a sign of life.
fn http(jwks: Bytes) -> Router {
    let headers = [
        (header::CONTENT_TYPE, "application/jwk-set+json"),
        (header::CACHE_CONTROL, KEYS_CACHE_CONTROL),
    ];
    Router::new()
        .route(
            "/.well-known/jwks.json",
            get(async move || (headers, jwks.clone())),
        )
        .route("/healthz", get(async || "ok\n"))
}
