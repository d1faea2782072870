//! Revocations in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use infrachat_types::{Revocation, TokenFamilyId, UnixMillis, UserName};

use super::{MemoryMetadata, lock};
use crate::{MetadataError, RevocationRecords};

pub(super) type RevocationTable = HashMap<(UserName, Option<TokenFamilyId>), Revocation>;

#[async_trait]
impl RevocationRecords for MemoryMetadata {
    async fn add_revocation(&self, revocation: Revocation) -> Result<(), MetadataError> {
        self.reach().await?;
        let key = (revocation.user.clone(), revocation.family.clone());
        lock(&self.revocations)
            .entry(key)
            .and_modify(|stored| {
                stored.extend(&revocation);
            })
            .or_insert(revocation);
        Ok(())
    }

    async fn revocations(&self, now: UnixMillis) -> Result<Vec<Revocation>, MetadataError> {
        self.reach().await?;
        let mut table = lock(&self.revocations);
        table.retain(|_, stored| stored.forget_after >= now);
        Ok(table.values().cloned().collect())
    }
}
