//! Users and their sign-ins.

use async_trait::async_trait;
use infrachat_types::{Region, TokenFamilyId, UnixMillis, UserName};

use crate::MetadataError;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Their name.
    pub name: UserName,
    /// A PHC string; never logged.
    pub password_hash: String,
    /// Where this record is decided.
    pub home_region: Region,
    /// When they registered.
    pub created_at: UnixMillis,
    /// 1 at first; rises with every change.
    pub version: u64,
}

/// One sign-in: a chain of refresh tokens, of which the last is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFamily {
    /// Its id.
    pub id: TokenFamilyId,
    /// Whose.
    pub user: UserName,
    /// SHA-256 of the refresh token that is good now.
    pub current_hash: [u8; 32],
    /// SHA-256 of the one before, which is taken for a lost reply during a short grace.
    pub previous_hash: Option<[u8; 32]>,
    /// When the current one was issued.
    pub rotated_at: UnixMillis,
    /// When the family ends by itself.
    pub expires_at: UnixMillis,
    /// Ended by the user, or by reuse of an old token.
    pub revoked: bool,
    /// 1 at first; rises with every change.
    pub version: u64,
}

/// Users and sign-ins of a region, and its copies of other regions' users.
#[async_trait]
pub trait Users {
    /// Adds a user. [`MetadataError::Exists`] if there is one of that name, whatever its password.
    async fn create_user(&self, user: UserRecord) -> Result<(), MetadataError>;

    /// A user, or this region's copy.
    async fn user(&self, name: &UserName) -> Result<Option<UserRecord>, MetadataError>;

    /// Takes a copy from the home region. An older version than the one here changes nothing;
    /// answers whether it was taken.
    async fn copy_user(&self, user: UserRecord) -> Result<bool, MetadataError>;

    /// Adds a sign-in.
    async fn create_family(&self, family: TokenFamily) -> Result<(), MetadataError>;

    /// A sign-in.
    async fn family(&self, id: &TokenFamilyId) -> Result<Option<TokenFamily>, MetadataError>;

    /// Changes a sign-in whose stored version is one less than `family.version`;
    /// [`MetadataError::Conflict`] otherwise.
    async fn update_family(&self, family: TokenFamily) -> Result<(), MetadataError>;

    /// The sign-ins of a user that are neither revoked nor expired at `now`.
    async fn families_of(
        &self,
        user: &UserName,
        now: UnixMillis,
    ) -> Result<Vec<TokenFamily>, MetadataError>;
}
