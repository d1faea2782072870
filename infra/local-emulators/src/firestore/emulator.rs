//! The server: one port for gRPC and for resetting.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{delete, get},
};
use infrachat_runtime::{BindError, Listener, ServeError, ServeSettings};
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};

use super::{
    database::Databases, path::DatabaseName, proto::v1::firestore_server::FirestoreServer,
    service::Service,
};
use crate::faults::Faults;

/// Larger than any request that is let in, so that one too large gets Google's answer.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// What the emulator is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// "host:port"; port 0 picks a free one.
    pub address: String,
    /// The faults it obeys.
    pub faults: Faults,
    /// How much of the past it keeps.
    pub history: History,
}

/// How much of the past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// How long past versions of documents can be read.
    pub retention: Duration,
    /// How many past versions a database keeps at most; beyond that the oldest go earlier.
    pub versions: usize,
}

impl Default for History {
    /// An hour, as Google keeps them, and 100,000 versions.
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(60 * 60),
            versions: 100_000,
        }
    }
}

/// A Firestore emulator that listens. Its databases are empty, live in memory, and end with it.
#[derive(Debug)]
pub struct Emulator {
    listener: Listener,
    databases: Arc<Databases>,
    faults: Faults,
}

impl Emulator {
    /// Binds the port. Clients can connect then, and are answered once it [runs](Self::run).
    ///
    /// # Errors
    /// When the port can't be had.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        Ok(Self {
            listener: Listener::bind(&config.address).await?,
            databases: Arc::new(Databases::new(config.history)),
            faults: config.faults,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until `stop`; streams end with it.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let service = Service::new(self.databases.clone(), self.faults, stop.clone());
        let service = FirestoreServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Gzip);
        let mut routes = Routes::new(service);
        let plain = Router::new()
            .route("/", get(|| async { "Ok\n" }))
            .route(
                "/emulator/v1/projects/{project}/databases/{database}/documents",
                delete(reset),
            )
            .with_state(self.databases);
        let router = routes.axum_router_mut();
        *router = std::mem::take(router).merge(plain);
        let settings = ServeSettings {
            max_streams_per_connection: 10_000,
            stream_window: 1024 * 1024,
            ..ServeSettings::default()
        };
        self.listener.serve(routes, settings, stop).await
    }
}

/// Deletes all documents of a database, as Google's emulator does when asked the same way.
async fn reset(
    State(databases): State<Arc<Databases>>,
    Path((project, database)): Path<(String, String)>,
) -> StatusCode {
    databases.get(&DatabaseName { project, database }).clear();
    StatusCode::OK
}
