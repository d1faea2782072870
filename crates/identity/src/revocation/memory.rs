//! Revocations in this process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use infrachat_types::{TokenFamilyId, UserName, unix_millis};

use super::{Revocation, Revocations, RevocationsUnavailable};
use crate::Claims;

type Key = (UserName, Option<TokenFamilyId>);

/// Keeps revocations in memory, for one process or as a process's own copy.
#[derive(Debug, Default)]
pub struct MemoryRevocations {
    entries: Mutex<HashMap<Key, Revocation>>,
}

impl MemoryRevocations {
    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Revocation>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn covers(&self, claims: &Claims) -> bool {
        let entries = self.lock();
        let covered = |family| {
            entries
                .get(&(claims.user.clone(), family))
                .is_some_and(|revocation| claims.issued_at <= revocation.issued_until)
        };
        covered(None) || covered(Some(claims.family.clone()))
    }
}

fn add(entries: &mut HashMap<Key, Revocation>, revocation: Revocation) {
    let key = (revocation.user.clone(), revocation.family.clone());
    entries
        .entry(key)
        .and_modify(|entry| {
            entry.extend(&revocation);
        })
        .or_insert(revocation);
}

impl FromIterator<Revocation> for MemoryRevocations {
    fn from_iter<I: IntoIterator<Item = Revocation>>(revocations: I) -> Self {
        let mut entries = HashMap::new();
        for revocation in revocations {
            add(&mut entries, revocation);
        }
        Self {
            entries: Mutex::new(entries),
        }
    }
}

#[async_trait]
impl Revocations for MemoryRevocations {
    async fn revoke(&self, revocation: Revocation) -> Result<(), RevocationsUnavailable> {
        let now = unix_millis();
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.forget_after >= now);
        if revocation.forget_after < now {
            return Ok(());
        }
        add(&mut entries, revocation);
        Ok(())
    }

    async fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsUnavailable> {
        Ok(self.covers(claims))
    }

    async fn all(&self) -> Result<Vec<Revocation>, RevocationsUnavailable> {
        let now = unix_millis();
        let entries = self.lock();
        let live = entries.values().filter(|entry| entry.forget_after >= now);
        Ok(live.cloned().collect())
    }
}
