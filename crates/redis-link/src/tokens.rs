//! Access tokens that take the place of a password, and change.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use redis::{
    RedisError, RedisResult,
    auth::{BasicAuth, StreamingCredentialsProvider},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::watch, time::sleep};
use tokio_util::task::AbortOnDropHandle;

/// Who calls with a token: as Memorystore has it.
pub(crate) const USER: &str = "default";

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no access token: {reason}")]
pub struct TokenError {
    /// Why.
    pub reason: String,
    /// Whether it stays so until somebody does something about it.
    pub lasting: bool,
}

/// Where tokens come from.
pub trait TokenSource: Send + 'static {
    /// The token to use now, which is good for some minutes still. It is asked often, and most times
    /// answers with the same.
    fn token(&mut self) -> impl Future<Output = Result<SecretString, TokenError>> + Send;
}

/// Tokens, the newest of which is known at every moment. Clones share it.
#[derive(Debug, Clone)]
pub struct Tokens {
    held: watch::Receiver<Held>,
    /// Ends with the last clone, at once: Google's library panics where it waits for a token while the
    /// runtime shuts down.
    _asking: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug, Clone, Default)]
struct Held {
    /// It stays while there is no newer one: it may be good still.
    token: Option<SecretString>,
    /// Why the source had none when it was last asked.
    failure: Option<TokenError>,
}

impl Tokens {
    /// Asks the source now, and then every so often, until all clones are gone. Call it within a Tokio
    /// runtime.
    #[must_use]
    pub fn of(source: impl TokenSource, every: Duration) -> Self {
        let (holder, held) = watch::channel(Held::default());
        let asking = tokio::spawn(hold(source, every, holder));
        Self {
            held,
            _asking: Arc::new(AbortOnDropHandle::new(asking)),
        }
    }

    /// The newest token, once there was one.
    pub(crate) async fn newest(&self) -> Result<SecretString, TokenError> {
        let mut held = self.held.clone();
        loop {
            let Held { token, failure } = held.borrow_and_update().clone();
            if let Some(token) = token {
                return Ok(token);
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            held.changed().await.map_err(|_| TokenError {
                reason: "nobody asks for it any more".to_owned(),
                lasting: true,
            })?;
        }
    }
}

async fn hold(mut source: impl TokenSource, every: Duration, holder: watch::Sender<Held>) {
    loop {
        match source.token().await {
            Ok(token) => {
                holder.send_if_modified(|held| {
                    held.failure = None;
                    let new = !same(held.token.as_ref(), &token);
                    held.token = Some(token);
                    new
                });
            }
            Err(failure) => {
                tracing::warn!(%failure, "Redis can't be authenticated to anew");
                holder.send_modify(|held| held.failure = Some(failure));
            }
        }
        sleep(every).await;
    }
}

fn same(one: Option<&SecretString>, other: &SecretString) -> bool {
    one.is_some_and(|one| one.expose_secret() == other.expose_secret())
}

impl StreamingCredentialsProvider for Tokens {
    /// A connection takes the first to authenticate with, and again each that follows.
    fn subscribe(&self) -> Pin<Box<dyn Stream<Item = RedisResult<BasicAuth>> + Send + 'static>> {
        let start = (self.held.clone(), None);
        Box::pin(stream::unfold(start, |(mut held, given)| async move {
            let newer = held.wait_for(|held| match &held.token {
                Some(token) => !same(given.as_ref(), token),
                None => held.failure.is_some(),
            });
            let Held { token, failure } = newer.await.ok()?.clone();
            let next = match (token, failure) {
                (Some(token), _) => {
                    let password = token.expose_secret().to_owned();
                    return Some((
                        Ok(BasicAuth::new(USER.to_owned(), password)),
                        (held, Some(token)),
                    ));
                }
                // The kind of error after which the client tries again.
                (None, failure) => RedisError::from(std::io::Error::other(failure?)),
            };
            Some((Err(next), (held, None)))
        }))
    }
}
