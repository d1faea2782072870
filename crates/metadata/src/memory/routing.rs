//! Leases and ownerships in memory.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use infrachat_types::{Epoch, OriginId, ShardId};
use tokio::{sync::watch, time::Instant};

use super::{MemoryMetadata, lock};
use crate::{
    Lease, LeaseState, LeaseView, MetadataError, Ownership, Routing, RoutingView, RoutingWatch,
    routing::may_be_suspect,
};

pub(super) struct RoutingTables {
    leases: BTreeMap<ShardId, StoredLease>,
    ownerships: BTreeMap<u32, Ownership>,
    followed: watch::Sender<RoutingView>,
}

impl Default for RoutingTables {
    fn default() -> Self {
        Self {
            leases: BTreeMap::new(),
            ownerships: BTreeMap::new(),
            followed: watch::Sender::new(RoutingView::new([], [], Instant::now())),
        }
    }
}

struct StoredLease {
    lease: Lease,
    renewed_at: Instant,
    asked_at: Instant,
    suspected_until: Option<Instant>,
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

    /// Shows followers what is there; without `current`, for the last time until it is again.
    pub(super) fn show(&self, current: bool) {
        let ownerships = self.ownerships.values().cloned();
        let mut view = RoutingView::new(self.views(), ownerships, Instant::now());
        if !current {
            view.lost();
        }
        self.followed.send_replace(view);
    }

    fn views(&self) -> Vec<LeaseView> {
        let now = Instant::now();
        let views = self.leases.values().map(|stored| LeaseView {
            lease: stored.lease.clone(),
            age: now.duration_since(stored.renewed_at),
            asked: now.duration_since(stored.asked_at),
        });
        views.collect()
    }

    fn put(&mut self, lease: Lease) {
        let now = Instant::now();
        let stored = StoredLease {
            renewed_at: now,
            asked_at: now,
            suspected_until: None,
            lease,
        };
        self.leases.insert(stored.lease.shard.clone(), stored);
    }

    /// Renews a lease, unless its shard is suspect.
    fn renew(&mut self, lease: Lease) -> Result<(), MetadataError> {
        let now = Instant::now();
        if let Some(stored) = self.leases.get_mut(&lease.shard)
            && stored.suspected_until.is_some_and(|until| now < until)
        {
            stored.asked_at = now;
            return Err(MetadataError::Suspected(lease.shard.to_string()));
        }
        self.put(lease);
        Ok(())
    }

    fn suspect(&mut self, shard: &ShardId, incarnation: &OriginId, ttl: Duration) -> bool {
        if !may_be_suspect(&self.views(), shard, incarnation, ttl) {
            return false;
        }
        if let Some(stored) = self.leases.get_mut(shard) {
            stored.lease.state = LeaseState::Suspect;
            stored.suspected_until = Some(Instant::now() + ttl);
        }
        true
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
    async fn begin_lease(&self, lease: Lease) -> Result<(), MetadataError> {
        self.reach().await?;
        self.change_routing(|tables| {
            tables.put(lease);
            Ok(())
        })
    }

    async fn renew_lease(&self, lease: Lease) -> Result<(), MetadataError> {
        self.reach().await?;
        self.change_routing(|tables| {
            let other = |stored: &StoredLease| stored.lease.incarnation != lease.incarnation;
            if tables.leases.get(&lease.shard).is_some_and(other) {
                return Err(MetadataError::Replaced(lease.shard.to_string()));
            }
            // That it was asked for shows, whether it was renewed or not.
            Ok(tables.renew(lease))
        })?
    }

    async fn suspect(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Result<bool, MetadataError> {
        self.reach().await?;
        self.change_routing(|tables| Ok(tables.suspect(shard, incarnation, ttl)))
    }

    async fn end_lease(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
    ) -> Result<(), MetadataError> {
        self.reach().await?;
        self.change_routing(|tables| {
            let same = |stored: &StoredLease| stored.lease.incarnation == *incarnation;
            if tables.leases.get(shard).is_some_and(same) {
                tables.leases.remove(shard);
            }
            Ok(())
        })
    }

    async fn leases(&self) -> Result<Vec<LeaseView>, MetadataError> {
        self.reach().await?;
        Ok(lock(&self.routing).views())
    }

    fn watch(&self) -> RoutingWatch {
        RoutingWatch::new(lock(&self.routing).followed.subscribe())
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
        self.change_routing(|tables| {
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
        })
    }

    async fn release_partition(&self, partition: u32, epoch: Epoch) -> Result<(), MetadataError> {
        self.reach().await?;
        self.change_routing(|tables| {
            if let Some(current) = tables.ownerships.get_mut(&partition)
                && current.epoch == epoch
            {
                current.owner = None;
            }
            Ok(())
        })
    }
}
