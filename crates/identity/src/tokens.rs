//! Access tokens: short-lived JWTs, signed with EdDSA and nothing else (RFC 8725).

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use infrachat_types::{ErrorCode, Region, TokenFamilyId, UnixMillis, UserName};
use jsonwebtoken::{Algorithm, Header, Validation, errors::ErrorKind};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{KeyRing, KeySource};

/// Whom the tokens are for.
const AUDIENCE: &str = "infrachat";
/// How far the clocks of issuer and verifier may be apart.
const LEEWAY: Duration = Duration::from_secs(5);
/// No token of ours is near this long; longer ones are not parsed.
const MAX_TOKEN_BYTES: usize = 4096;

/// The claims on the wire.
#[derive(Debug, Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    aud: String,
    sub: String,
    /// Seconds, with milliseconds as the fraction: a revocation in the same second must tell the
    /// tokens before it from those after it.
    iat: f64,
    exp: u64,
    jti: String,
    fam: String,
    reg: String,
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose it is.
    pub user: UserName,
    /// The sign-in that it descends from.
    pub family: TokenFamilyId,
    /// When it was issued.
    pub issued_at: UnixMillis,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// By whom it was issued.
    pub issuer: String,
    /// The region where it was issued.
    pub region: Region,
    /// The token's own id.
    pub jti: String,
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token of ours.
    #[error("the access token is malformed: {0}")]
    Malformed(&'static str),
    /// It has expired.
    #[error("the access token has expired: refresh it")]
    Expired,
    /// Its issuer does not publish the key that it names.
    #[error("the access token names a key that its issuer does not publish")]
    UnknownKey,
    /// Its issuer is not accepted.
    #[error("the access token is from an issuer that is not accepted")]
    WrongIssuer,
    /// It is for somebody else.
    #[error("the access token is for another audience")]
    WrongAudience,
    /// The signature is not the issuer's.
    #[error("the access token's signature does not verify")]
    BadSignature,
    /// The issuer's keys can't be had at this moment.
    #[error("the keys of the access token's issuer can't be fetched at this moment: try again")]
    KeysUnavailable,
}

impl TokenError {
    /// The code to refuse with.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            Self::KeysUnavailable => ErrorCode::Unavailable,
            Self::Malformed(_)
            | Self::UnknownKey
            | Self::WrongIssuer
            | Self::WrongAudience
            | Self::BadSignature => ErrorCode::Unauthenticated,
        }
    }
}

/// The token could not be signed, by a defect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the access token could not be signed: {0}")]
pub struct SigningFailed(String);

/// A token, ready to be handed out.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// The JWT.
    pub token: SecretString,
    /// When it ends.
    pub expires_at: UnixMillis,
}

/// Issues access tokens in one issuer's name.
#[derive(Debug, Clone)]
pub struct TokenIssuer {
    issuer: String,
    region: Region,
    keys: KeyRing,
    lifetime: Duration,
}

impl TokenIssuer {
    /// Signs with the ring's current key.
    #[must_use]
    pub fn new(
        issuer: impl Into<String>,
        region: Region,
        keys: KeyRing,
        lifetime: Duration,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            region,
            keys,
            lifetime,
        }
    }

    /// The issuer's name in a region where none is configured.
    #[must_use]
    pub fn default_name(region: &Region) -> String {
        format!("https://gatekeeper.{region}.infrachat")
    }

    /// How long its tokens last.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// When every token issued by `now` is refused by every verifier, whatever its clock within the
    /// leeway: a revocation can be forgotten then.
    #[must_use]
    pub fn forget_after(&self, now: UnixMillis) -> UnixMillis {
        now.saturating_add(millis(self.lifetime + 2 * LEEWAY))
    }

    /// A token for a user, issued at `now`.
    ///
    /// # Errors
    /// Only by a defect.
    pub fn issue(
        &self,
        user: &UserName,
        family: &TokenFamilyId,
        now: UnixMillis,
    ) -> Result<AccessToken, SigningFailed> {
        let key = self.keys.current();
        let exp = u64::try_from(now.saturating_add(millis(self.lifetime)) / 1000).unwrap_or(0);
        let claims = WireClaims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: user.to_string(),
            iat: to_seconds(now),
            exp,
            jti: BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()),
            fam: family.to_string(),
            reg: self.region.to_string(),
        };
        let header = Header {
            kid: Some(key.kid().to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        let token = jsonwebtoken::encode(&header, &claims, key.encoding())
            .map_err(|err| SigningFailed(err.to_string()))?;
        Ok(AccessToken {
            token: token.into(),
            expires_at: expiry_millis(exp),
        })
    }
}

/// Verifies access tokens of the accepted issuers.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: Arc<dyn KeySource>,
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("keys", &self.keys)
            .finish()
    }
}

impl TokenVerifier {
    /// Accepts the issuers that the source knows.
    #[must_use]
    pub fn new(keys: Arc<dyn KeySource>) -> Self {
        Self { keys }
    }

    /// What the token says, once it is certain who signed it, for whom, and that it has not expired.
    /// Whether it was revoked is for [`crate::Revocations`] to say.
    ///
    /// # Errors
    /// The first check that it failed.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| TokenError::Malformed("its header can't be read"))?;
        if header.alg != Algorithm::EdDSA {
            return Err(TokenError::Malformed("its algorithm is not EdDSA"));
        }
        if header.crit.is_some() {
            return Err(TokenError::Malformed("it needs an unknown extension"));
        }
        let kid = header.kid.ok_or(TokenError::Malformed("it names no key"))?;
        // Not to be believed yet: it only says under whose keys to look.
        let claimed = jsonwebtoken::dangerous::insecure_decode_claims::<WireClaims>(token)
            .map_err(|_| TokenError::Malformed("its claims can't be read"))?;
        let key = self.keys.key(&claimed.iss, &kid).await?;
        let data = jsonwebtoken::decode::<WireClaims>(token, &key.0, &validation(&claimed.iss))
            .map_err(|err| refusal(err.kind()))?;
        claims(data.claims)
    }
}

fn validation(issuer: &str) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = LEEWAY.as_secs();
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::InvalidIssuer => TokenError::WrongIssuer,
        ErrorKind::InvalidAudience => TokenError::WrongAudience,
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        _ => TokenError::Malformed("its claims are not valid"),
    }
}

fn claims(wire: WireClaims) -> Result<Claims, TokenError> {
    Ok(Claims {
        user: UserName::new(&wire.sub)
            .map_err(|_| TokenError::Malformed("its subject is not a user name"))?,
        family: TokenFamilyId::from_text(&wire.fam),
        issued_at: from_seconds(wire.iat),
        expires_at: expiry_millis(wire.exp),
        issuer: wire.iss,
        region: Region::new(&wire.reg)
            .map_err(|_| TokenError::Malformed("its region is not a region name"))?,
        jti: wire.jti,
    })
}

fn millis(duration: Duration) -> UnixMillis {
    UnixMillis::try_from(duration.as_millis()).unwrap_or(UnixMillis::MAX)
}

fn expiry_millis(seconds: u64) -> UnixMillis {
    UnixMillis::try_from(seconds)
        .unwrap_or(UnixMillis::MAX)
        .saturating_mul(1000)
}

/// Exact for any date: milliseconds need 41 of the 53 bits.
#[allow(clippy::cast_precision_loss)]
fn to_seconds(millis: UnixMillis) -> f64 {
    millis as f64 / 1000.0
}

/// Saturates on what is no date.
#[allow(clippy::cast_possible_truncation)]
fn from_seconds(seconds: f64) -> UnixMillis {
    (seconds * 1000.0).round() as UnixMillis
}
