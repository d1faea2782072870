//! The Pub/Sub emulator: gRPC, and REST with JSON, on one port.

mod ack_id;
mod broker;
mod filter;
mod keeper;
mod message;
mod names;
mod oidc;
mod paging;
mod publisher;
mod push;
mod queue;
mod regions;
mod settings;
mod streaming;
mod subscriber;
mod subscription;
mod topic;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use infrachat_runtime::{BindError, Listener, ServeError, ServeSettings};
use prost_reflect::{DescriptorError, DescriptorPool};
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};

pub use self::oidc::SignerError;
use self::{
    broker::Broker, keeper::Keeper, oidc::Signer, publisher::PublisherService,
    subscriber::SubscriberService,
};
use crate::{
    DESCRIPTORS,
    clock::Clock,
    faults::{Faults, Service},
    proto::{publisher_server::PublisherServer, subscriber_server::SubscriberServer},
    rest::{Rest, RestError},
};

/// The largest gRPC request: a publish of 10 MB with what the wire adds.
const LARGEST_REQUEST: usize = 12 * 1024 * 1024;

/// What the emulator is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// "host:port"; port 0 picks a free one.
    pub address: String,
    /// The faults it obeys.
    pub faults: Faults,
    /// The time it goes by.
    pub clock: Clock,
    /// The issuer in the tokens of pushes: where the keys are found. By default the emulator's own
    /// address.
    pub issuer: Option<String>,
}

/// Why the emulator didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The contracts.
    #[error("the contracts can't be read: {0}")]
    Contracts(#[from] DescriptorError),
    /// The contracts' REST paths.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The key for pushes.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

/// The emulator, bound: connections wait until it runs.
#[derive(Debug)]
pub struct Emulator {
    listener: Listener,
    routes: Router,
    keeper: Keeper,
    stop: CancellationToken,
}

impl Emulator {
    /// Binds the port and makes a key for the tokens of pushes.
    ///
    /// # Errors
    /// When the port can't be had.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let listener = Listener::bind(&config.address).await?;
        let contracts = DescriptorPool::decode(DESCRIPTORS)?;
        let issuer = config
            .issuer
            .unwrap_or_else(|| format!("http://{}", listener.address()));
        let signer = Arc::new(Signer::new(issuer)?);
        let stop = CancellationToken::new();
        let broker = Arc::new(Broker::new(
            contracts.clone(),
            config.clock,
            config.faults.clone(),
            stop.clone(),
        ));
        let keeper = Keeper::new(Arc::clone(&broker), Arc::clone(&signer));
        let grpc = grpc(broker, keeper.clone(), config.faults);
        let rest = Rest::new(&contracts, grpc.clone())?;
        let routes = grpc
            .merge(signer.routes())
            // What scripts wait for, as with Google's emulator.
            .route("/", get(|| async { "Ok\n" }))
            .fallback(|request| rest.call(request));
        Ok(Self {
            listener,
            routes,
            keeper,
            stop,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop`; streams end with UNAVAILABLE then.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let Self {
            listener,
            routes,
            keeper,
            stop: ours,
        } = self;
        let settings = ServeSettings {
            // Clients open a stream a subscription, all on one connection.
            max_streams_per_connection: 10_000,
            stream_window: 1024 * 1024,
            ..ServeSettings::default()
        };
        let serving = listener.serve(Routes::from(routes), settings, ours.clone());
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = stop.cancelled() => {
                ours.cancel();
                serving.await
            }
        };
        ours.cancel();
        keeper.finish().await;
        served
    }
}

/// The gRPC services, faults in front.
fn grpc(broker: Arc<Broker>, keeper: Keeper, faults: Faults) -> Router {
    let publisher = PublisherServer::new(PublisherService(Arc::clone(&broker)))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(LARGEST_REQUEST)
        .max_encoding_message_size(usize::MAX);
    let subscriber = SubscriberServer::new(SubscriberService { broker, keeper })
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(LARGEST_REQUEST)
        .max_encoding_message_size(usize::MAX);
    Routes::new(publisher)
        .add_service(subscriber)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(faults, admit))
}

async fn admit(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    match faults.admit(Service::Pubsub, method).await {
        Ok(()) => next.run(request).await,
        Err(status) => status.into_http(),
    }
}
