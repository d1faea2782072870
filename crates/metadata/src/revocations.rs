//! Revocations, as they are kept.

use async_trait::async_trait;
use infrachat_types::{Revocation, UnixMillis};

use crate::MetadataError;

/// A region's revocations, durable until they are forgotten.
#[async_trait]
pub trait RevocationRecords {
    /// Adds one. One user or one sign-in may be revoked again: the later `issued_until` and the
    /// later `forget_after` hold, whatever the order in which they come.
    async fn add_revocation(&self, revocation: Revocation) -> Result<(), MetadataError>;

    /// All whose `forget_after` is not before `now`, in any order. The others are removed by the
    /// store itself, at some time.
    async fn revocations(&self, now: UnixMillis) -> Result<Vec<Revocation>, MetadataError>;
}
