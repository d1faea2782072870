//! The tokens of pushes: signed by a key of this process, which is published as Google publishes its
//! own, so that a service checks them as it would check Google's.

use std::time::{Duration, SystemTime, SystemTimeError};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use axum::{Json, Router, routing::get};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use serde::Serialize;
use serde_json::{Value, json};

const KEYS_PATH: &str = "/oauth2/v3/certs";
/// How long a token is good for.
const LIFE: Duration = Duration::from_secs(3600);

/// Why a key can't be made or a token can't be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// No key.
    #[error("a signing key can't be made")]
    Key(#[from] aws_lc_rs::error::Unspecified),
    /// The key is of no use.
    #[error("signing: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
    /// The wall clock is before 1970.
    #[error("the clock is wrong: {0}")]
    Clock(#[from] SystemTimeError),
}

/// Signs tokens.
pub(crate) struct Signer {
    issuer: String,
    key: EncodingKey,
    header: Header,
    keys: JwkSet,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    azp: String,
    sub: String,
    email: &'a str,
    email_verified: bool,
    iat: u64,
    exp: u64,
}

impl Signer {
    /// Makes a key; takes a moment of CPU.
    pub(crate) fn new(issuer: String) -> Result<Self, SignerError> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)?;
        let body = STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let key = EncodingKey::from_rsa_pem(pem.as_bytes())?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256)?;
        let id = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(id);
        Ok(Self {
            issuer,
            key,
            header,
            keys: JwkSet { keys: vec![jwk] },
        })
    }

    /// A token that says that `email` speaks to `audience`.
    pub(crate) fn token(&self, email: &str, audience: &str) -> Result<String, SignerError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        // Any stable text will do for the account's number.
        let subject = URL_SAFE_NO_PAD.encode(email);
        let claims = Claims {
            iss: &self.issuer,
            aud: audience,
            azp: subject.clone(),
            sub: subject,
            email,
            email_verified: true,
            iat: now.as_secs(),
            exp: (now + LIFE).as_secs(),
        };
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }

    /// Serves the discovery document and the keys.
    pub(crate) fn routes(&self) -> Router {
        let issuer = &self.issuer;
        let discovery: Value = json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}{KEYS_PATH}"),
            "id_token_signing_alg_values_supported": ["RS256"],
            "subject_types_supported": ["public"],
            "response_types_supported": ["id_token"],
            "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "sub"],
        });
        let keys = self.keys.clone();
        Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(|| async move { Json(discovery) }),
            )
            .route(KEYS_PATH, get(|| async move { Json(keys) }))
    }
}
