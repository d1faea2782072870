//! Whether a Redis answers, and lets us in.

use std::{error::Error, io, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use rustls::{CertificateError, Error as TlsError};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use crate::{RedisTarget, TokenError, tokens::USER};

/// Why a Redis did not let us in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It stays so until somebody does something about it, which the text says.
    #[error("{0}")]
    Refused(String),
    /// It may be there in a moment.
    #[error("{0}")]
    Away(String),
}

impl RedisTarget {
    /// Connects once, to see whether the Redis is there and lets us in, as far as that can be seen
    /// within the patience. A first access token is waited for as long again.
    ///
    /// # Errors
    /// When it is not, or does not.
    pub async fn probe(&self, patience: Duration) -> Result<(), NoAnswer> {
        let redis = self.client.get_connection_info().redis_settings();
        let (user, password) = match &self.tokens {
            Some(tokens) => {
                let late = |_| NoAnswer::Away(format!("no access token in {patience:?}"));
                let token = timeout(patience, tokens.newest()).await.map_err(late)?;
                (Some(USER), Some(token.map_err(no_token)?))
            }
            None => (redis.username(), redis.password().map(SecretString::from)),
        };
        match timeout(patience, self.enter(user, password)).await {
            Ok(entered) => entered,
            Err(_) => Err(NoAnswer::Away(format!(
                "no answer in {patience:?}{}",
                self.other_scheme()
            ))),
        }
    }

    /// Step by step: the client that does it all at once keeps what the server said for itself.
    async fn enter(
        &self,
        user: Option<&str>,
        password: Option<SecretString>,
    ) -> Result<(), NoAnswer> {
        let info = self.client.get_connection_info();
        let stranger = info
            .clone()
            .set_redis_settings(RedisConnectionInfo::default());
        let mut connection = connect(stranger)
            .await
            .map_err(|err| self.unreached(&err))?;
        if let Some(password) = password {
            let mut auth = redis::cmd("AUTH");
            auth.arg(user).arg(password.expose_secret());
            let entered: RedisResult<()> = auth.query_async(&mut connection).await;
            entered.map_err(|err| self.not_let_in(&err, user))?;
        }
        let answered: RedisResult<()> = redis::cmd("PING").exec_async(&mut connection).await;
        answered.map_err(|err| self.not_let_in(&err, user))?;
        let number = info.redis_settings().db();
        if number != 0 {
            let mut select = redis::cmd("SELECT");
            let selected: RedisResult<()> = select.arg(number).query_async(&mut connection).await;
            selected.map_err(|err| match err.code() {
                Some("ERR") => NoAnswer::Refused(format!(
                    "it has no database {number} ({err}): correct the number at the end of the URL"
                )),
                _ => self.unreached(&err),
            })?;
        }
        Ok(())
    }

    fn unreached(&self, err: &RedisError) -> NoAnswer {
        match tls_error(err) {
            Some(TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => NoAnswer::Refused(
                "its certificate is not signed by an authority that is trusted: give the one that \
                 signed it"
                    .to_owned(),
            ),
            Some(TlsError::InvalidCertificate(problem)) => NoAnswer::Refused(format!(
                "its certificate is not good: {problem}; correct the certificate, or the host in the \
                 URL"
            )),
            Some(other) => NoAnswer::Refused(format!("TLS can't be agreed on: {other}")),
            None if err.kind() == ErrorKind::InvalidClientConfig => {
                NoAnswer::Refused(err.to_string())
            }
            None if err.is_connection_dropped() && !err.is_connection_refusal() => {
                NoAnswer::Away(format!("it hung up ({err}){}", self.other_scheme()))
            }
            None => NoAnswer::Away(err.to_string()),
        }
    }

    /// What else may be wrong when nothing is understood.
    fn other_scheme(&self) -> &'static str {
        if self.has_tls() {
            "; if it does not speak TLS, use redis://"
        } else {
            "; if it speaks TLS, use rediss://"
        }
    }

    fn not_let_in(&self, err: &RedisError, user: Option<&str>) -> NoAnswer {
        let user = user.unwrap_or(USER);
        let text = err.to_string();
        let refused = match err.code() {
            Some("WRONGPASS") if self.tokens.is_some() => {
                "it refuses the access token: the service account needs the role \
                 roles/memorystore.dbConnectionUser"
                    .to_owned()
            }
            Some("WRONGPASS") => format!(
                "it refuses the password of the user {user:?}: correct user and password in the URL"
            ),
            Some("NOAUTH") => {
                "it wants a password, and the URL has none: write redis://user:password@host:port, or \
                 redis://:password@host:port for the user \"default\""
                    .to_owned()
            }
            _ if text.contains("without any password configured") => {
                "it has no password: take the password out of the URL, or set one there".to_owned()
            }
            _ if text.contains("invalid password") => {
                "it refuses the password: correct it in the URL".to_owned()
            }
            _ => return self.unreached(err),
        };
        NoAnswer::Refused(refused)
    }
}

fn no_token(err: TokenError) -> NoAnswer {
    if err.lasting {
        NoAnswer::Refused(err.to_string())
    } else {
        NoAnswer::Away(err.to_string())
    }
}

async fn connect(info: redis::ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    // The patience of the caller is the only one.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    let client = Client::open(info)?;
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// What TLS had against it, which the client wraps three times.
fn tls_error(err: &RedisError) -> Option<&TlsError> {
    let shared: &Arc<dyn Error + Send + Sync> = err.source()?.downcast_ref()?;
    let io: &io::Error = shared.downcast_ref()?;
    io.get_ref()?.downcast_ref()
}
