//! Revocations in the store alone.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_identity::{
    Claims, MemoryRevocations, Revocation, Revocations, RevocationsUnavailable,
};
use infrachat_metadata::{Metadata, MetadataError};
use infrachat_types::unix_millis;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// How old what was read may be: the store is read at most so often.
const AGE: Duration = Duration::from_secs(1);
/// A read that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Revocations that are read from a region's store, at most once a second, by all callers together.
///
/// A revocation is known here at once, and to other processes within a second. While the store is
/// away there is no answer; nobody waits for it longer than two seconds.
#[derive(Debug, Clone)]
pub struct StoredRevocations {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Metadata>,
    /// Held by whoever reads the store.
    last: Mutex<Option<Read>>,
}

/// What a read of the store gave, or why it gave nothing.
#[derive(Debug)]
struct Read {
    began: Instant,
    known: Result<Arc<MemoryRevocations>, RevocationsUnavailable>,
}

impl StoredRevocations {
    /// Those of the region whose store this is.
    #[must_use]
    pub fn new(store: Arc<dyn Metadata>) -> Self {
        let last = Mutex::default();
        Self {
            shared: Arc::new(Shared { store, last }),
        }
    }
}

impl Shared {
    async fn list(&self) -> Result<Vec<Revocation>, RevocationsUnavailable> {
        timeout(PATIENCE, self.store.revocations(unix_millis()))
            .await
            .unwrap_or_else(|_| {
                let text = format!("no answer within {PATIENCE:?}");
                Err(MetadataError::Unavailable(text))
            })
            .map_err(unavailable)
    }

    async fn known(&self) -> Result<Arc<MemoryRevocations>, RevocationsUnavailable> {
        let mut last = self.last.lock().await;
        if let Some(read) = &*last
            && read.began.elapsed() < AGE
        {
            return read.known.clone();
        }
        let began = Instant::now();
        let listed = self.list().await;
        let known = listed.map(|all| Arc::new(MemoryRevocations::from_iter(all)));
        // A failure counts from its end: the callers that waited for it don't repeat it in turn.
        let began = if known.is_ok() { began } else { Instant::now() };
        *last = Some(Read {
            began,
            known: known.clone(),
        });
        known
    }
}

fn unavailable(err: MetadataError) -> RevocationsUnavailable {
    RevocationsUnavailable(err.to_string())
}

#[async_trait]
impl Revocations for StoredRevocations {
    async fn revoke(&self, revocation: Revocation) -> Result<(), RevocationsUnavailable> {
        let kept = self.shared.store.add_revocation(revocation).await;
        kept.map_err(unavailable)?;
        // What was read before may lack it.
        self.shared.last.lock().await.take();
        Ok(())
    }

    async fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsUnavailable> {
        let shared = Arc::clone(&self.shared);
        // A task of its own, so that a caller who gives up does not stop the read for the others.
        let known = tokio::spawn(async move { shared.known().await }).await;
        let known = known.map_err(|err| RevocationsUnavailable(err.to_string()))??;
        known.is_revoked(claims).await
    }

    async fn all(&self) -> Result<Vec<Revocation>, RevocationsUnavailable> {
        self.shared.list().await
    }
}
