//! One connection for many calls, and how long an answer may take.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::FutureExt as _;
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
};
use tokio::time::{Instant, timeout};

use crate::{RedisTarget, counted::Asked};

/// The longest pause between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);

/// One connection that all clones and calls share: commands are sent on it.
///
/// It connects when it is first needed, and by itself after every loss: also when it was refused,
/// since passwords are corrected and tokens renewed.
#[derive(Clone)]
pub struct RedisLink {
    shared: Arc<Shared>,
}

struct Shared {
    target: RedisTarget,
    patience: Duration,
    asked: Asked,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    manager: Option<ConnectionManager>,
    /// Which manager this is, to be given up once only.
    number: u64,
}

impl RedisLink {
    /// A connection on which an answer may take so long, connecting included. `using` is what for, in
    /// a word, as the metrics tell it.
    #[must_use]
    pub fn new(target: &RedisTarget, patience: Duration, using: &'static str) -> Self {
        Self {
            shared: Arc::new(Shared {
                target: target.clone(),
                patience,
                asked: Asked::of(using),
                current: Mutex::default(),
            }),
        }
    }

    /// What the call on this link answers, or that it took too long.
    ///
    /// # Errors
    /// The call's, and when there was no answer in time.
    pub async fn in_time<T>(&self, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let began = Instant::now();
        let answer = match timeout(self.shared.patience, call).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "Redis did not answer in time",
            )
            .into()),
        };
        self.shared.asked.count(began.elapsed(), &answer);
        answer
    }

    /// A connection for one caller, on which a wait holds nobody else up. An answer may take
    /// `patience`. It does not come back when it is lost.
    ///
    /// # Errors
    /// When it can't be made in time.
    pub async fn separate(&self, patience: Duration) -> RedisResult<MultiplexedConnection> {
        let Shared { target, .. } = &*self.shared;
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.shared.patience))
            .set_response_timeout(Some(patience));
        if let Some(tokens) = &target.tokens {
            config = config.set_credentials_provider(tokens.clone());
        }
        let connect = target
            .client
            .get_multiplexed_async_connection_with_config(&config);
        connect.await
    }

    fn manager(&self) -> RedisResult<(ConnectionManager, u64)> {
        let Shared {
            target, patience, ..
        } = &*self.shared;
        let mut current = self.shared.current.lock();
        if let Some(manager) = &current.manager {
            return Ok((manager.clone(), current.number));
        }
        let mut config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(*patience))
            .set_connection_timeout(Some(*patience))
            .set_max_delay(RETRY);
        if let Some(tokens) = &target.tokens {
            config = config.set_credentials_provider(tokens.clone());
        }
        let manager = ConnectionManager::new_lazy_with_config(target.client.clone(), config)?;
        current.manager = Some(manager.clone());
        current.number += 1;
        Ok((manager, current.number))
    }

    /// The manager never connects again once it was refused: the next command gets another.
    fn give_up(&self, number: u64) {
        let mut current = self.shared.current.lock();
        if current.number == number {
            current.manager = None;
        }
    }
}

/// Whether the connection's user is not, or no longer, let in.
fn is_refusal<T>(answer: &RedisResult<T>, as_value: impl Fn(&T) -> Option<&str>) -> bool {
    match answer {
        Ok(answer) => as_value(answer) == Some("NOAUTH"),
        Err(err) => {
            // Of what ends an attempt to connect, only I/O errors are followed by another.
            err.kind() == ErrorKind::AuthenticationFailed || err.code() == Some("NOAUTH")
        }
    }
}

fn code(value: &Value) -> Option<&str> {
    match value {
        Value::ServerError(err) => Some(err.code()),
        _ => None,
    }
}

impl ConnectionLike for RedisLink {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            let (mut manager, number) = self.manager()?;
            let answer = manager.send_packed_command(cmd).await;
            if is_refusal(&answer, code) {
                self.give_up(number);
            }
            answer
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move {
            let (mut manager, number) = self.manager()?;
            let answer = manager.send_packed_commands(pipeline, offset, count).await;
            if is_refusal(&answer, |values| values.first().and_then(code)) {
                self.give_up(number);
            }
            answer
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        let info = self.shared.target.client.get_connection_info();
        info.redis_settings().db()
    }
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink")
            .field("target", &self.shared.target)
            .finish_non_exhaustive()
    }
}
