//! Push, to an HTTP server of the test's own.

mod common;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use common::{LONG, Server, keyed, message, numbered, subscription};
use infrachat_emulators::proto::{
    ModifyPushConfigRequest, PullRequest, PushConfig, Subscription,
    push_config::{AuthenticationMethod, NoWrapper, OidcToken, Wrapper},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::Code;

struct Pushed {
    headers: HeaderMap,
    body: String,
}

impl Pushed {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    fn id(&self) -> String {
        self.json()["message"]["messageId"]
            .as_str()
            .expect("an id")
            .to_owned()
    }
}

#[derive(Clone)]
struct Handler {
    pushed: mpsc::UnboundedSender<Pushed>,
    /// What the next pushes are answered; 204 when empty.
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
}

struct Endpoint {
    url: String,
    pushed: mpsc::UnboundedReceiver<Pushed>,
}

impl Endpoint {
    async fn start(answers: &[u16]) -> Self {
        let (sender, pushed) = mpsc::unbounded_channel();
        let answers = answers
            .iter()
            .map(|code| StatusCode::from_u16(*code).expect("a status"));
        let handler = Handler {
            pushed: sender,
            answers: Arc::new(Mutex::new(answers.collect())),
        };
        let router = Router::new()
            .route("/push", post(receive))
            .with_state(handler);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let url = format!("http://{}/push", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, pushed }
    }

    async fn next(&mut self) -> Pushed {
        tokio::time::timeout(LONG, self.pushed.recv())
            .await
            .expect("a push in time")
            .expect("the endpoint runs")
    }

    fn config(&self) -> PushConfig {
        PushConfig {
            push_endpoint: self.url.clone(),
            ..PushConfig::default()
        }
    }
}

async fn receive(State(handler): State<Handler>, headers: HeaderMap, body: String) -> StatusCode {
    drop(handler.pushed.send(Pushed { headers, body }));
    let mut answers = handler.answers.lock().expect("no panic in a handler");
    answers.pop_front().unwrap_or(StatusCode::NO_CONTENT)
}

#[tokio::test]
async fn a_push_carries_the_message_and_a_token_that_the_published_keys_verify() {
    let server = Server::start().await;
    let mut endpoint = Endpoint::start(&[]).await;
    let topic = server.topic("pushed").await;
    let mut config = endpoint.config();
    config.authentication_method = Some(AuthenticationMethod::OidcToken(OidcToken {
        service_account_email: "pusher@example.com".to_owned(),
        audience: "the audience".to_owned(),
    }));
    let settings = Subscription {
        push_config: Some(config),
        ..subscription("pushed", &topic)
    };
    let sub = server.subscription(settings).await;
    let mut hello = message("hello");
    hello
        .attributes
        .insert("kind".to_owned(), "greeting".to_owned());
    let ids = server.publish(&topic, vec![hello]).await;

    let pushed = endpoint.next().await;
    let body = pushed.json();
    assert_eq!(body["subscription"], sub.as_str());
    assert_eq!(body["message"]["data"], "aGVsbG8=");
    assert_eq!(body["message"]["messageId"], ids[0].as_str());
    assert_eq!(body["message"]["attributes"]["kind"], "greeting");

    let token = pushed.headers["authorization"].to_str().expect("text");
    let token = token.strip_prefix("Bearer ").expect("a bearer token");
    let get = async |url: &str| -> Value {
        let answer = reqwest::get(url).await.expect("an answer");
        serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
    };
    let discovery = get(&format!(
        "{}/.well-known/openid-configuration",
        server.url()
    ))
    .await;
    let keys = get(discovery["jwks_uri"].as_str().expect("an address")).await;
    let keys: JwkSet = serde_json::from_value(keys).expect("a key set");
    let header = jsonwebtoken::decode_header(token).expect("a token");
    let key = keys.find(&header.kid.expect("a key id")).expect("its key");
    let key = DecodingKey::from_jwk(key).expect("a usable key");
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["the audience"]);
    validation.set_issuer(&[server.url()]);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation).expect("a good token");
    assert_eq!(claims.claims["email"], "pusher@example.com");
    assert_eq!(claims.claims["email_verified"], true);

    validation.set_audience(&["another audience"]);
    assert!(jsonwebtoken::decode::<Value>(token, &key, &validation).is_err());
}

#[tokio::test]
async fn a_push_that_fails_comes_again() {
    let server = Server::start().await;
    let mut endpoint = Endpoint::start(&[500, 429]).await;
    let topic = server.topic("stubborn").await;
    let settings = Subscription {
        push_config: Some(endpoint.config()),
        ..subscription("stubborn", &topic)
    };
    server.subscription(settings).await;
    let ids = server.publish(&topic, vec![message("a")]).await;
    for _ in 0..3 {
        assert_eq!(endpoint.next().await.id(), ids[0]);
    }
    let next = server.publish(&topic, vec![message("b")]).await;
    assert_eq!(
        endpoint.next().await.id(),
        next[0],
        "the third push was accepted"
    );
}

#[tokio::test]
async fn messages_of_a_key_are_pushed_one_after_the_other() {
    let server = Server::start().await;
    let mut endpoint = Endpoint::start(&[204, 503]).await;
    let topic = server.topic("lined").await;
    let settings = Subscription {
        push_config: Some(endpoint.config()),
        enable_message_ordering: true,
        ..subscription("lined", &topic)
    };
    server.subscription(settings).await;
    let ids = server.publish(&topic, numbered(4, "key")).await;
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(endpoint.next().await.id());
    }
    let expected = [0, 1, 1, 2, 3].map(|at: usize| ids[at].clone());
    assert_eq!(order, expected);
}

#[tokio::test]
async fn without_a_wrapper_the_body_is_the_data() {
    let server = Server::start().await;
    let mut endpoint = Endpoint::start(&[]).await;
    let topic = server.topic("bare").await;
    let mut config = endpoint.config();
    config.wrapper = Some(Wrapper::NoWrapper(NoWrapper {
        write_metadata: true,
    }));
    let settings = Subscription {
        push_config: Some(config),
        ..subscription("bare", &topic)
    };
    server.subscription(settings).await;
    let ids = server.publish(&topic, vec![keyed("plain", "key")]).await;
    let pushed = endpoint.next().await;
    assert_eq!(pushed.body, "plain");
    assert_eq!(pushed.headers["x-goog-pubsub-message-id"], ids[0].as_str());
    assert_eq!(pushed.headers["x-goog-pubsub-ordering-key"], "key");
}

#[tokio::test]
async fn a_subscription_changes_between_pull_and_push() {
    let server = Server::start().await;
    let mut endpoint = Endpoint::start(&[]).await;
    let topic = server.topic("change").await;
    let sub = server.subscription(subscription("change", &topic)).await;
    let ids = server.publish(&topic, vec![message("waiting")]).await;
    let modify = |push: PushConfig| {
        let mut subscriber = server.subscriber();
        let request = ModifyPushConfigRequest {
            subscription: sub.clone(),
            push_config: Some(push),
        };
        async move {
            subscriber
                .modify_push_config(request)
                .await
                .expect("modified")
        }
    };
    modify(endpoint.config()).await;
    assert_eq!(endpoint.next().await.id(), ids[0]);
    let pull = PullRequest {
        subscription: sub.clone(),
        max_messages: 1,
        ..PullRequest::default()
    };
    let refused = server.subscriber().pull(pull).await.expect_err("it pushes");
    assert_eq!(refused.code(), Code::FailedPrecondition);

    modify(PushConfig::default()).await;
    server.publish(&topic, vec![message("pulled")]).await;
    assert_eq!(common::data(&server.pull(&sub).await), ["pulled"]);
    assert!(
        endpoint.pushed.try_recv().is_err(),
        "pushed after the change"
    );
}
