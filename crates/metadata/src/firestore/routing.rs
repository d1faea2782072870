//! Leases and ownerships on Firestore.

use std::time::Duration;

use async_trait::async_trait;
use infrachat_types::{Epoch, OriginId, ShardId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    FirestoreMetadata,
    calls::{At, CallError, Found, If, delete, put, put_only, stamp},
    documents::Damaged,
    leases::{KeptLease, Mark, StoredLease},
    listener::listen,
    query::Query,
};
use crate::{
    Lease, LeaseView, MetadataError, Ownership, Routing, RoutingView, RoutingWatch,
    routing::may_be_suspect,
};

pub(super) const LEASES: &str = "leases";
pub(super) const PARTITIONS: &str = "partitions";

#[derive(Serialize, Deserialize)]
pub(super) struct StoredOwnership {
    partition: u32,
    epoch: u64,
    owner: Option<String>,
    incarnation: String,
}

impl From<&Ownership> for StoredOwnership {
    fn from(ownership: &Ownership) -> Self {
        Self {
            partition: ownership.partition,
            epoch: ownership.epoch.0,
            owner: ownership.owner.as_ref().map(ShardId::to_string),
            incarnation: ownership.incarnation.to_string(),
        }
    }
}

impl StoredOwnership {
    pub(super) fn ownership(self) -> Result<Ownership, Damaged> {
        let owner = self.owner.as_deref().map(ShardId::new);
        Ok(Ownership {
            partition: self.partition,
            epoch: Epoch(self.epoch),
            owner: owner.transpose()?,
            incarnation: OriginId::from_text(&self.incarnation),
        })
    }
}

/// The record of a document; none, and a word to the operator, when it makes no sense: one that
/// somebody made by hand must not stop the others.
pub(super) fn readable<T, E: std::fmt::Debug>(record: Result<T, E>) -> Option<T> {
    record
        .inspect_err(|err| {
            tracing::error!(
                ?err,
                "a routing record makes no sense and is passed over: delete it"
            )
        })
        .ok()
}

/// The lease in a document.
fn kept(found: &Found) -> Result<KeptLease, CallError> {
    found.decode(|stored: StoredLease| stored.kept(found.updated_at()))
}

/// The lease in a document, if it makes sense, as of when it was read.
fn view(found: &Found) -> Option<LeaseView> {
    let kept = readable(kept(found))?;
    let age = kept.age(found.read_at());
    Some(kept.view(age))
}

/// Whether the partition, as it was read, is owned under this very epoch.
pub(super) fn check_owned(
    partition: u32,
    epoch: Epoch,
    found: Option<&Found>,
) -> Result<(), CallError> {
    let ownership = found
        .map(|found| found.decode(StoredOwnership::ownership))
        .transpose()?;
    match ownership {
        Some(current) if current.owner.is_some() && current.epoch == epoch => Ok(()),
        other => Err(CallError::Final(MetadataError::Fenced {
            partition,
            current: other.map_or(0, |current| current.epoch.0),
        })),
    }
}

impl FirestoreMetadata {
    fn lease_name(&self, shard: &ShardId) -> String {
        self.calls.name(LEASES, shard.as_str())
    }

    pub(super) fn partition_name(&self, partition: u32) -> String {
        self.calls.name(PARTITIONS, &partition.to_string())
    }

    async fn try_renew_lease(&self, lease: &Lease) -> Result<(), CallError> {
        let name = self.lease_name(&lease.shard);
        let Some(found) = self.calls.read_one(&name).await? else {
            return self.put_lease(&name, lease, If::Absent).await;
        };
        let unchanged = If::as_read(Some(&found));
        match kept(&found) {
            Ok(kept) if kept.lease.incarnation == lease.incarnation => {
                if !kept.is_suspect(found.read_at()) {
                    return self.put_lease(&name, lease, unchanged).await;
                }
                let mut write =
                    put_only(&name, &["sessions"], &StoredLease::from(lease), unchanged)?;
                stamp(&mut write, "asked_at");
                self.calls.commit(vec![write], None).await?;
                let suspected = MetadataError::Suspected(lease.shard.to_string());
                Err(CallError::Final(suspected))
            }
            _ => {
                let replaced = MetadataError::Replaced(lease.shard.to_string());
                Err(CallError::Final(replaced))
            }
        }
    }

    async fn put_lease(&self, name: &str, lease: &Lease, condition: If) -> Result<(), CallError> {
        let mut write = put(name, &StoredLease::from(lease), condition)?;
        stamp(&mut write, "renewed_at");
        self.calls.commit(vec![write], None).await
    }

    async fn try_suspect(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Result<bool, CallError> {
        let leases = Query::of(LEASES).into();
        let (found, transaction) = self.calls.query_to_write(leases).await?;
        let read_at = found.first().map(Found::read_at);
        let views: Vec<_> = found.iter().filter_map(view).collect();
        let (Some(read_at), true) = (read_at, may_be_suspect(&views, shard, incarnation, ttl))
        else {
            self.calls.roll_back(transaction).await;
            return Ok(false);
        };
        let mark = Mark::until(read_at, ttl);
        let name = self.lease_name(shard);
        let write = put_only(&name, Mark::FIELDS, &mark, If::Always)?;
        self.calls.commit(vec![write], Some(transaction)).await?;
        Ok(true)
    }

    async fn try_end_lease(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
    ) -> Result<(), CallError> {
        let name = self.lease_name(shard);
        let Some(found) = self.calls.read_one(&name).await? else {
            return Ok(());
        };
        if kept(&found)?.lease.incarnation != *incarnation {
            return Ok(());
        }
        let unchanged = If::as_read(Some(&found));
        self.calls
            .commit(vec![delete(&name, unchanged)], None)
            .await
    }

    async fn try_leases(&self) -> Result<Vec<LeaseView>, CallError> {
        let found = self.calls.query(None, Query::of(LEASES).into()).await?;
        Ok(found.iter().filter_map(view).collect())
    }

    async fn try_ownerships(&self) -> Result<Vec<Ownership>, CallError> {
        let found = self.calls.query(None, Query::of(PARTITIONS).into()).await?;
        let ownerships = found
            .iter()
            .filter_map(|found| readable(found.decode(StoredOwnership::ownership)));
        let mut ownerships: Vec<_> = ownerships.collect();
        ownerships.sort_unstable_by_key(|ownership| ownership.partition);
        Ok(ownerships)
    }

    /// Whether this life of the shard has a lease that is not older than `ttl`, as a transaction
    /// sees it.
    async fn lives(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
        transaction: &[u8],
    ) -> Result<bool, CallError> {
        let at = At::Transaction(transaction.to_vec());
        let read = self.calls.read(vec![self.lease_name(shard)], at).await?;
        let Some(found) = read.found.into_values().next() else {
            return Ok(false);
        };
        Ok(view(&found)
            .is_some_and(|view| view.lease.incarnation == *incarnation && view.age <= ttl))
    }

    async fn try_take_partition(
        &self,
        partition: u32,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Result<Epoch, CallError> {
        let name = self.partition_name(partition);
        let read = self.calls.read(vec![name.clone()], At::Begin).await?;
        let former = read.found.get(&name);
        let former = former
            .map(|found| found.decode(StoredOwnership::ownership))
            .transpose()?;
        if let Some(former) = &former
            && let Some(holder) = &former.owner
            && (holder, &former.incarnation) != (shard, incarnation)
            && self
                .lives(holder, &former.incarnation, ttl, &read.transaction)
                .await?
        {
            self.calls.roll_back(read.transaction).await;
            return Err(CallError::Final(MetadataError::Held {
                partition,
                holder: holder.to_string(),
            }));
        }
        let ownership = Ownership {
            partition,
            epoch: Epoch(former.map_or(0, |former| former.epoch.0) + 1),
            owner: Some(shard.clone()),
            incarnation: incarnation.clone(),
        };
        let write = put(&name, &StoredOwnership::from(&ownership), If::Always)?;
        let transaction = Some(read.transaction);
        self.calls.commit(vec![write], transaction).await?;
        Ok(ownership.epoch)
    }

    async fn try_release_partition(&self, partition: u32, epoch: Epoch) -> Result<(), CallError> {
        let name = self.partition_name(partition);
        let Some(found) = self.calls.read_one(&name).await? else {
            return Ok(());
        };
        let mut ownership = found.decode(StoredOwnership::ownership)?;
        if ownership.epoch != epoch || ownership.owner.take().is_none() {
            return Ok(());
        }
        let unchanged = If::as_read(Some(&found));
        let write = put(&name, &StoredOwnership::from(&ownership), unchanged)?;
        self.calls.commit(vec![write], None).await
    }
}

#[async_trait]
impl Routing for FirestoreMetadata {
    async fn begin_lease(&self, lease: Lease) -> Result<(), MetadataError> {
        let name = self.lease_name(&lease.shard);
        let attempt = || self.put_lease(&name, &lease, If::Always);
        self.calls.run(attempt).await
    }

    async fn renew_lease(&self, lease: Lease) -> Result<(), MetadataError> {
        self.calls.run(|| self.try_renew_lease(&lease)).await
    }

    async fn suspect(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Result<bool, MetadataError> {
        let attempt = || self.try_suspect(shard, incarnation, ttl);
        self.calls.run(attempt).await
    }

    async fn end_lease(
        &self,
        shard: &ShardId,
        incarnation: &OriginId,
    ) -> Result<(), MetadataError> {
        let attempt = || self.try_end_lease(shard, incarnation);
        self.calls.run(attempt).await
    }

    async fn leases(&self) -> Result<Vec<LeaseView>, MetadataError> {
        self.calls.run(|| self.try_leases()).await
    }

    /// Each follower has a stream and a connection of its own. A stream that breaks goes on where it
    /// stopped. One that hears nothing for [`FirestoreConfig::silence`] is given up: while shards live,
    /// there is something to hear every second.
    ///
    /// [`FirestoreConfig::silence`]: super::FirestoreConfig::silence
    fn watch(&self) -> RoutingWatch {
        let (sender, views) = watch::channel(RoutingView::default());
        tokio::spawn(listen(self.config.clone(), sender));
        RoutingWatch::new(views)
    }

    async fn ownerships(&self) -> Result<Vec<Ownership>, MetadataError> {
        self.calls.run(|| self.try_ownerships()).await
    }

    async fn take_partition(
        &self,
        partition: u32,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Result<Epoch, MetadataError> {
        let attempt = || self.try_take_partition(partition, shard, incarnation, ttl);
        self.calls.run(attempt).await
    }

    async fn release_partition(&self, partition: u32, epoch: Epoch) -> Result<(), MetadataError> {
        let attempt = || self.try_release_partition(partition, epoch);
        self.calls.run(attempt).await
    }
}
