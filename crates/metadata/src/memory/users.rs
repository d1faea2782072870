//! Users and sign-ins in memory.

use std::collections::{BTreeSet, HashMap, hash_map::Entry};

use async_trait::async_trait;
use infrachat_types::{TokenFamilyId, UnixMillis, UserName};

use super::{MemoryMetadata, lock};
use crate::{MetadataError, TokenFamily, UserRecord, Users};

#[derive(Default)]
pub(super) struct UserTables {
    users: HashMap<UserName, UserRecord>,
    families: HashMap<TokenFamilyId, TokenFamily>,
    families_of: HashMap<UserName, BTreeSet<TokenFamilyId>>,
}

#[async_trait]
impl Users for MemoryMetadata {
    async fn create_user(&self, user: UserRecord) -> Result<(), MetadataError> {
        self.reach().await?;
        match lock(&self.users).users.entry(user.name.clone()) {
            Entry::Occupied(taken) => {
                Err(MetadataError::Exists(format!("the user {}", taken.key())))
            }
            Entry::Vacant(free) => {
                free.insert(user);
                Ok(())
            }
        }
    }

    async fn user(&self, name: &UserName) -> Result<Option<UserRecord>, MetadataError> {
        self.reach().await?;
        Ok(lock(&self.users).users.get(name).cloned())
    }

    async fn copy_user(&self, user: UserRecord) -> Result<bool, MetadataError> {
        self.reach().await?;
        let users = &mut lock(&self.users).users;
        let newer = users
            .get(&user.name)
            .is_none_or(|stored| stored.version < user.version);
        if newer {
            users.insert(user.name.clone(), user);
        }
        Ok(newer)
    }

    async fn create_family(&self, family: TokenFamily) -> Result<(), MetadataError> {
        self.reach().await?;
        let mut tables = lock(&self.users);
        if tables.families.contains_key(&family.id) {
            return Err(MetadataError::Exists(format!("the sign-in {}", family.id)));
        }
        tables
            .families_of
            .entry(family.user.clone())
            .or_default()
            .insert(family.id.clone());
        tables.families.insert(family.id.clone(), family);
        Ok(())
    }

    async fn family(&self, id: &TokenFamilyId) -> Result<Option<TokenFamily>, MetadataError> {
        self.reach().await?;
        Ok(lock(&self.users).families.get(id).cloned())
    }

    async fn update_family(&self, family: TokenFamily) -> Result<(), MetadataError> {
        self.reach().await?;
        match lock(&self.users).families.get_mut(&family.id) {
            Some(stored) if stored.version.checked_add(1) == Some(family.version) => {
                *stored = family;
                Ok(())
            }
            _ => Err(MetadataError::Conflict(format!(
                "the sign-in {}",
                family.id
            ))),
        }
    }

    async fn families_of(
        &self,
        user: &UserName,
        now: UnixMillis,
    ) -> Result<Vec<TokenFamily>, MetadataError> {
        self.reach().await?;
        let tables = lock(&self.users);
        let ids = tables.families_of.get(user);
        Ok(ids
            .into_iter()
            .flatten()
            .filter_map(|id| tables.families.get(id))
            .filter(|family| !family.revoked && family.expires_at > now)
            .cloned()
            .collect())
    }
}
