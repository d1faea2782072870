//! Revocations on Firestore.

use async_trait::async_trait;
use firestore::FirestoreTimestamp;
use infrachat_types::{Revocation, TokenFamilyId, UnixMillis, UserName};
use serde::{Deserialize, Serialize};

use super::{
    FirestoreMetadata,
    calls::{CallError, If, put},
    documents::{Damaged, document_id, moment},
    query::{Operator, Query},
};
use crate::{MetadataError, RevocationRecords};

const REVOCATIONS: &str = "revocations";

#[derive(Serialize, Deserialize)]
struct StoredRevocation {
    user: String,
    family: Option<String>,
    issued_until: i64,
    forget_after: FirestoreTimestamp,
}

impl From<&Revocation> for StoredRevocation {
    fn from(revocation: &Revocation) -> Self {
        Self {
            user: revocation.user.to_string(),
            family: revocation.family.as_ref().map(ToString::to_string),
            issued_until: revocation.issued_until,
            forget_after: moment(revocation.forget_after),
        }
    }
}

impl StoredRevocation {
    fn record(self) -> Result<Revocation, Damaged> {
        Ok(Revocation {
            user: UserName::new(&self.user)?,
            family: self.family.as_deref().map(TokenFamilyId::from_text),
            issued_until: self.issued_until,
            forget_after: self.forget_after.0.as_millisecond(),
        })
    }
}

impl FirestoreMetadata {
    /// Names of users have no "~" in them.
    fn revocation_name(&self, revocation: &Revocation) -> String {
        let user = &revocation.user;
        let id = match &revocation.family {
            Some(family) => format!("{user}~{}", document_id(family.as_str())),
            None => user.to_string(),
        };
        self.calls.name(REVOCATIONS, &id)
    }

    async fn try_add_revocation(&self, revocation: &Revocation) -> Result<(), CallError> {
        let name = self.revocation_name(revocation);
        let found = self.calls.read_one(&name).await?;
        let mut later = revocation.clone();
        if let Some(found) = &found {
            later = found.decode(StoredRevocation::record)?;
            if !later.extend(revocation) {
                return Ok(());
            }
        }
        let condition = If::as_read(found.as_ref());
        let write = put(&name, &StoredRevocation::from(&later), condition)?;
        self.calls.commit(vec![write], None).await
    }

    async fn try_revocations(&self, now: UnixMillis) -> Result<Vec<Revocation>, CallError> {
        let query =
            Query::of(REVOCATIONS).only("forget_after", Operator::GreaterThanOrEqual, moment(now));
        let found = self.calls.query(None, query.into()).await?;
        let listed = found
            .iter()
            .map(|found| found.decode(StoredRevocation::record));
        listed.collect()
    }
}

#[async_trait]
impl RevocationRecords for FirestoreMetadata {
    async fn add_revocation(&self, revocation: Revocation) -> Result<(), MetadataError> {
        self.calls
            .run(|| self.try_add_revocation(&revocation))
            .await
    }

    async fn revocations(&self, now: UnixMillis) -> Result<Vec<Revocation>, MetadataError> {
        self.calls.run(|| self.try_revocations(now)).await
    }
}
