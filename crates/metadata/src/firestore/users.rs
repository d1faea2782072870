//! Users and sign-ins on Firestore.

use async_trait::async_trait;
use bytes::Bytes;
use firestore::FirestoreTimestamp;
use infrachat_types::{Region, TokenFamilyId, UnixMillis, UserName};
use serde::{Deserialize, Serialize};

use super::{
    FirestoreMetadata,
    calls::{CallError, If, put},
    documents::{Damaged, document_id, hash, moment},
    query::{Operator, Query},
};
use crate::{MetadataError, TokenFamily, UserRecord, Users};

const USERS: &str = "users";
const FAMILIES: &str = "families";

#[derive(Serialize, Deserialize)]
struct StoredUser {
    name: String,
    password_hash: String,
    home_region: String,
    created_at: i64,
    version: u64,
}

impl From<&UserRecord> for StoredUser {
    fn from(user: &UserRecord) -> Self {
        Self {
            name: user.name.to_string(),
            password_hash: user.password_hash.clone(),
            home_region: user.home_region.to_string(),
            created_at: user.created_at,
            version: user.version,
        }
    }
}

impl StoredUser {
    fn record(self) -> Result<UserRecord, Damaged> {
        Ok(UserRecord {
            name: UserName::new(&self.name)?,
            password_hash: self.password_hash,
            home_region: Region::new(&self.home_region)?,
            created_at: self.created_at,
            version: self.version,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredFamily {
    id: String,
    user: String,
    current_hash: Bytes,
    previous_hash: Option<Bytes>,
    rotated_at: i64,
    expires_at: FirestoreTimestamp,
    revoked: bool,
    version: u64,
}

impl From<&TokenFamily> for StoredFamily {
    fn from(family: &TokenFamily) -> Self {
        let bytes = |hash: &[u8; 32]| Bytes::copy_from_slice(hash);
        Self {
            id: family.id.to_string(),
            user: family.user.to_string(),
            current_hash: bytes(&family.current_hash),
            previous_hash: family.previous_hash.as_ref().map(bytes),
            rotated_at: family.rotated_at,
            expires_at: moment(family.expires_at),
            revoked: family.revoked,
            version: family.version,
        }
    }
}

impl StoredFamily {
    fn record(self) -> Result<TokenFamily, Damaged> {
        Ok(TokenFamily {
            id: TokenFamilyId::from_text(&self.id),
            user: UserName::new(&self.user)?,
            current_hash: hash(&self.current_hash)?,
            previous_hash: self.previous_hash.as_ref().map(hash).transpose()?,
            rotated_at: self.rotated_at,
            expires_at: self.expires_at.0.as_millisecond(),
            revoked: self.revoked,
            version: self.version,
        })
    }
}

impl FirestoreMetadata {
    fn user_name(&self, name: &UserName) -> String {
        self.calls.name(USERS, name.as_str())
    }

    fn family_name(&self, id: &TokenFamilyId) -> String {
        self.calls.name(FAMILIES, &document_id(id.as_str()))
    }

    /// Adds a document unless there is one of that name.
    pub(super) async fn create(
        &self,
        name: &str,
        record: &(impl Serialize + Sync),
        what: impl Fn() -> String + Sync,
    ) -> Result<(), MetadataError> {
        let attempt = || async {
            let write = put(name, record, If::Absent)?;
            match self.calls.commit(vec![write], None).await {
                Err(CallError::Refused(_)) => Err(MetadataError::Exists(what()).into()),
                other => other,
            }
        };
        self.calls.run(attempt).await
    }

    async fn try_copy_user(&self, user: &UserRecord) -> Result<bool, CallError> {
        let name = self.user_name(&user.name);
        let found = self.calls.read_one(&name).await?;
        if let Some(found) = &found
            && found.decode(StoredUser::record)?.version >= user.version
        {
            return Ok(false);
        }
        let write = put(&name, &StoredUser::from(user), If::as_read(found.as_ref()))?;
        self.calls.commit(vec![write], None).await?;
        Ok(true)
    }

    async fn try_update_family(&self, family: &TokenFamily) -> Result<(), CallError> {
        let name = self.family_name(&family.id);
        let found = self.calls.read_one(&name).await?;
        let stored = found
            .as_ref()
            .map(|found| found.decode(StoredFamily::record))
            .transpose()?;
        let next = stored.and_then(|stored| stored.version.checked_add(1));
        if next != Some(family.version) {
            let what = format!("the sign-in {}", family.id);
            return Err(MetadataError::Conflict(what).into());
        }
        let write = put(
            &name,
            &StoredFamily::from(family),
            If::as_read(found.as_ref()),
        )?;
        self.calls.commit(vec![write], None).await
    }

    async fn try_families_of(
        &self,
        user: &UserName,
        now: UnixMillis,
    ) -> Result<Vec<TokenFamily>, CallError> {
        let query = Query::of(FAMILIES)
            .only("user", Operator::Equal, user.as_str())
            .only("revoked", Operator::Equal, false);
        let found = self.calls.query(None, query.into()).await?;
        let families = found.iter().map(|found| found.decode(StoredFamily::record));
        let mut families = families.collect::<Result<Vec<_>, _>>()?;
        families.retain(|family| family.expires_at > now);
        Ok(families)
    }
}

#[async_trait]
impl Users for FirestoreMetadata {
    async fn create_user(&self, user: UserRecord) -> Result<(), MetadataError> {
        let name = self.user_name(&user.name);
        let what = || format!("the user {}", user.name);
        self.create(&name, &StoredUser::from(&user), what).await
    }

    async fn user(&self, name: &UserName) -> Result<Option<UserRecord>, MetadataError> {
        let name = self.user_name(name);
        let attempt = || async {
            let found = self.calls.read_one(&name).await?;
            found
                .map(|found| found.decode(StoredUser::record))
                .transpose()
        };
        self.calls.run(attempt).await
    }

    async fn copy_user(&self, user: UserRecord) -> Result<bool, MetadataError> {
        self.calls.run(|| self.try_copy_user(&user)).await
    }

    async fn create_family(&self, family: TokenFamily) -> Result<(), MetadataError> {
        let name = self.family_name(&family.id);
        let what = || format!("the sign-in {}", family.id);
        self.create(&name, &StoredFamily::from(&family), what).await
    }

    async fn family(&self, id: &TokenFamilyId) -> Result<Option<TokenFamily>, MetadataError> {
        let name = self.family_name(id);
        let attempt = || async {
            let found = self.calls.read_one(&name).await?;
            found
                .map(|found| found.decode(StoredFamily::record))
                .transpose()
        };
        self.calls.run(attempt).await
    }

    async fn update_family(&self, family: TokenFamily) -> Result<(), MetadataError> {
        self.calls.run(|| self.try_update_family(&family)).await
    }

    async fn families_of(
        &self,
        user: &UserName,
        now: UnixMillis,
    ) -> Result<Vec<TokenFamily>, MetadataError> {
        self.calls.run(|| self.try_families_of(user, now)).await
    }
}
