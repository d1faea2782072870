//! Which access tokens verify, and above all which do not.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use infrachat_identity::{
    ExposeSecret as _, FixedKeys, KeyRing, SigningKey, TokenError, TokenIssuer, TokenVerifier,
};
use infrachat_types::{ErrorCode, Region, TokenFamilyId, UserName, unix_millis};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

const ISSUER: &str = "https://gatekeeper.us-west1.infrachat";

fn key() -> SigningKey {
    SigningKey::generate().expect("a key")
}

fn issuer(name: &str, ring: &KeyRing) -> TokenIssuer {
    let region = Region::new("us-west1").expect("a region");
    TokenIssuer::new(name, region, ring.clone(), Duration::from_secs(600))
}

fn verifier(ring: &KeyRing) -> TokenVerifier {
    TokenVerifier::new(Arc::new(
        FixedKeys::default().with_issuer(ISSUER, &ring.jwks()),
    ))
}

fn token(issuer: &TokenIssuer, now: i64) -> String {
    let user = UserName::new("alice").expect("a name");
    let token = issuer.issue(&user, &TokenFamilyId::from_text("fam1"), now);
    token.expect("signs").token.expose_secret().to_owned()
}

fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

fn parts(token: &str) -> (Value, Value, String) {
    let mut parts = token.split('.');
    let mut part = || parts.next().expect("three parts");
    let json = |text: &str| {
        serde_json::from_slice(&BASE64.decode(text).expect("base64url")).expect("JSON")
    };
    (json(part()), json(part()), part().to_owned())
}

/// A key outside of the crate, to sign what the issuer never would.
struct Forge {
    pair: Ed25519KeyPair,
    ring: KeyRing,
}

impl Forge {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let der = pair.to_pkcs8v1().expect("a document");
        let body = base64::prelude::BASE64_STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let ring = KeyRing::new(SigningKey::from_pem(&pem).expect("a key"));
        Self { pair, ring }
    }

    fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": "EdDSA", "kid": self.ring.current().kid()})
    }

    fn claims() -> Value {
        let now = unix_millis() / 1000;
        json!({
            "iss": ISSUER, "aud": "infrachat", "sub": "alice", "iat": now, "exp": now + 60,
            "jti": "1", "fam": "fam1", "reg": "us-west1",
        })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = BASE64.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    async fn verdict(&self, header: &Value, claims: &Value) -> Result<(), TokenError> {
        let token = self.sign(header, claims);
        verifier(&self.ring).verify(&token).await.map(drop)
    }
}

#[tokio::test]
async fn a_token_says_who_when_and_where() {
    let ring = KeyRing::new(key());
    let issuer = issuer(ISSUER, &ring);
    let now = unix_millis();
    let claims = verifier(&ring).verify(&token(&issuer, now)).await;
    let claims = claims.expect("verifies");
    assert_eq!(claims.user.as_str(), "alice");
    assert_eq!(claims.family.as_str(), "fam1");
    assert_eq!(claims.issuer, ISSUER);
    assert_eq!(claims.region.as_str(), "us-west1");
    assert_eq!(claims.issued_at, now, "to the millisecond");
    assert_eq!(claims.expires_at, (now + 600_000) / 1000 * 1000);
    assert!(issuer.forget_after(now) > claims.expires_at);
}

#[tokio::test]
async fn an_expired_token_is_refused_beyond_a_small_leeway() {
    let ring = KeyRing::new(key());
    let issuer = issuer(ISSUER, &ring);
    let verify = async |age_ms: i64| {
        let token = token(&issuer, unix_millis() - age_ms);
        verifier(&ring).verify(&token).await.map(drop)
    };
    assert_eq!(verify(610_000).await, Err(TokenError::Expired));
    assert_eq!(verify(600_000).await, Ok(()));
    assert_eq!(TokenError::Expired.code(), ErrorCode::TokenExpired);
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    let ring = KeyRing::new(key());
    let good = token(&issuer(ISSUER, &ring), unix_millis());
    let (header, mut claims, signature) = parts(&good);
    claims["sub"] = json!("mallory");
    let forged = format!("{}.{}.{signature}", part(&header), part(&claims));
    let verdict = verifier(&ring).verify(&forged).await;
    assert_eq!(verdict.err(), Some(TokenError::BadSignature));
}

#[tokio::test]
async fn another_key_under_the_same_id_is_refused() {
    let ring = KeyRing::new(key());
    let mut header = Forge::new().header();
    header["kid"] = json!(ring.current().kid());
    let forged = Forge::new().sign(&header, &Forge::claims());
    let verdict = verifier(&ring).verify(&forged).await;
    assert_eq!(verdict.err(), Some(TokenError::BadSignature));
}

#[tokio::test]
async fn unsigned_tokens_are_refused() {
    let forge = Forge::new();
    for alg in ["none", "None", "NONE", ""] {
        let mut header = forge.header();
        header["alg"] = json!(alg);
        let unsigned = format!("{}.{}.", part(&header), part(&Forge::claims()));
        let verdict = verifier(&forge.ring).verify(&unsigned).await;
        assert!(
            matches!(verdict, Err(TokenError::Malformed(_))),
            "{alg}: {verdict:?}"
        );
    }
    let unsigned = format!("{}.{}.", part(&forge.header()), part(&Forge::claims()));
    let verdict = verifier(&forge.ring).verify(&unsigned).await;
    assert_eq!(verdict.err(), Some(TokenError::BadSignature));
}

#[tokio::test]
async fn the_public_key_is_no_shared_secret() {
    let forge = Forge::new();
    let public = forge.pair.public_key().as_ref();
    let jwks = forge.ring.jwks().to_json().expect("JSON");
    for secret in [public, BASE64.encode(public).as_bytes(), &jwks] {
        let header = Header {
            kid: Some(forge.ring.current().kid().to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let key = EncodingKey::from_secret(secret);
        let forged = jsonwebtoken::encode(&header, &Forge::claims(), &key).expect("signs");
        let verdict = verifier(&forge.ring).verify(&forged).await;
        assert!(
            matches!(verdict, Err(TokenError::Malformed(_))),
            "{verdict:?}"
        );
    }
}

#[tokio::test]
async fn every_claim_is_needed_and_checked() {
    let forge = Forge::new();
    let (header, good) = (forge.header(), Forge::claims());
    assert_eq!(forge.verdict(&header, &good).await, Ok(()));
    for name in ["iss", "aud", "sub", "iat", "exp", "jti", "fam", "reg"] {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        let verdict = forge.verdict(&header, &claims).await;
        assert!(verdict.is_err(), "without {name}: {verdict:?}");
    }
    let with = async |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        forge.verdict(&header, &claims).await.err()
    };
    let other_issuer = with("iss", json!("https://elsewhere")).await;
    assert_eq!(other_issuer, Some(TokenError::WrongIssuer));
    let other_audience = with("aud", json!("another-service")).await;
    assert_eq!(other_audience, Some(TokenError::WrongAudience));
    assert!(with("sub", json!("Not A Name")).await.is_some());
    assert!(with("exp", json!("never")).await.is_some());
    assert!(with("iss", json!([ISSUER])).await.is_some());
}

#[tokio::test]
async fn the_header_must_name_a_published_key_and_no_extension() {
    let forge = Forge::new();
    let with = async |name: &str, value: Value| {
        let mut header = forge.header();
        header[name] = value;
        forge.verdict(&header, &Forge::claims()).await.err()
    };
    assert_eq!(with("kid", json!("x")).await, Some(TokenError::UnknownKey));
    assert!(with("kid", Value::Null).await.is_some());
    assert!(with("crit", json!(["b64"])).await.is_some());
}

#[tokio::test]
async fn garbage_is_refused() {
    let ring = KeyRing::new(key());
    for garbage in ["", ".", "..", "a.b.c", "é.é.é", &"x".repeat(100_000)] {
        let verdict = verifier(&ring).verify(garbage).await;
        assert!(matches!(verdict, Err(TokenError::Malformed(_))));
    }
}

#[tokio::test]
async fn tokens_of_the_previous_key_verify_as_long_as_it_is_published() {
    let before = KeyRing::new(key());
    let old = token(&issuer(ISSUER, &before), unix_millis());
    let after = before.clone().rotate(key());
    let new = token(&issuer(ISSUER, &after), unix_millis());
    assert!(verifier(&after).verify(&old).await.is_ok());
    assert!(verifier(&after).verify(&new).await.is_ok());
    let verdict = verifier(&before).verify(&new).await;
    assert_eq!(verdict.err(), Some(TokenError::UnknownKey));
    let retired = KeyRing::new(after.current().clone());
    let verdict = verifier(&retired).verify(&old).await;
    assert_eq!(verdict.err(), Some(TokenError::UnknownKey));
}
