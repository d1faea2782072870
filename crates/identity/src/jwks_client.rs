//! The public keys of issuers, fetched over HTTP and cached.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::{Url, redirect::Policy};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::JoinSet,
    time::Instant,
};

use crate::{Jwks, KeySource, TokenError, VerifyingKey, counted::KEYS_FETCHED};

/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// An unknown key id leads to a fetch at most this often: forged ids must not flood the issuer.
const FETCH_EVERY: Duration = Duration::from_secs(5);
/// After a fetch that failed, the next may follow sooner.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Older keys are fetched anew in the background, so that a key that was withdrawn is dropped.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Keys that are kept fetched are fetched anew that often; sooner after a fetch that failed, and later with
/// each that fails after it.
const KEEP_EVERY: Duration = Duration::from_secs(240);
/// A key set is a few hundred bytes.
const MAX_DOCUMENT_BYTES: usize = 64 * 1024;

/// An issuer's URL was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key set of {issuer} can't be fetched from {url:?}: {reason}")]
pub struct BadIssuerUrl {
    issuer: String,
    url: String,
    reason: String,
}

/// The keys of a set of issuers, each fetched from its URL when they are first needed, or before
/// ([`RemoteKeys::kept_fetched`]).
///
/// A key that was fetched is served from memory, also while the issuer is away. An unknown key id is
/// looked up again at most once in a few seconds for each issuer, by one fetch that all callers share.
#[derive(Debug)]
pub struct RemoteKeys {
    issuers: HashMap<String, Arc<Issuer>>,
    keeping: JoinSet<()>,
}

impl RemoteKeys {
    /// For each accepted issuer, its name (the `iss` claim) and the URL of its key set, such as
    /// `https://gatekeeper.example/.well-known/jwks.json`. Fetches nothing yet.
    ///
    /// # Errors
    /// When a URL is none, or not for HTTP.
    pub fn new(issuers: impl IntoIterator<Item = (String, String)>) -> Result<Self, BadIssuerUrl> {
        let issuers = issuers.into_iter().map(|(issuer, url)| {
            let bad = |reason: String| BadIssuerUrl {
                issuer: issuer.clone(),
                url: url.clone(),
                reason,
            };
            let parsed: Url = url.parse().map_err(|err| bad(format!("{err}")))?;
            if !matches!(parsed.scheme(), "http" | "https") {
                return Err(bad("only http and https are known".to_owned()));
            }
            let client = client().map_err(|err| bad(err.to_string()))?;
            Ok((issuer, Arc::new(Issuer::new(client, parsed))))
        });
        // Seen from the start on, at 0.
        KEYS_FETCHED.ok.increment(0);
        Ok(Self {
            issuers: issuers.collect::<Result<_, _>>()?,
            keeping: JoinSet::new(),
        })
    }

    /// Fetches every issuer's keys now and from time to time, from within a tokio runtime: an issuer
    /// that goes away is then known already, also to who has seen none of its tokens before.
    #[must_use]
    pub fn kept_fetched(mut self) -> Self {
        for issuer in self.issuers.values() {
            self.keeping.spawn(Arc::clone(issuer).keep_fetched());
        }
        self
    }
}

#[async_trait]
impl KeySource for RemoteKeys {
    async fn key(&self, issuer: &str, kid: &str) -> Result<VerifyingKey, TokenError> {
        let issuer = self.issuers.get(issuer).ok_or(TokenError::WrongIssuer)?;
        issuer.key(kid).await
    }
}

/// The same roots as the gRPC clients trust, whatever the image holds.
fn client() -> Result<reqwest::Client, Box<dyn std::error::Error>> {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .timeout(FETCH_TIMEOUT)
        .build()?)
}

/// The last fetch.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    at: Instant,
    succeeded: bool,
}

impl Attempt {
    fn too_recent(self) -> bool {
        let pause = if self.succeeded {
            FETCH_EVERY
        } else {
            RETRY_EVERY
        };
        self.at.elapsed() < pause
    }
}

#[derive(Debug, Default)]
struct Cached {
    keys: HashMap<String, VerifyingKey>,
    fetched_at: Option<Instant>,
}

#[derive(Debug)]
struct Issuer {
    client: reqwest::Client,
    url: Url,
    cached: RwLock<Cached>,
    /// Held during a fetch, so that there is one at a time.
    last: Arc<Mutex<Option<Attempt>>>,
}

impl Issuer {
    fn new(client: reqwest::Client, url: Url) -> Self {
        Self {
            client,
            url,
            cached: RwLock::default(),
            last: Arc::default(),
        }
    }

    async fn key(self: &Arc<Self>, kid: &str) -> Result<VerifyingKey, TokenError> {
        if let Some(key) = self.cached_key(kid) {
            self.refresh_if_old();
            return Ok(key);
        }
        let mut last = Arc::clone(&self.last).lock_owned().await;
        // While this call waited, another may have fetched.
        if let Some(key) = self.cached_key(kid) {
            return Ok(key);
        }
        if !last.is_some_and(Attempt::too_recent) {
            self.fetch(&mut last).await;
        }
        match (self.cached_key(kid), *last) {
            (Some(key), _) => Ok(key),
            (None, Some(attempt)) if attempt.succeeded => Err(TokenError::UnknownKey),
            (None, _) => Err(TokenError::KeysUnavailable),
        }
    }

    async fn keep_fetched(self: Arc<Self>) {
        let mut retry = RETRY_EVERY;
        loop {
            let mut last = Arc::clone(&self.last).lock_owned().await;
            self.fetch(&mut last).await;
            let fetched = last.is_some_and(|attempt| attempt.succeeded);
            drop(last);
            if fetched {
                retry = RETRY_EVERY;
                tokio::time::sleep(KEEP_EVERY).await;
            } else {
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(KEEP_EVERY);
            }
        }
    }

    fn cached_key(&self, kid: &str) -> Option<VerifyingKey> {
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        cached.keys.get(kid).cloned()
    }

    /// Nobody waits for this fetch: what is cached is served meanwhile.
    fn refresh_if_old(self: &Arc<Self>) {
        let fetched_at = {
            let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
            cached.fetched_at
        };
        if fetched_at.is_none_or(|at| at.elapsed() < MAX_AGE) {
            return;
        }
        let Ok(last) = Arc::clone(&self.last).try_lock_owned() else {
            return;
        };
        if !last.is_some_and(Attempt::too_recent) {
            let issuer = Arc::clone(self);
            tokio::spawn(async move {
                let mut last = last;
                issuer.fetch(&mut last).await;
            });
        }
    }

    async fn fetch(&self, last: &mut OwnedMutexGuard<Option<Attempt>>) {
        // Said beforehand, so that a caller who gives up half-way does not undo the limit.
        **last = Some(Attempt {
            at: Instant::now(),
            succeeded: false,
        });
        match self.download().await {
            Ok(jwks) => {
                let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
                KEYS_FETCHED.ok.increment(1);
                cached.keys = jwks.verifying_keys();
                cached.fetched_at = Some(Instant::now());
                **last = Some(Attempt {
                    at: Instant::now(),
                    succeeded: true,
                });
            }
            Err(err) => {
                KEYS_FETCHED.failed.increment(1);
                tracing::warn!(url = %self.url, %err, "the key set could not be fetched");
            }
        }
    }

    async fn download(&self) -> Result<Jwks, Box<dyn std::error::Error + Send + Sync>> {
        let mut response = self
            .client
            .get(self.url.clone())
            .send()
            .await?
            .error_for_status()?;
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            document.extend_from_slice(&chunk);
            if document.len() > MAX_DOCUMENT_BYTES {
                return Err("the document is too large".into());
            }
        }
        Ok(Jwks::parse(&document)?)
    }
}
