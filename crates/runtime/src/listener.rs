//! One port for gRPC and plain HTTP, bound before anything is promised.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use tokio::{
    io::DuplexStream,
    net::{TcpListener, TcpSocket},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tower::Layer as _;

use crate::{
    connection::{CONNECTIONS, Carrier, Connection},
    serving,
    telemetry::requests::RequestSpans,
};

/// Wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    source: std::io::Error,
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

/// Connections that may wait to be accepted, as far as the system lets them: all clients of another
/// shard may come at once, and who finds no place tries again after a second or more.
const BACKLOG: u32 = 16_384;

/// Bytes that the kernel takes of a connection whose other side does not read; by itself it would take
/// megabytes.
const SEND_BUFFER: u32 = 32 * 1024;

async fn listen(address: &str) -> std::io::Result<TcpListener> {
    let mut failure = None;
    for address in tokio::net::lookup_host(address).await? {
        let bound = || {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.set_reuseaddr(true)?;
            // Each connection that is accepted has it from here.
            socket.set_send_buffer_size(SEND_BUFFER)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        match bound() {
            Ok(listener) => return Ok(listener),
            Err(err) => failure = Some(err),
        }
    }
    Err(failure.unwrap_or_else(|| std::io::Error::other("the name has no address")))
}

/// Binds "host:port", and says where that is.
pub(crate) async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError {
        address: address.to_owned(),
        source,
    };
    let listener = listen(address).await.map_err(failed)?;
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

impl Incoming {
    async fn accept(&mut self) -> std::io::Result<Carrier> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Carrier::Tcp(stream))
            }
            Self::Local(connections) => match connections.recv().await {
                Some(stream) => Ok(Carrier::Local(stream)),
                // Nobody can connect any more.
                None => std::future::pending().await,
            },
        }
    }
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
    /// When the port can't be listened on any more.
    pub async fn serve(
        self,
        routes: Routes,
        settings: ServeSettings,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let address = self.address;
        let open = metrics::gauge!(CONNECTIONS);
        open.set(0.0);
        let service = RequestSpans.layer(routes.prepare());
        let connections = TaskTracker::new();
        let mut incoming = self.incoming;
        let accepting = async {
            loop {
                let carrier = match incoming.accept().await {
                    Ok(carrier) => carrier,
                    Err(err) if err.kind() == ErrorKind::InvalidInput => return Err(err),
                    Err(err) => {
                        // Of one connection, or of all for as long as there are no more files.
                        tracing::warn!(%address, %err, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let connection = Connection::new(carrier, open.clone());
                let serving = serving::serve(connection, service.clone(), settings, stop.clone());
                connections.spawn(serving);
            }
        };
        let accepted = stop.run_until_cancelled(accepting).await.unwrap_or(Ok(()));
        drop(incoming);
        connections.close();
        if tokio::time::timeout(settings.grace, connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(%address, grace = ?settings.grace, "calls were still open at the end of the grace");
        }
        accepted.map_err(|source| ServeError { address, source })
    }
}
