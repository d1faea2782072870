//! Who calls: access tokens that verify, and that nobody revoked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infrachat_identity::{Claims, Revocations, RevocationsUnavailable, TokenError, TokenVerifier};
use infrachat_proto::Refusal;
use infrachat_types::ErrorCode;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;

use crate::counted::COUNTED;

/// The longest wait for the revocations.
const PATIENCE: Duration = Duration::from_millis(200);

/// Checks tokens.
///
/// While the revocations can't be asked, a token that verifies passes: a route opens nothing by
/// itself, since the shard that it leads to checks the token against a copy of its own.
#[derive(Debug)]
pub(crate) struct Callers {
    verifier: Arc<TokenVerifier>,
    revocations: Arc<dyn Revocations>,
    /// The revocations could not be asked the last time.
    unchecked: AtomicBool,
}

impl Callers {
    pub(crate) fn new(verifier: Arc<TokenVerifier>, revocations: Arc<dyn Revocations>) -> Self {
        Self {
            verifier,
            revocations,
            unchecked: AtomicBool::new(false),
        }
    }

    /// The claims of a call's access token.
    pub(crate) async fn check(&self, metadata: &MetadataMap) -> Result<Claims, Refusal> {
        let checked = self.checked(metadata).await;
        let refusal = checked.as_ref().err().map(|refusal| refusal.code);
        COUNTED.verifications.count(refusal);
        checked
    }

    async fn checked(&self, metadata: &MetadataMap) -> Result<Claims, Refusal> {
        let token = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| {
                Refusal::new(
                    ErrorCode::Unauthenticated,
                    "send an access token from Gatekeeper as `authorization: Bearer <token>`",
                )
            })?;
        let claims = self.verifier.verify(token).await.map_err(refusal)?;
        if self.is_revoked(&claims).await {
            return Err(Refusal::new(
                ErrorCode::TokenRevoked,
                "the sign-in was ended: sign in again",
            ));
        }
        Ok(claims)
    }

    async fn is_revoked(&self, claims: &Claims) -> bool {
        let asked = timeout(PATIENCE, self.revocations.is_revoked(claims));
        let answer = asked.await.unwrap_or_else(|_| {
            Err(RevocationsUnavailable(format!(
                "no answer within {PATIENCE:?}"
            )))
        });
        let unchecked = self.unchecked.swap(answer.is_err(), Ordering::Relaxed);
        match (&answer, unchecked) {
            (Err(err), false) => tracing::warn!(%err, "revoked tokens pass until they expire"),
            (Ok(_), true) => tracing::info!("revoked tokens are refused again"),
            _ => {}
        }
        answer.unwrap_or(false)
    }
}

fn refusal(err: TokenError) -> Refusal {
    let refusal = Refusal::new(err.code(), err.to_string());
    match err {
        TokenError::KeysUnavailable => refusal.retry_after(Duration::from_secs(1)),
        _ => refusal,
    }
}
