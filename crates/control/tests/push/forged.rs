//! Whoever can't show the right token changes nothing.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use axum::{Json, Router, routing::get};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use infrachat_bus::{EventBus as _, FabricConfig, MemoryFabric};
use infrachat_control::{GooglePushTokens, Hearing, PUSH_PATH, topic};
use infrachat_proto::bus::v1::ControlEvent;
use infrachat_types::unix_millis;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet},
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::{AUDIENCE, PUSHER, Service, changed, region, until};

/// A key that signs like Google's.
struct Signer {
    key: EncodingKey,
    jwk: Jwk,
}

impl Signer {
    fn new(id: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("a document");
        let body = BASE64_STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a key");
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a public key");
        jwk.common.key_id = Some(id.to_owned());
        Self { key, jwk }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = self.jwk.common.key_id.clone();
        jsonwebtoken::encode(&header, claims, &self.key).expect("signs")
    }
}

/// The claims of a good token.
fn claims() -> Value {
    let now = unix_millis() / 1000;
    json!({
        "iss": "https://accounts.google.com", "aud": AUDIENCE, "sub": "1",
        "email": PUSHER, "email_verified": true, "iat": now, "exp": now + 3600,
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = claims();
    change(&mut claims);
    claims
}

struct Target {
    service: Service,
    signer: Signer,
    fabric: MemoryFabric,
    http: reqwest::Client,
}

impl Target {
    async fn start() -> Self {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let signer = Signer::new("good");
        let keys = JwkSet {
            keys: vec![signer.jwk.clone()],
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!(
            "http://{}/certs",
            listener.local_addr().expect("an address")
        );
        let routes = Router::new().route("/certs", get(async move || Json(keys)));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let fabric = MemoryFabric::new(FabricConfig::default());
        let hearing = Hearing::Push {
            tokens: Arc::new(GooglePushTokens::new(AUDIENCE, PUSHER, &[url])),
            set_up: None,
        };
        let service = Service::start(Arc::new(fabric.bus("us-west1")), hearing).await;
        Self {
            service,
            signer,
            fabric,
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
        }
    }

    async fn post(&self, token: Option<&str>, body: String) -> u16 {
        let url = format!("http://{}{PUSH_PATH}", self.service.address);
        let mut request = self
            .http
            .post(url)
            .timeout(Duration::from_secs(20))
            .body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.expect("answers").status().as_u16()
    }
}

/// A push as Pub/Sub makes it.
fn body(channel: &str) -> String {
    let event = ControlEvent {
        region: "us-west1".to_owned(),
        kind: Some(changed(channel)),
    };
    let data = BASE64_STANDARD.encode(event.encode_to_vec());
    let message = json!({"data": data, "messageId": "1", "attributes": {}});
    json!({"message": message, "subscription": "projects/p/subscriptions/s"}).to_string()
}

#[tokio::test]
async fn only_the_right_token_passes() {
    let target = Target::start().await;
    let sign = |claims: &Value| target.signer.sign(claims);
    let stranger = Signer::new("stranger").sign(&claims());
    let impostor = Signer::new("good").sign(&claims());
    let hour_ago = unix_millis() / 1000 - 3600;
    let without = |name: &str| {
        with(|claims| {
            claims.as_object_mut().expect("an object").remove(name);
        })
    };
    let forged = [
        ("nothing like a token", "nonsense".to_owned()),
        (
            "another audience",
            sign(&with(|c| c["aud"] = json!("https://else.example"))),
        ),
        (
            "another issuer",
            sign(&with(|c| c["iss"] = json!("https://evil.example"))),
        ),
        (
            "another account",
            sign(&with(|c| c["email"] = json!("me@evil.example"))),
        ),
        (
            "an unverified account",
            sign(&with(|c| c["email_verified"] = json!(false))),
        ),
        ("no account", sign(&without("email"))),
        (
            "an account nobody vouches for",
            sign(&without("email_verified")),
        ),
        ("no expiry", sign(&without("exp"))),
        ("expired", sign(&with(|c| c["exp"] = json!(hour_ago)))),
        ("another key under the same id", impostor),
    ];
    for (what, token) in forged {
        let status = target.post(Some(&token), body("#forged")).await;
        assert_eq!(status, 403, "{what}");
    }
    assert_eq!(target.post(None, body("#forged")).await, 401, "no token");
    // Whether its key will be known later can't be told; it does not pass either way.
    assert_eq!(target.post(Some(&stranger), body("#forged")).await, 503);

    let good = sign(&claims());
    assert_eq!(target.post(Some(&good), body("#good")).await, 204);
    let applied = target.service.notes.applied.borrow().clone();
    assert_eq!(applied, ["#good"], "and nothing of the forgers");
}

#[tokio::test]
async fn pushes_that_come_at_once_are_all_taken() {
    let target = Target::start().await;
    let token = target.signer.sign(&claims());
    let names: Vec<_> = (0..50).map(|number| format!("#at-once-{number}")).collect();
    let posting = names
        .iter()
        .map(|name| target.post(Some(&token), body(name)));
    for status in futures::future::join_all(posting).await {
        assert_eq!(status, 204);
    }
    until(&target.service.notes.applied, |all| {
        all.len() == names.len()
    })
    .await;
}

#[tokio::test]
async fn what_is_not_in_pubsubs_form_is_a_bad_request() {
    let target = Target::start().await;
    let token = target.signer.sign(&claims());
    for bad in [
        "",
        "{}",
        "not json",
        r#"{"message": {"data": "%"}, "subscription": "s"}"#,
    ] {
        assert_eq!(
            target.post(Some(&token), bad.to_owned()).await,
            400,
            "{bad}"
        );
    }
    let control = infrachat_bus::Subscription {
        topic: topic(&region()),
        group: "anyone".to_owned(),
    };
    target
        .fabric
        .bus("us-west1")
        .ensure(&control)
        .await
        .expect("goes on");
    assert_eq!(target.post(Some(&token), body("#good")).await, 204);
}
