//! Who serves what: the shards' leases, and the owner of each partition.

use std::time::Duration;

use async_trait::async_trait;
use infrachat_types::{Epoch, OriginId, ShardId};

use crate::MetadataError;

/// What a shard is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Serves.
    Active,
    /// Gives its partitions up, and takes none.
    Draining,
    /// Failed Switchboard's probes.
    Suspect,
}

/// A shard's word that it lives, renewed every second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its slot.
    pub shard: ShardId,
    /// This life of it: a restarted shard is another.
    pub incarnation: OriginId,
    /// Where clients reach it, "host:port".
    pub endpoint: String,
    /// Where it runs.
    pub zone: String,
    /// Sessions it has.
    pub sessions: u32,
    /// What it is ready for.
    pub state: LeaseState,
}

/// A lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseView {
    /// The lease.
    pub lease: Lease,
    /// How long ago it was renewed, both moments by the store's own clock.
    pub age: Duration,
}

/// Who serves a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// Which partition.
    pub partition: u32,
    /// Rises with every new owner.
    pub epoch: Epoch,
    /// The owner; none after a release.
    pub owner: Option<ShardId>,
    /// The owner's life that took it.
    pub incarnation: OriginId,
}

/// The routing records of a region.
#[async_trait]
pub trait Routing {
    /// Renews or adds a shard's lease.
    async fn renew_lease(&self, lease: Lease) -> Result<(), MetadataError>;

    /// Ends a shard's lease, if it is still that life's.
    async fn end_lease(&self, shard: &ShardId, incarnation: &OriginId)
    -> Result<(), MetadataError>;

    /// All leases, expired ones included.
    async fn leases(&self) -> Result<Vec<LeaseView>, MetadataError>;

    /// The partitions that ever had an owner.
    async fn ownerships(&self) -> Result<Vec<Ownership>, MetadataError>;

    /// Takes a partition under a new epoch, one above the last. [`MetadataError::Held`] unless the
    /// previous owner released it, is this very life of the shard, has a lease older than `ttl`, or
    /// has none (a later life of the same shard ends the former's lease).
    async fn take_partition(
        &self,
        partition: u32,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Result<Epoch, MetadataError>;

    /// Gives a partition back, if it is still owned under that epoch.
    async fn release_partition(&self, partition: u32, epoch: Epoch) -> Result<(), MetadataError>;
}
