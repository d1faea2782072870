//! Connections to servers, all with the same settings.

use std::{error::Error as _, fmt, io, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use infrachat_proto::Refusal;
use tokio::io::DuplexStream;
use tonic::{
    Request, Response, Status,
    metadata::MetadataValue,
    transport::{Channel, ClientTlsConfig, Endpoint, Uri},
};
use tower::service_fn;

use crate::{ClientError, Options};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the answer of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const STREAM_WINDOW: u32 = 64 * 1024;
/// h2 closes a connection when too many small unread frames fill half of its window, so it stays
/// well above the stream's.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// Whether the address is on this machine.
#[must_use]
pub fn is_loopback(address: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

type Dial = dyn Fn(String) -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync;

/// How servers are reached: over the network, or, in a simulation, within this process.
#[derive(Clone, Default)]
pub struct Network(Option<Arc<Dial>>);

impl Network {
    /// Connections to "host:port" are made by `dial`, and never leave this process.
    pub fn local(
        dial: impl Fn(String) -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(dial)))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.0.is_some();
        f.debug_struct("Network")
            .field("local", &local)
            .finish_non_exhaustive()
    }
}

/// Connects to "host:port".
pub(crate) async fn connect(options: &Options, address: &str) -> Result<Channel, ClientError> {
    let endpoint = endpoint(address)?;
    let connected = match options.network.0.clone() {
        None => endpoint.connect().await,
        Some(dial) => {
            let to = address.to_owned();
            let connector = service_fn(move |_: Uri| {
                let connecting = dial(to.clone());
                async move { connecting.await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
    };
    connected.map_err(|err| ClientError::Unreachable {
        address: address.to_owned(),
        reason: root_cause(&err),
    })
}

fn endpoint(address: &str) -> Result<Endpoint, ClientError> {
    let bad = || ClientError::BadAddress {
        address: address.to_owned(),
    };
    let endpoint = Endpoint::from_shared(infrachat_proto::uri_of(address)).map_err(|_| bad())?;
    let authority = endpoint.uri().authority().ok_or_else(bad)?;
    let tls = endpoint.uri().scheme_str() == Some("https");
    if authority.port().is_none() && !tls {
        return Err(bad());
    }
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    if tls {
        return endpoint
            .tls_config(ClientTlsConfig::new().with_webpki_roots())
            .map_err(|_| bad());
    }
    Ok(endpoint)
}

/// A request that carries the access token.
pub(crate) fn signed<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(value) = MetadataValue::try_from(format!("Bearer {token}")) {
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// The answer of a unary call, in bounded time.
pub(crate) async fn answer<T>(
    address: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if status.source().is_some() => Err(ClientError::Unreachable {
            address: address.to_owned(),
            reason: root_cause(&status),
        }),
        Ok(Err(status)) => Err(ClientError::Refused(Refusal::from_status(&status))),
        Err(_) => Err(ClientError::Unreachable {
            address: address.to_owned(),
            reason: format!("no answer within {CALL_TIMEOUT:?}"),
        }),
    }
}

pub(crate) fn root_cause(err: &dyn std::error::Error) -> String {
    let mut cause = err;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_known() {
        for local in [
            "localhost:8001",
            "127.0.0.1:1",
            "[::1]:8001",
            "http://localhost:1",
        ] {
            assert!(is_loopback(local), "{local}");
        }
        for other in [
            "localhost.example.org:1",
            "10.0.0.1:8001",
            "chat.example.org:443",
            "",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn an_address_needs_a_port_unless_it_is_https() {
        assert!(endpoint("localhost:8001").is_ok());
        assert!(endpoint("https://chat.example.org").is_ok());
        for bad in ["localhost", "", "a b:1", "http://"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
