//! Who calls.

use std::time::Duration;

use infrachat_identity::{Claims, TokenError, TokenVerifier};
use infrachat_proto::Refusal;
use infrachat_types::ErrorCode;
use tonic::metadata::MetadataMap;

/// The claims of the call's access token.
pub(crate) async fn authenticate(
    verifier: &TokenVerifier,
    metadata: &MetadataMap,
) -> Result<Claims, Refusal> {
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
    verifier.verify(token).await.map_err(refusal)
}

fn refusal(err: TokenError) -> Refusal {
    let refusal = Refusal::new(err.code(), err.to_string());
    match err {
        TokenError::KeysUnavailable => refusal.retry_after(Duration::from_secs(1)),
        _ => refusal,
    }
}
