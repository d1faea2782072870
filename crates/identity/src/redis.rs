//! What the Redis backends share: the connection, and how long an answer may take.

use std::{future::Future, time::Duration};

use redis::{
    Client, IntoConnectionInfo as _, RedisError, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::time::timeout;

/// How long one answer may take, reconnecting included.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
/// After so long without a sign of the other side, a connection counts as lost.
const DEAD: Duration = Duration::from_secs(5);

/// The Redis URL can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Redis URL is not valid: {0}; use redis://host:port, or rediss:// for TLS")]
pub struct BadRedisUrl(String);

/// One connection that all calls share. It reconnects by itself.
#[derive(Clone)]
pub(crate) struct Link(ConnectionManager);

impl Link {
    pub(crate) fn new(url: &str) -> Result<Self, BadRedisUrl> {
        let bad = |err: RedisError| BadRedisUrl(err.to_string());
        let settings = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(DEAD);
        let info = url.into_connection_info().map_err(bad)?;
        let client = Client::open(info.set_tcp_settings(settings)).map_err(bad)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(PATIENCE))
            .set_max_delay(RETRY);
        let manager = ConnectionManager::new_lazy_with_config(client, config);
        manager.map(Self).map_err(bad)
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        self.0.clone()
    }
}

/// What Redis answers, or why it did not.
pub(crate) async fn in_time<T>(call: impl Future<Output = RedisResult<T>>) -> Result<T, String> {
    match timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|err| err.to_string()),
        Err(_) => Err("Redis did not answer in time".to_owned()),
    }
}
