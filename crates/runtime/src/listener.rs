//! One port for gRPC and plain HTTP, bound before anything is promised.

use std::{net::SocketAddr, time::Duration};

use futures::StreamExt as _;
use tokio::{io::DuplexStream, net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use crate::{
    connection::{CONNECTIONS, Carrier, Connection},
    telemetry::requests::RequestSpans,
};

/// Why a port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}; is another process using it?")]
pub struct BindError {
    address: String,
    source: std::io::Error,
}

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("serving on {address} failed: {source}")]
pub struct ServeError {
    address: SocketAddr,
    source: tonic::transport::Error,
}

/// Limits of a service's connections.
#[derive(Debug, Clone, Copy)]
pub struct ServeSettings {
    /// Calls and streams that one connection may have open. tonic by itself sets no limit, which one
    /// hostile client can use up all memory with.
    pub max_streams_per_connection: u32,
    /// Largest request message, in bytes, by HTTP/2 flow control: the window of one stream. The
    /// connection's is four times that (h2 counts small unread frames against it).
    pub stream_window: u32,
    /// How long open calls may go on after the stop.
    pub grace: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            max_streams_per_connection: 100,
            stream_window: 64 * 1024,
            grace: Duration::from_secs(5),
        }
    }
}

/// Binds "host:port", and says where that is.
pub(crate) async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    incoming: Incoming,
    address: SocketAddr,
}

#[derive(Debug)]
enum Incoming {
    Tcp(TcpListener),
    Local(mpsc::Receiver<DuplexStream>),
}

impl Listener {
    /// Binds "host:port"; port 0 picks a free one.
    ///
    /// # Errors
    /// When the port can't be had.
    pub async fn bind(address: &str) -> Result<Self, BindError> {
        let (incoming, address) = bind(address).await?;
        Ok(Self {
            incoming: Incoming::Tcp(incoming),
            address,
        })
    }

    /// Takes connections that are made within this process, under an address that only their makers
    /// know: for simulations, in which the kernel has no part.
    #[must_use]
    pub fn local(address: SocketAddr, connections: mpsc::Receiver<DuplexStream>) -> Self {
        Self {
            incoming: Incoming::Local(connections),
            address,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves gRPC over HTTP/2 and whatever axum routes were merged into `routes` over both HTTP
    /// versions, until `stop` and the end of open calls, or the grace after it.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        routes: Routes,
        settings: ServeSettings,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let address = self.address;
        let open = metrics::gauge!(CONNECTIONS);
        open.set(0.0);
        let incoming = match self.incoming {
            Incoming::Tcp(listener) => TcpIncoming::from(listener)
                .with_nodelay(Some(true))
                .map(|accepted| accepted.map(Carrier::Tcp))
                .left_stream(),
            Incoming::Local(connections) => ReceiverStream::new(connections)
                .map(|stream| Ok(Carrier::Local(stream)))
                .right_stream(),
        };
        let incoming = incoming
            .map(move |accepted| accepted.map(|carrier| Connection::new(carrier, open.clone())));
        let serving = Server::builder()
            .accept_http1(true)
            .max_concurrent_streams(settings.max_streams_per_connection)
            .initial_stream_window_size(settings.stream_window)
            .initial_connection_window_size(settings.stream_window * 4)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .layer(RequestSpans)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(settings.grace).await;
        };
        tokio::select! {
            served = serving => served.map_err(|source| ServeError { address, source }),
            () = deadline => {
                tracing::warn!(%address, grace = ?settings.grace, "calls were still open at the end of the grace");
                Ok(())
            }
        }
    }
}
