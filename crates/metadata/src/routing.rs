//! Who serves what: the shards' leases, and the owner of each partition.

use std::time::Duration;

use async_trait::async_trait;
use infrachat_types::{Epoch, OriginId, ShardId};

use crate::{MetadataError, RoutingWatch};

/// What a shard is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Serves.
    Active,
    /// Gives its partitions up, and takes none.
    Draining,
    /// Is counted out, since it can't be reached: see [`Routing::suspect`].
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
    /// How long ago its shard last asked for that, likewise. Less than the age where it was refused,
    /// since the shard is suspect.
    pub asked: Duration,
}

/// Whether a life of a shard may be counted out, by everybody's leases: see [`Routing::suspect`].
pub(crate) fn may_be_suspect(
    leases: &[LeaseView],
    shard: &ShardId,
    incarnation: &OriginId,
    ttl: Duration,
) -> bool {
    let counted = |view: &&LeaseView| view.asked <= ttl && view.lease.state != LeaseState::Draining;
    let counted: Vec<_> = leases.iter().filter(counted).collect();
    let is_here = counted
        .iter()
        .any(|view| view.lease.shard == *shard && view.lease.incarnation == *incarnation);
    let others = counted
        .iter()
        .filter(|view| view.lease.shard != *shard && view.lease.state == LeaseState::Suspect);
    is_here && 2 * (others.count() + 1) <= counted.len()
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
    /// Begins this life's lease. It replaces the one of any other life of the shard: of two with one
    /// name, the later to begin has it.
    async fn begin_lease(&self, lease: Lease) -> Result<(), MetadataError>;

    /// Renews this life's lease, or adds it again when the shard has none.
    /// [`MetadataError::Replaced`] when another life of the shard has one: a former life that wakes
    /// up changes nothing. [`MetadataError::Suspected`] while it is suspect: the lease is as old as it
    /// was, and only that it was asked for is noted.
    async fn renew_lease(&self, lease: Lease) -> Result<(), MetadataError>;

    /// Counts out a shard that can't be reached, for `ttl` from now on, or until it begins another
    /// lease: this life's lease becomes [`LeaseState::Suspect`] and is not renewed meanwhile, so that
    /// it runs out, whether the shard gives back what it holds or not. Doing it again makes it last
    /// longer. No lease gets younger by it.
    ///
    /// Answers whether the shard is counted out now. It is not if it is another life, drains, or has
    /// not asked for its lease within `ttl`; nor if more than half of the shards that have, and don't
    /// drain, would be suspect then: whoever reaches so few has lost the way itself.
    async fn suspect(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Result<bool, MetadataError>;

    /// Ends a shard's lease, if it is still that life's.
    async fn end_lease(&self, shard: &ShardId, incarnation: &OriginId)
    -> Result<(), MetadataError>;

    /// All leases, expired ones included.
    async fn leases(&self) -> Result<Vec<LeaseView>, MetadataError>;

    /// Follows the leases and ownerships, from within a tokio runtime.
    ///
    /// A watch starts without anything known, and from then on looks after itself: it becomes
    /// current once the store is heard, says so when it no longer hears it, and comes back by itself.
    /// Its views are eventually consistent. Each is of one moment of the store, and never of an
    /// earlier one than the view before, unless the store itself was set back. So a view may not know
    /// yet what a call has just changed; [`Routing::take_partition`] has the last word.
    ///
    /// A lease's age is the store's clock at that moment less the moment of renewal, and the time
    /// that has passed here since. It only grows until the lease is renewed, and is short of the
    /// truth by no more than the newest news took to arrive. So it is with when it was asked for.
    fn watch(&self) -> RoutingWatch;

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
