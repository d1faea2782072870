//! Who calls: access tokens that verify, and that nobody revoked.

use std::{sync::Arc, time::Duration};

use infrachat_identity::{Claims, MemoryRevocations, Revocation, Revocations, TokenVerifier};
use infrachat_proto::Refusal;
use infrachat_types::ErrorCode;
use tokio::{sync::watch, time::timeout};

use crate::counted::COUNTED;

/// Wait before the region's revocations are asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Longest wait of a caller for that, right after the start.
const LOADING: Duration = Duration::from_secs(2);

/// Checks tokens. Nobody passes before the region's revocations are known here. Revocations are this shard's own copy, so that a sign-in waits for no other part.
#[derive(Debug)]
pub(crate) struct Callers {
    verifier: Arc<TokenVerifier>,
    revoked: MemoryRevocations,
    /// Whether the region's revocations are among `revoked`.
    loaded: watch::Sender<bool>,
}

impl Callers {
    pub(crate) fn new(verifier: Arc<TokenVerifier>) -> Self {
        Self {
            verifier,
            revoked: MemoryRevocations::new(),
            loaded: watch::Sender::new(false),
        }
    }

    /// Whose token it is.
    pub(crate) async fn check(&self, token: &str) -> Result<Claims, Refusal> {
        let checked = self.checked(token).await;
        let refusal = checked.as_ref().err().map(|refusal| refusal.code);
        COUNTED.verifications.count(refusal);
        checked
    }

    async fn checked(&self, token: &str) -> Result<Claims, Refusal> {
        let verified = self.verifier.verify(token).await;
        let claims = verified.map_err(|err| Refusal::new(err.code(), err.to_string()))?;
        self.still_good(&claims).await?;
        Ok(claims)
    }

    /// Whether a token that was checked has been revoked since.
    pub(crate) async fn still_good(&self, claims: &Claims) -> Result<(), Refusal> {
        let mut loaded = self.loaded.subscribe();
        if timeout(LOADING, loaded.wait_for(|loaded| *loaded))
            .await
            .is_err()
        {
            let text = "this shard does not know yet who was revoked: try again, or another shard";
            return Err(Refusal::new(ErrorCode::Unavailable, text).retry_after(RETRY));
        }
        match self.revoked.is_revoked(claims).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(Refusal::new(
                ErrorCode::TokenRevoked,
                "the sign-in was ended: sign in again",
            )),
            Err(err) => Err(Refusal::new(ErrorCode::Unavailable, err.to_string())),
        }
    }

    /// Once this resolves, no token that it covers passes.
    pub(crate) async fn revoke(&self, revocation: Revocation) {
        if let Err(err) = self.revoked.revoke(revocation).await {
            tracing::error!(%err, "a revocation was not noted");
        }
    }

    /// Takes over what the region knows, as soon as it answers: control events tell only what comes
    /// after a shard's start.
    pub(crate) async fn load(&self, region: &dyn Revocations) {
        loop {
            match region.all().await {
                Ok(all) => {
                    for revocation in all {
                        self.revoke(revocation).await;
                    }
                    self.loaded.send_replace(true);
                    return;
                }
                Err(err) => tracing::warn!(%err, "the revocations can't be loaded; trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
