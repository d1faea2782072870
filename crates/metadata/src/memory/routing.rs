//! Leases and ownerships in memory.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use infrachat_types::{Epoch, OriginId, ShardId};
use tokio::time::Instant;

use super::{MemoryMetadata, lock};
use crate::{Lease, LeaseView, MetadataError, Ownership, Routing};

#[derive(Default)]
pub(super) struct RoutingTables {
    leases: BTreeMap<ShardId, StoredLease>,
    ownerships: BTreeMap<u32, Ownership>,
}

struct StoredLease {
    lease: Lease,
    renewed_at: Instant,
}

impl RoutingTables {
    /// Whether the partition is owned under this very epoch.
    pub(super) fn check_owned(&self, partition: u32, epoch: Epoch) -> Result<(), MetadataError> {
        let ownership = self.ownerships.get(&partition);
        match ownership {
            Some(current) if current.owner.is_some() && current.epoch == epoch => Ok(()),
            _ => Err(MetadataError::Fenced {
                partition,
                current: ownership.map_or(0, |current| current.epoch.0),
            }),
        }
    }

    /// Whether this life of the shard has a lease that is not older than `ttl`.
    fn lives(&self, shard: &ShardId, incarnation: &OriginId, ttl: Duration) -> bool {
        self.leases.get(shard).is_some_and(|stored| {
            stored.lease.incarnation == *incarnation && stored.renewed_at.elapsed() <= ttl
        })
    }
}

#[async_trait]
impl Routing for MemoryMetadata {
    async fn renew_lease(&self, lease: Lease) -> Result<(), MetadataError> {
        self.reach().await?;
        let stored = StoredLease {
            renewed_at: Instant::now(),
            lease,
        };
        lock(&self.routing)
            .leases
            .insert(stored.lease.shard.clone(), stored);
        Ok(())
    }

    async fn end_lease(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
    ) -> Result<(), MetadataError> {
        self.reach().await?;
        let leases = &mut lock(&self.routing).leases;
        if leases
            .get(shard)
            .is_some_and(|stored| stored.lease.incarnation == *incarnation)
        {
            leases.remove(shard);
        }
        Ok(())
    }

    async fn leases(&self) -> Result<Vec<LeaseView>, MetadataError> {
        self.reach().await?;
        let now = Instant::now();
        Ok(lock(&self.routing)
            .leases
            .values()
            .map(|stored| LeaseView {
                lease: stored.lease.clone(),
                age: now.duration_since(stored.renewed_at),
            })
            .collect())
    }

    async fn ownerships(&self) -> Result<Vec<Ownership>, MetadataError> {
        self.reach().await?;
        Ok(lock(&self.routing).ownerships.values().cloned().collect())
    }

    async fn take_partition(
        &self,
        partition: u32,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Result<Epoch, MetadataError> {
        self.reach().await?;
        let mut tables = lock(&self.routing);
        let former = tables.ownerships.get(&partition);
        if let Some(former) = former
            && let Some(holder) = &former.owner
            && (holder, &former.incarnation) != (shard, incarnation)
            && tables.lives(holder, &former.incarnation, ttl)
        {
            return Err(MetadataError::Held {
                partition,
                holder: holder.to_string(),
            });
        }
        let epoch = Epoch(former.map_or(0, |former| former.epoch.0) + 1);
        let ownership = Ownership {
            partition,
            epoch,
            owner: Some(shard.clone()),
            incarnation: incarnation.clone(),
        };
        tables.ownerships.insert(partition, ownership);
        Ok(epoch)
    }

    async fn release_partition(&self, partition: u32, epoch: Epoch) -> Result<(), MetadataError> {
        self.reach().await?;
        if let Some(current) = lock(&self.routing).ownerships.get_mut(&partition)
            && current.epoch == epoch
        {
            current.owner = None;
        }
        Ok(())
    }
}
