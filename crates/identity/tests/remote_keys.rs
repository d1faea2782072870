//! Keys over HTTP: cached, bounded in their fetches, and served while the issuer is away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use infrachat_identity::{KeyRing, KeySource as _, RemoteKeys, SigningKey, TokenError};
use tokio::net::TcpListener;

const ISSUER: &str = "https://gatekeeper.us-west1.infrachat";

/// An issuer whose answers can be changed.
struct Issuer {
    url: String,
    answer: Arc<Mutex<Option<Vec<u8>>>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        let answer = Arc::new(Mutex::new(None::<Vec<u8>>));
        let fetches = Arc::new(AtomicUsize::new(0));
        let handler = {
            let (answer, fetches) = (Arc::clone(&answer), Arc::clone(&fetches));
            async move || {
                fetches.fetch_add(1, Ordering::SeqCst);
                let answer = answer.lock().expect("not poisoned").clone();
                answer.ok_or(StatusCode::SERVICE_UNAVAILABLE)
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().route("/.well-known/jwks.json", get(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url: format!("http://{address}/.well-known/jwks.json"),
            answer,
            fetches,
        }
    }

    fn publish(&self, ring: &KeyRing) {
        let json = ring.jwks().to_json().expect("JSON");
        *self.answer.lock().expect("not poisoned") = Some(json);
    }

    fn go_away(&self) {
        *self.answer.lock().expect("not poisoned") = None;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn keys(&self) -> RemoteKeys {
        RemoteKeys::new([(ISSUER.to_owned(), self.url.clone())]).expect("a good URL")
    }
}

fn ring() -> KeyRing {
    KeyRing::new(SigningKey::generate().expect("a key"))
}

async fn verdict(keys: &RemoteKeys, kid: &str) -> Result<(), TokenError> {
    keys.key(ISSUER, kid).await.map(drop)
}

/// Lets the time pass after which a fetch may follow. The clock is stopped only for that: stopped
/// during a fetch, it would jump to the fetch's timeout.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_key_is_fetched_once_for_many_callers() {
    let (issuer, ring) = (Issuer::start().await, ring());
    issuer.publish(&ring);
    let (keys, kid) = (issuer.keys(), ring.current().kid());
    let ask = || verdict(&keys, kid);
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    assert_eq!([a, b, c], [Ok(()), Ok(()), Ok(())]);
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn forged_key_ids_do_not_flood_the_issuer() {
    let (issuer, ring) = (Issuer::start().await, ring());
    issuer.publish(&ring);
    let keys = issuer.keys();
    for forged in 0..100 {
        let verdict = verdict(&keys, &format!("forged-{forged}")).await;
        assert_eq!(verdict, Err(TokenError::UnknownKey));
    }
    assert_eq!(issuer.fetches(), 1);
    assert_eq!(verdict(&keys, ring.current().kid()).await, Ok(()));
}

#[tokio::test]
async fn a_new_key_is_found_without_a_restart() {
    let (issuer, before) = (Issuer::start().await, ring());
    issuer.publish(&before);
    let keys = issuer.keys();
    assert_eq!(verdict(&keys, before.current().kid()).await, Ok(()));
    let after = before
        .clone()
        .rotate(SigningKey::generate().expect("a key"));
    issuer.publish(&after);
    pass(Duration::from_secs(6)).await;
    assert_eq!(verdict(&keys, after.current().kid()).await, Ok(()));
    assert_eq!(verdict(&keys, before.current().kid()).await, Ok(()));
}

#[tokio::test]
async fn cached_keys_are_served_while_the_issuer_is_away() {
    let (issuer, ring) = (Issuer::start().await, ring());
    issuer.publish(&ring);
    let keys = issuer.keys();
    assert_eq!(verdict(&keys, ring.current().kid()).await, Ok(()));
    issuer.go_away();
    pass(Duration::from_secs(3600)).await;
    assert_eq!(verdict(&keys, ring.current().kid()).await, Ok(()));
    pass(Duration::from_secs(10)).await;
    let unknown = verdict(&keys, "new").await;
    assert_eq!(unknown, Err(TokenError::KeysUnavailable), "not: unknown");
    assert_eq!(verdict(&keys, ring.current().kid()).await, Ok(()));
}

#[tokio::test]
async fn the_first_fetch_is_tried_again_after_a_failure() {
    let (issuer, ring) = (Issuer::start().await, ring());
    let (keys, kid) = (issuer.keys(), ring.current().kid());
    for _ in 0..10 {
        assert_eq!(verdict(&keys, kid).await, Err(TokenError::KeysUnavailable));
    }
    assert_eq!(issuer.fetches(), 1, "not at every call");
    issuer.publish(&ring);
    pass(Duration::from_secs(2)).await;
    assert_eq!(verdict(&keys, kid).await, Ok(()));
}

#[tokio::test]
async fn a_withdrawn_key_is_dropped_in_time() {
    let (issuer, old) = (Issuer::start().await, ring());
    issuer.publish(&old);
    let keys = issuer.keys();
    assert_eq!(verdict(&keys, old.current().kid()).await, Ok(()));
    issuer.publish(&ring());
    pass(Duration::from_secs(600)).await;
    // The first call is served from the cache and starts the fetch that drops the key.
    let dropped = async {
        while verdict(&keys, old.current().kid()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), dropped).await;
    assert!(waited.is_ok(), "the key is still served");
}

#[tokio::test]
async fn other_issuers_and_bad_urls_are_refused() {
    let issuer = Issuer::start().await;
    let other = issuer.keys().key("https://elsewhere", "kid").await;
    assert_eq!(other.err(), Some(TokenError::WrongIssuer));
    assert_eq!(issuer.fetches(), 0);
    for url in ["", "gatekeeper", "file:///etc/passwd"] {
        assert!(RemoteKeys::new([(ISSUER.to_owned(), url.to_owned())]).is_err());
    }
}

#[tokio::test]
async fn keys_that_are_kept_fetched_are_known_before_the_first_token_and_after_the_issuer_left() {
    let (issuer, ring) = (Issuer::start().await, ring());
    issuer.publish(&ring);
    let keys = issuer.keys().kept_fetched();
    while issuer.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    issuer.go_away();
    // Waits for the fetch that is under way, and needs no other.
    assert_eq!(verdict(&keys, ring.current().kid()).await, Ok(()));
    assert_eq!(issuer.fetches(), 1);
}
