//! Tokens of Google's pushes: OIDC ID tokens of a service account.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use google_cloud_auth::credentials::idtoken::verifier::{Builder, Error, Map, Value, Verifier};
use tokio::sync::Mutex;

use crate::{PushRefused, PushTokens};

/// How long a check may take; the keys are fetched in it when they are not at hand.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Checks signature, issuer (Google), audience, expiry and service account.
pub struct GooglePushTokens {
    /// One for each set of keys. A verifier fails when it is used twice at once, so each is used in
    /// turn.
    verifiers: Vec<Mutex<Verifier>>,
    service_account: String,
}

impl GooglePushTokens {
    /// Of pushes with this audience and service account. `keys`: URLs of key sets, any of which may
    /// have signed; none: Google's.
    #[must_use]
    pub fn new(audience: &str, service_account: &str, keys: &[String]) -> Self {
        let builder = || Builder::new([audience]);
        let verifiers: Vec<Verifier> = match keys {
            [] => vec![builder().build()],
            keys => keys
                .iter()
                .map(|url| builder().with_jwks_url(url).build())
                .collect(),
        };
        Self {
            verifiers: verifiers.into_iter().map(Mutex::new).collect(),
            service_account: service_account.to_owned(),
        }
    }

    async fn claims(&self, token: &str) -> Result<Map<String, Value>, PushRefused> {
        let mut refusal = PushRefused::Unavailable("there are no keys".to_owned());
        for verifier in &self.verifiers {
            let checking = async { verifier.lock().await.verify(token).await };
            refusal = match tokio::time::timeout(TIMEOUT, checking).await {
                Ok(Ok(claims)) => return Ok(claims),
                Ok(Err(err)) => refused(&err),
                Err(_) => PushRefused::Unavailable("the keys did not come in time".to_owned()),
            };
        }
        Err(refusal)
    }
}

impl fmt::Debug for GooglePushTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GooglePushTokens")
            .field("service_account", &self.service_account)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PushTokens for GooglePushTokens {
    async fn check(&self, token: &str) -> Result<(), PushRefused> {
        let claims = self.claims(token).await?;
        // Here and not by the verifier, which panics when a token has no such claim.
        let claim = |name: &str| claims.get(name);
        let verified = claim("email_verified").and_then(|verified| verified.as_bool());
        let email = claim("email").and_then(|email| email.as_str());
        if verified == Some(true) && email == Some(&self.service_account) {
            return Ok(());
        }
        Err(PushRefused::BadToken(format!(
            "it is not of {}, which alone pushes here",
            self.service_account
        )))
    }
}

fn refused(err: &Error) -> PushRefused {
    // A key that can't be had may be of a token that nobody signed; it may also be away. Both come
    // again, and neither is taken.
    if err.is_load_cert() {
        PushRefused::Unavailable(err.to_string())
    } else {
        PushRefused::BadToken(err.to_string())
    }
}
