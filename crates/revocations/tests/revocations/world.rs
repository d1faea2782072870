//! What the tests talk about.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use infrachat_identity::{Claims, Revocation, Revocations, RevocationsUnavailable};
use infrachat_types::{Region, TokenFamilyId, UserName, unix_millis};
use tokio::time::timeout;

/// Nothing takes this long: it only bounds a test that fails.
const LONG: Duration = Duration::from_secs(30);

fn ada() -> UserName {
    UserName::new("ada").expect("a good name")
}

/// The end of one of ada's sign-ins.
pub(crate) fn ended(family: &str) -> Revocation {
    Revocation {
        user: ada(),
        family: Some(TokenFamilyId::from_text(family)),
        issued_until: unix_millis() + 600_000,
        forget_after: unix_millis() + 600_000,
    }
}

/// Ends one of ada's sign-ins.
pub(crate) async fn end(
    revocations: &impl Revocations,
    family: &str,
) -> Result<(), RevocationsUnavailable> {
    let ending = timeout(LONG, revocations.revoke(ended(family)));
    ending.await.expect("an answer comes")
}

/// Whether the tokens of one of ada's sign-ins are revoked.
pub(crate) async fn is_ended(
    revocations: &impl Revocations,
    family: &str,
) -> Result<bool, RevocationsUnavailable> {
    let claims = claims(family);
    let asking = timeout(LONG, revocations.is_revoked(&claims));
    asking.await.expect("an answer comes")
}

pub(crate) fn claims(family: &str) -> Claims {
    Claims {
        user: ada(),
        family: TokenFamilyId::from_text(family),
        issued_at: unix_millis(),
        expires_at: unix_millis() + 600_000,
        issuer: "https://issuer".to_owned(),
        region: Region::new("us-west1").expect("a good name"),
        jti: "jti".to_owned(),
    }
}

/// Asks until it is so.
pub(crate) async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let so = timeout(LONG, asking).await;
    so.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// A backend, and what it needs while a case runs.
#[derive(Debug)]
pub(crate) struct Backend<R, S> {
    pub(crate) revocations: R,
    pub(crate) _needs: S,
}

#[async_trait]
impl<R: Revocations, S: fmt::Debug + Send + Sync + 'static> Revocations for Backend<R, S> {
    async fn revoke(&self, revocation: Revocation) -> Result<(), RevocationsUnavailable> {
        self.revocations.revoke(revocation).await
    }

    async fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsUnavailable> {
        self.revocations.is_revoked(claims).await
    }

    async fn all(&self) -> Result<Vec<Revocation>, RevocationsUnavailable> {
        self.revocations.all().await
    }
}
