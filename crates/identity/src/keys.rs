//! Ed25519 keys: the ones that sign, and the public set that others verify with.

use std::{collections::HashMap, fmt};

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{
        AlgorithmParameters, EllipticCurve, Jwk, JwkSet, OctetKeyPairParameters, PublicKeyUse,
        ThumbprintHash,
    },
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::TokenError;

/// Why a key or a key set was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The PEM does not hold an Ed25519 private key.
    #[error(
        "not an Ed25519 private key in PKCS#8 PEM; make one with `openssl genpkey -algorithm ed25519`"
    )]
    NotPem,
    /// No key could be made.
    #[error("the key can't be used: {0}")]
    Unusable(String),
    /// The document is not a key set.
    #[error("not a JSON Web Key Set: {0}")]
    NotAKeySet(String),
}

/// A private key. Its id is the thumbprint (RFC 7638) of its public half, so the same key has the
/// same id wherever it is loaded.
#[derive(Clone)]
pub struct SigningKey {
    encoding: EncodingKey,
    public: Jwk,
    kid: String,
}

impl SigningKey {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, BadKey> {
        Self::from_pair(&Ed25519KeyPair::generate().map_err(unusable)?)
    }

    /// From an unencrypted PKCS#8 PEM.
    ///
    /// # Errors
    /// When it is not one, or not for Ed25519.
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        let der = EncodingKey::from_ed_pem(pem.as_bytes()).map_err(|_| BadKey::NotPem)?;
        let pair = Ed25519KeyPair::from_pkcs8(der.as_bytes()).map_err(|_| BadKey::NotPem)?;
        Self::from_pair(&pair)
    }

    /// As PKCS#8 PEM: keep it secret.
    #[must_use]
    pub fn to_pem(&self) -> SecretString {
        let body = BASE64_STANDARD.encode(self.encoding.as_bytes());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        SecretString::from(pem)
    }

    fn from_pair(pair: &Ed25519KeyPair) -> Result<Self, BadKey> {
        let der = pair.to_pkcs8().map_err(unusable)?;
        let decoding = DecodingKey::from_ed_der(pair.public_key().as_ref());
        let mut public =
            Jwk::from_decoding_key(&decoding, Some(Algorithm::EdDSA)).map_err(unusable)?;
        let kid = public
            .thumbprint(ThumbprintHash::SHA256)
            .map_err(unusable)?;
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self {
            encoding: EncodingKey::from_ed_der(der.as_ref()),
            public,
            kid,
        })
    }

    /// Its id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

fn unusable(err: impl fmt::Display) -> BadKey {
    BadKey::Unusable(err.to_string())
}

/// The key that signs, and the other keys that are published beside it.
#[derive(Debug, Clone)]
pub struct KeyRing {
    current: SigningKey,
    published: Vec<SigningKey>,
}

impl KeyRing {
    /// A ring of one key.
    #[must_use]
    pub fn new(current: SigningKey) -> Self {
        Self {
            current,
            published: Vec::new(),
        }
    }

    /// Publishes another key that does not sign: the previous one, until the last token it signed
    /// has expired; or the next one, ahead of its first use, so that no instance of a service
    /// publishes a set without a key that another instance signs with.
    #[must_use]
    pub fn publish(mut self, key: SigningKey) -> Self {
        self.published.retain(|other| other.kid != key.kid);
        if key.kid != self.current.kid {
            self.published.push(key);
        }
        self
    }

    /// Signs with `next` from now on, and goes on publishing the key that signed until now.
    #[must_use]
    pub fn rotate(self, next: SigningKey) -> Self {
        let Self { current, published } = self;
        let ring = Self {
            current: next,
            published: Vec::new(),
        };
        published
            .into_iter()
            .chain([current])
            .fold(ring, Self::publish)
    }

    /// The key that signs.
    #[must_use]
    pub fn current(&self) -> &SigningKey {
        &self.current
    }

    /// The public halves of all of them.
    #[must_use]
    pub fn jwks(&self) -> Jwks {
        let keys = std::iter::once(&self.current).chain(&self.published);
        Jwks(JwkSet {
            keys: keys.map(|key| key.public.clone()).collect(),
        })
    }
}

/// A public key set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Jwks(JwkSet);

impl Jwks {
    /// From the JSON document.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(json: &[u8]) -> Result<Self, BadKey> {
        serde_json::from_slice(json).map_err(|err| BadKey::NotAKeySet(err.to_string()))
    }

    /// The JSON document.
    ///
    /// # Errors
    /// Never for a set that [`KeyRing::jwks`] or [`Jwks::parse`] made.
    pub fn to_json(&self) -> Result<Vec<u8>, BadKey> {
        serde_json::to_vec(self).map_err(unusable)
    }

    /// The Ed25519 keys by id; keys of other kinds are passed over.
    pub(crate) fn verifying_keys(&self) -> HashMap<String, VerifyingKey> {
        self.0.keys.iter().filter_map(verifying_key).collect()
    }
}

fn verifying_key(jwk: &Jwk) -> Option<(String, VerifyingKey)> {
    let AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
        curve: EllipticCurve::Ed25519,
        ..
    }) = jwk.algorithm
    else {
        return None;
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some((jwk.common.key_id.clone()?, VerifyingKey(key)))
}

/// A public key.
#[derive(Clone)]
pub struct VerifyingKey(pub(crate) DecodingKey);

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").finish_non_exhaustive()
    }
}

/// Where the public keys of the accepted issuers come from.
#[async_trait]
pub trait KeySource: fmt::Debug + Send + Sync + 'static {
    /// The key that the issuer publishes under an id. [`TokenError::WrongIssuer`] for an issuer that
    /// is not accepted, [`TokenError::UnknownKey`] for an id that the issuer does not publish,
    /// [`TokenError::KeysUnavailable`] when that can't be found out at this moment.
    async fn key(&self, issuer: &str, kid: &str) -> Result<VerifyingKey, TokenError>;
}

/// Keys that are known beforehand.
#[derive(Debug, Clone, Default)]
pub struct FixedKeys {
    issuers: HashMap<String, HashMap<String, VerifyingKey>>,
}

impl FixedKeys {
    /// Accepts an issuer with these keys, in place of those it had.
    #[must_use]
    pub fn with_issuer(mut self, issuer: impl Into<String>, keys: &Jwks) -> Self {
        self.issuers.insert(issuer.into(), keys.verifying_keys());
        self
    }
}

#[async_trait]
impl KeySource for FixedKeys {
    async fn key(&self, issuer: &str, kid: &str) -> Result<VerifyingKey, TokenError> {
        let keys = self.issuers.get(issuer).ok_or(TokenError::WrongIssuer)?;
        keys.get(kid).cloned().ok_or(TokenError::UnknownKey)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_pem_key_has_the_same_id_wherever_it_is_loaded() {
        let made = SigningKey::generate().expect("a key");
        let loaded = SigningKey::from_pem(made.to_pem().expose_secret()).expect("a key");
        assert_eq!(loaded.kid(), made.kid());
        assert_eq!(SigningKey::from_pem("nonsense").err(), Some(BadKey::NotPem));
    }

    #[test]
    fn the_id_is_the_thumbprint_of_rfc_8037() {
        let jwks = Jwks::parse(
            br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
        )
        .expect("a key set");
        assert_eq!(
            jwks.0.keys[0].thumbprint(ThumbprintHash::SHA256).as_deref(),
            Ok("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")
        );
    }

    #[test]
    fn the_published_set_holds_no_private_part_and_reads_back() {
        let ring = KeyRing::new(SigningKey::generate().expect("a key"))
            .rotate(SigningKey::generate().expect("a key"));
        let json = ring.jwks().to_json().expect("JSON");
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(value["keys"].as_array().map(Vec::len), Some(2));
        assert_eq!(value["keys"][0]["kid"], ring.current().kid());
        for key in value["keys"].as_array().expect("keys") {
            let mut names: Vec<_> = key.as_object().expect("a key").keys().collect();
            names.sort();
            assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"]);
        }
        assert_eq!(Jwks::parse(&json).as_ref(), Ok(&ring.jwks()));
        assert_eq!(ring.jwks().verifying_keys().len(), 2);
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over() {
        let jwks = Jwks::parse(br#"{"keys":[{"kty":"oct","kid":"a","k":"c2VjcmV0"}]}"#)
            .expect("a key set");
        assert!(jwks.verifying_keys().is_empty());
    }

    #[test]
    fn debug_shows_no_key() {
        let key = SigningKey::generate().expect("a key");
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey {{ kid: {:?}, .. }}", key.kid())
        );
    }
}
