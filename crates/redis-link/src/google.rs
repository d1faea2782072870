//! Access tokens of the Google Cloud identity that this process has.

use std::{error::Error, time::Duration};

use google_cloud_auth::credentials::{AccessTokenCredentials, Builder};
use secrecy::SecretString;
use tokio::task::yield_now;

use crate::{TokenError, TokenSource, Tokens};

/// What the tokens are good for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Between looks for a new token. The library has one four minutes before the old one expires.
const LOOK: Duration = Duration::from_secs(30);

impl Tokens {
    /// Those of the default credentials: of the service account that the process runs as, or of
    /// `gcloud auth application-default login`. Call it within a Tokio runtime.
    #[must_use]
    pub fn google() -> Self {
        Self::of(DefaultCredentials(None), LOOK)
    }
}

/// They keep their token and renew it in time.
struct DefaultCredentials(Option<AccessTokenCredentials>);

impl TokenSource for DefaultCredentials {
    async fn token(&mut self) -> Result<SecretString, TokenError> {
        let credentials = match &self.0 {
            Some(credentials) => credentials.clone(),
            None => {
                let built = Builder::default().with_scopes([SCOPE]);
                let built = built
                    .build_access_token_credentials()
                    .map_err(|err| TokenError {
                        reason: whole(&err),
                        lasting: true,
                    })?;
                let built = self.0.insert(built).clone();
                // A program that has ended meanwhile stops here: the library panics where it waits for
                // a token while the runtime shuts down.
                yield_now().await;
                built
            }
        };
        match credentials.access_token().await {
            Ok(token) => Ok(SecretString::from(token.token)),
            Err(err) => {
                let lasting = !err.is_transient();
                if lasting {
                    // These have given up; what is looked up anew may be better.
                    self.0 = None;
                }
                Err(TokenError {
                    reason: whole(&err),
                    lasting,
                })
            }
        }
    }
}

/// The error and what caused it.
fn whole(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}
