//! Revocations in the store and in Redis.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use infrachat_identity::{
    Claims, RedisRevocations, Revocation, Revocations, RevocationsUnavailable,
};
use tokio::time::sleep;

use crate::StoredRevocations;

/// Between two attempts to fill Redis.
const PAUSE: Duration = Duration::from_secs(1);

/// Revocations that are kept in a region's store and asked of its Redis.
///
/// Redis is trusted while it answers and is whole. Once it is not, the store is asked, and Redis is
/// filled from it before it is trusted again. While both are away there is no answer.
///
/// A revocation that the store has taken is never taken back: if Redis did not take it as well,
/// Redis gets it as soon as it can be filled. Until then those processes know it, within a second,
/// that don't trust Redis either.
#[derive(Debug)]
pub struct SharedRevocations {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    redis: RedisRevocations,
    stored: StoredRevocations,
    trust: Mutex<Trust>,
}

/// Whether Redis is asked. While it is not, one task tries to fill it.
#[derive(Debug)]
struct Trust {
    trusted: bool,
    /// Rises with every reason not to trust it, so that a fill that began before one does not count.
    doubts: u64,
}

impl SharedRevocations {
    /// Those of the region whose store and Redis these are.
    #[must_use]
    pub fn new(redis: RedisRevocations, stored: StoredRevocations) -> Self {
        let trust = Trust {
            trusted: true,
            doubts: 0,
        };
        Self {
            parts: Arc::new(Parts {
                redis,
                stored,
                trust: Mutex::new(trust),
            }),
        }
    }
}

impl Parts {
    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(self: &Arc<Self>, why: &RevocationsUnavailable) {
        let mut trust = self.trust();
        trust.doubts += 1;
        if std::mem::take(&mut trust.trusted) {
            tracing::warn!(%why, "revocations are read from the store until Redis is filled again");
            tokio::spawn(fill(Arc::downgrade(self)));
        }
    }

    async fn ask_redis(self: Arc<Self>, claims: Claims) -> Option<bool> {
        match self.redis.is_revoked(&claims).await {
            Ok(revoked) => Some(revoked),
            Err(why) => {
                self.doubt(&why);
                None
            }
        }
    }

    /// Whether Redis is trusted then.
    async fn try_to_fill(&self) -> bool {
        let doubts = self.trust().doubts;
        if let Err(why) = self.redis.fill(|| self.stored.all()).await {
            tracing::debug!(%why, "Redis can't be filled with the revocations");
            return false;
        }
        let mut trust = self.trust();
        trust.trusted = trust.doubts == doubts;
        trust.trusted
    }
}

/// Until Redis is filled, or nobody wants it any more.
async fn fill(parts: Weak<Parts>) {
    while let Some(parts) = parts.upgrade() {
        if parts.try_to_fill().await {
            tracing::info!("revocations are read from Redis again");
            return;
        }
        drop(parts);
        sleep(PAUSE).await;
    }
}

#[async_trait]
impl Revocations for SharedRevocations {
    async fn revoke(&self, revocation: Revocation) -> Result<(), RevocationsUnavailable> {
        self.parts.stored.revoke(revocation.clone()).await?;
        if let Err(why) = self.parts.redis.add(&[revocation]).await {
            self.parts.doubt(&why);
        }
        Ok(())
    }

    async fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsUnavailable> {
        if self.parts.trust().trusted {
            // A task of its own: that Redis does not answer is noticed even when the caller gives up.
            let asked = tokio::spawn(Arc::clone(&self.parts).ask_redis(claims.clone()));
            if let Ok(Some(revoked)) = asked.await {
                return Ok(revoked);
            }
        }
        self.parts.stored.is_revoked(claims).await
    }

    async fn all(&self) -> Result<Vec<Revocation>, RevocationsUnavailable> {
        self.parts.stored.all().await
    }
}
