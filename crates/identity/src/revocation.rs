//! Which access tokens are no longer good, though they have not expired.

#[cfg(feature = "contract")]
pub mod contract;
mod memory;
mod redis;

use std::fmt;

use async_trait::async_trait;
pub use infrachat_types::Revocation;
pub use memory::MemoryRevocations;
pub use redis::RedisRevocations;

use crate::Claims;

/// The revocations can't be read or written at this moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("revocations are unavailable: {0}")]
pub struct RevocationsUnavailable(pub String);

/// A region's revocations.
///
/// One user or one sign-in may be revoked again: the later `issued_until` and `forget_after` hold,
/// whatever the order in which they come. What is past its `forget_after` is forgotten by itself.
#[async_trait]
pub trait Revocations: fmt::Debug + Send + Sync + 'static {
    /// Adds one. Once this resolves, [`Revocations::is_revoked`] knows it, in the whole region; a
    /// backend says how soon when a part of it is away.
    async fn revoke(&self, revocation: Revocation) -> Result<(), RevocationsUnavailable>;

    /// Whether a token that verified is revoked.
    async fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsUnavailable>;

    /// All that are not forgotten, in any order: for a process that keeps its own copy.
    async fn all(&self) -> Result<Vec<Revocation>, RevocationsUnavailable>;
}
