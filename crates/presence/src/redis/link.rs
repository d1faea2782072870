//! The connection, and how long an answer may take.

use std::time::Duration;

use redis::{
    Client, FromRedisValue, IntoConnectionInfo as _, RedisError, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::time::timeout;

use crate::PresenceError;

/// How long one answer may take, reconnecting included.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
/// After so long without a sign of the other side, a connection counts as lost.
const DEAD: Duration = Duration::from_secs(5);

/// One connection that all calls share. It reconnects by itself.
pub(super) struct Link(ConnectionManager);

impl Link {
    pub(super) fn new(url: &str) -> Result<Self, PresenceError> {
        let settings = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(DEAD);
        let info = url.into_connection_info().map_err(unavailable)?;
        let client = Client::open(info.set_tcp_settings(settings)).map_err(unavailable)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(PATIENCE))
            .set_max_delay(RETRY);
        let manager = ConnectionManager::new_lazy_with_config(client, config);
        manager.map(Self).map_err(unavailable)
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, PresenceError> {
        let mut connection = self.0.clone();
        match timeout(PATIENCE, call.invoke_async(&mut connection)).await {
            Ok(answer) => answer.map_err(unavailable),
            Err(_) => Err(PresenceError("Redis did not answer in time".to_owned())),
        }
    }
}

fn unavailable(err: RedisError) -> PresenceError {
    PresenceError(err.to_string())
}
