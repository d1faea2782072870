//! Which partitions this shard serves.
//!
//! Each shard renews a lease and reads everyone's. Rendezvous hashing over the live leases names who
//! should serve each partition, so all shards agree without a leader; the partition's record says who
//! does. A shard that can't renew its lease stops serving before the lease ends, by its own monotonic
//! clock.

use std::{collections::HashMap, sync::Arc, time::Duration};

use infrachat_metadata::{Lease, LeaseState, LeaseView, MetadataError, Ownership};
use infrachat_types::{OriginId, ShardId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{partition::Partition, parts::Parts};

/// How long a partition that moves may take to settle.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Between looks while a partition waits for its former owner.
const IMPATIENT: Duration = Duration::from_millis(100);

/// Takes, serves and gives back partitions until `stop`, then gives all of them back.
pub(crate) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let mut owner = Owner {
        good_until: Instant::now(),
        parts,
    };
    while !stop.is_cancelled() {
        let wait = owner.turn().await;
        let wait = wait.min(
            owner
                .good_until
                .saturating_duration_since(Instant::now())
                .max(IMPATIENT),
        );
        drop(tokio::time::timeout(wait, stop.cancelled()).await);
    }
    owner.leave().await;
}

struct Owner {
    parts: Arc<Parts>,
    /// Until when this shard may trust its own lease.
    good_until: Instant,
}

impl Owner {
    /// One look at everything; answers when to look again.
    async fn turn(&mut self) -> Duration {
        let renewal = self.parts.tuning.lease_renewal;
        let looked = tokio::time::timeout(renewal, self.look()).await;
        match looked
            .unwrap_or_else(|_| Err(MetadataError::Unavailable("no answer in time".to_owned())))
        {
            Ok((leases, ownerships)) => self.follow(&leases, &ownerships).await,
            Err(err) => {
                tracing::warn!(%err, "the lease can't be renewed");
                if Instant::now() + renewal >= self.good_until {
                    self.fence().await;
                }
                renewal
            }
        }
    }

    async fn look(&mut self) -> Result<(Vec<LeaseView>, Vec<Ownership>), MetadataError> {
        let began = Instant::now();
        self.parts
            .store
            .renew_lease(self.lease(LeaseState::Active))
            .await?;
        self.good_until = began + self.parts.tuning.lease_ttl;
        Ok((
            self.parts.store.leases().await?,
            self.parts.store.ownerships().await?,
        ))
    }

    fn lease(&self, state: LeaseState) -> Lease {
        Lease {
            shard: self.parts.shard.clone(),
            incarnation: self.parts.incarnation.clone(),
            endpoint: self.parts.endpoint.clone(),
            zone: self.parts.region.to_string(),
            sessions: u32::try_from(self.parts.sessions.count()).unwrap_or(u32::MAX),
            state,
        }
    }

    /// Gives back what others should serve, and takes what this shard should.
    async fn follow(&mut self, leases: &[LeaseView], ownerships: &[Ownership]) -> Duration {
        let ttl = self.parts.tuning.lease_ttl;
        let live: Vec<&Lease> = leases
            .iter()
            .filter(|view| view.age < ttl && view.lease.state == LeaseState::Active)
            .map(|view| &view.lease)
            .collect();
        self.learn(leases, ownerships, ttl);
        let mut moving = false;
        let mut given_back = Vec::new();
        for number in 0..self.parts.partition_count.get() {
            let chosen =
                infrachat_routing::owner(number, live.iter().map(|lease| lease.shard.as_str()));
            let mine = chosen == Some(self.parts.shard.as_str());
            match self.parts.partitions.get(number) {
                Some(_) if mine => {}
                Some(partition) => given_back.push(partition),
                None if mine => moving |= !self.take(number).await,
                None => {}
            }
        }
        let closing = given_back
            .into_iter()
            .map(|partition| give_back(&self.parts, partition));
        futures::future::join_all(closing).await;
        self.parts
            .partitions
            .all()
            .iter()
            .for_each(|partition| partition.forget_idle());
        if moving {
            IMPATIENT
        } else {
            self.parts.tuning.lease_renewal
        }
    }

    /// Where the partitions of others are, for redirecting.
    fn learn(&self, leases: &[LeaseView], ownerships: &[Ownership], ttl: Duration) {
        let live = |shard: &ShardId, life: &OriginId| {
            let found = leases
                .iter()
                .find(|view| view.lease.shard == *shard && view.lease.incarnation == *life);
            found
                .filter(|view| view.age < ttl)
                .map(|view| view.lease.endpoint.clone())
        };
        let endpoints: HashMap<u32, String> = ownerships
            .iter()
            .filter(|ownership| ownership.owner.as_ref() != Some(&self.parts.shard))
            .filter_map(|ownership| {
                let endpoint = live(ownership.owner.as_ref()?, &ownership.incarnation)?;
                Some((ownership.partition, endpoint))
            })
            .collect();
        self.parts.partitions.learn(endpoints);
    }

    /// Takes a partition; answers whether it is served here now.
    async fn take(&self, number: u32) -> bool {
        // One that was lost to a newer epoch is put away first.
        if let Some(lost) = self.parts.partitions.remove(number) {
            lost.abandon().await;
        }
        let parts = &self.parts;
        let taken = parts
            .store
            .take_partition(
                number,
                &parts.shard,
                &parts.incarnation,
                parts.tuning.lease_ttl,
            )
            .await;
        match taken {
            Ok(epoch) => {
                parts
                    .partitions
                    .insert(Partition::start(number, epoch, parts));
                true
            }
            Err(MetadataError::Held { .. }) => false,
            Err(err) => {
                tracing::warn!(partition = number, %err, "a partition can't be taken; trying again");
                false
            }
        }
    }

    /// Stops serving at once: the lease may end before it can be renewed.
    async fn fence(&self) {
        let partitions = self.parts.partitions.all();
        if !partitions.is_empty() {
            tracing::error!(
                partitions = partitions.len(),
                "the lease is about to end: serving nothing until it is renewed"
            );
        }
        for partition in partitions {
            self.parts.partitions.remove(partition.number);
            partition.abandon().await;
        }
    }

    /// Gives everything back, in order, and ends the lease.
    async fn leave(&self) {
        let parts = &self.parts;
        let draining = tokio::time::timeout(
            HAND_OVER,
            parts.store.renew_lease(self.lease(LeaseState::Draining)),
        );
        if !matches!(draining.await, Ok(Ok(()))) {
            tracing::warn!("the lease can't be marked as draining");
        }
        let closing = parts
            .partitions
            .all()
            .into_iter()
            .map(|partition| give_back(parts, partition));
        futures::future::join_all(closing).await;
        let ended = parts.store.end_lease(&parts.shard, &parts.incarnation);
        if !matches!(tokio::time::timeout(HAND_OVER, ended).await, Ok(Ok(()))) {
            tracing::warn!("the lease can't be ended; it runs out by itself");
        }
    }
}

async fn give_back(parts: &Parts, partition: Arc<Partition>) {
    partition.close(HAND_OVER).await;
    parts.partitions.remove(partition.number);
    let released = parts
        .store
        .release_partition(partition.number, partition.epoch);
    match tokio::time::timeout(HAND_OVER, released).await {
        Ok(Ok(())) => tracing::info!(partition = partition.number, "gave a partition back"),
        _ => tracing::warn!(
            partition = partition.number,
            "a partition can't be released; its lease will end"
        ),
    }
}
