//! A region's revocations, for every service of it: kept in the store, so that they outlive
//! everything else, and shared through Redis, so that asking is cheap.
//!
//! Both backends of [`Revocations`](infrachat_identity::Revocations) here keep a revocation in the
//! store before anything else, and list what the store has.

mod shared;
mod stored;

pub use shared::SharedRevocations;
pub use stored::StoredRevocations;
