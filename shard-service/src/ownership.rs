//! Which partitions this shard serves.
//!
//! Each shard renews a lease and follows everyone's. Rendezvous hashing over the live leases names who
//! should serve each partition, so all shards agree without a leader; the partition's record says who
//! does. A shard that can't renew its lease stops serving before the lease ends, by its own monotonic
//! clock, whatever else it is waiting for. Of two processes with one name the later to start has the
//! lease; the other hears so when it renews, and stops.
//!
//! A shard that Switchboard can't reach is suspect: everybody counts it out, itself included, so that it
//! gives back what it has; and its lease is not renewed, so that it loses what it does not give back. It
//! goes on asking for its lease, and serves again once it gets it.
//!
//! What is followed may be behind. Nothing is decided by records that don't know yet what this shard
//! has done itself; and taking a partition is decided by the store.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use infrachat_metadata::{Lease, LeaseState, LeaseView, MetadataError, Ownership, RoutingWatch};
use infrachat_types::{Epoch, ShardId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{counted::COUNTED, partition::Partition, parts::Parts};

/// How long a partition that moves may take to settle, and a call about one to answer.
const HAND_OVER: Duration = Duration::from_secs(2);
/// How long the store may take to tell what has happened before it is asked.
const HEARING: Duration = Duration::from_millis(500);
/// Between attempts to take a partition that looks free, and looks while nothing may be served.
const IMPATIENT: Duration = Duration::from_millis(100);
/// A lease has run out once it is older than its TTL.
const PAST: Duration = Duration::from_millis(1);
/// Partitions taken at once.
const AT_ONCE: usize = 8;

/// Takes, serves and gives back partitions until `stop`, then gives all of them back.
pub(crate) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    tokio::select! {
        () = keep_lease(&parts) => {
            // The shard has no place any more.
            stop.cancel();
            return;
        }
        () = follow(&parts) => {}
        () = tidy(&parts) => {}
        () = stop.cancelled() => {}
    }
    leave(&parts).await;
}

/// Begins the lease and renews it, and serves nothing while it may have run out. Ends, serving nothing,
/// when another process has taken over as this shard.
async fn keep_lease(parts: &Parts) {
    let mut begun = false;
    let renewal = parts.tuning.lease_renewal;
    loop {
        let began = Instant::now();
        let limit = match parts.partitions.is_fenced() {
            true => began + renewal,
            false => parts.partitions.good_until().min(began + renewal),
        };
        let lease = lease(parts, LeaseState::Active);
        let renewed = async {
            if begun {
                parts.store.renew_lease(lease).await
            } else {
                parts.store.begin_lease(lease).await
            }
        };
        let renewed = tokio::time::timeout_at(limit, renewed).await;
        COUNTED.renewed(began.elapsed(), matches!(renewed, Ok(Ok(()))));
        match renewed {
            Ok(Ok(())) => {
                begun = true;
                parts.partitions.unfence(good_until(parts, began));
            }
            Ok(Err(err @ MetadataError::Replaced(_))) => {
                tracing::error!(%err, "the lease can't be renewed");
                return fence(parts).await;
            }
            // What it has, it gives back as the records are followed, or loses when the lease ends.
            Ok(Err(err)) => tracing::warn!(%err, "the lease can't be renewed"),
            Err(_) => tracing::warn!("the lease can't be renewed: the store does not answer"),
        }
        let next = began + renewal;
        if parts.partitions.is_fenced() {
            tokio::time::sleep_until(next).await;
            continue;
        }
        let good_until = parts.partitions.good_until();
        tokio::time::sleep_until(next.min(good_until)).await;
        if Instant::now() >= good_until {
            fence(parts).await;
        }
    }
}

/// Until when a lease is good that was renewed by a call which began then: a little less than the lease
/// lasts, by the clock of whoever judges it.
fn good_until(parts: &Parts, began: Instant) -> Instant {
    let ttl = parts.tuning.lease_ttl;
    began + ttl - ttl / 5
}

/// Stops serving at once: the lease may end before it can be renewed.
async fn fence(parts: &Parts) {
    let partitions = parts.partitions.fence();
    if !partitions.is_empty() {
        let left = partitions.len();
        COUNTED.ownership.fenced.increment(left as u64);
        tracing::error!(
            partitions = left,
            "the lease has ended or is about to: serving nothing until it is renewed"
        );
    }
    partitions.iter().for_each(|partition| partition.halt());
    for partition in partitions {
        partition.abandon().await;
    }
}

fn lease(parts: &Parts, state: LeaseState) -> Lease {
    Lease {
        shard: parts.shard.clone(),
        incarnation: parts.incarnation.clone(),
        endpoint: parts.endpoint.clone(),
        zone: parts.region.to_string(),
        sessions: u32::try_from(parts.sessions.count()).unwrap_or(u32::MAX),
        state,
    }
}

/// Forgets idle channels every so often, for ever.
async fn tidy(parts: &Parts) {
    loop {
        tokio::time::sleep(parts.tuning.lease_renewal).await;
        let partitions = parts.partitions.all();
        partitions
            .iter()
            .for_each(|partition| partition.forget_idle());
    }
}

/// Follows the routing records for ever.
async fn follow(parts: &Arc<Parts>) {
    let mut watch = parts.store.watch();
    loop {
        let due = if parts.partitions.is_fenced() {
            Instant::now() + IMPATIENT
        } else {
            match Records::look(parts, &mut watch).await {
                Ok(records) => records.apply(parts).await,
                Err(err) => {
                    tracing::warn!(%err, "the routing records can't be read");
                    Instant::now() + parts.tuning.lease_renewal
                }
            }
        };
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
}

/// What the store says.
struct Records {
    /// As old as they were then.
    leases: Vec<LeaseView>,
    looked: Instant,
    ownerships: HashMap<u32, Ownership>,
}

impl Records {
    fn new(leases: Vec<LeaseView>, ownerships: Vec<Ownership>) -> Self {
        let ownerships = ownerships.into_iter();
        Self {
            leases,
            looked: Instant::now(),
            ownerships: ownerships.map(|found| (found.partition, found)).collect(),
        }
    }

    /// As the store tells it, or, when it isn't heard or is behind, as it is read.
    async fn look(parts: &Parts, watch: &mut RoutingWatch) -> Result<Self, MetadataError> {
        let hearing = async {
            loop {
                let view = watch.latest();
                let records = Self::new(view.leases().collect(), view.ownerships().to_vec());
                if view.is_current() && records.know_of(parts) {
                    return records;
                }
                watch.changed().await;
            }
        };
        if let Ok(records) = tokio::time::timeout(HEARING, hearing).await {
            return Ok(records);
        }
        let reading = async {
            let leases = parts.store.leases().await?;
            Ok(Self::new(leases, parts.store.ownerships().await?))
        };
        let no_answer = |_| Err(MetadataError::Unavailable("no answer in time".to_owned()));
        tokio::time::timeout(HAND_OVER, reading)
            .await
            .unwrap_or_else(no_answer)
    }

    /// Whether they have what this shard has done: its lease, and what it has taken.
    fn know_of(&self, parts: &Parts) -> bool {
        let lives = self.leases.iter().any(|view| {
            view.lease.incarnation == parts.incarnation && view.age <= parts.tuning.lease_ttl
        });
        let mut served = parts.partitions.all().into_iter();
        lives
            && served.all(|partition| {
                let record = self.ownerships.get(&partition.number);
                record.is_some_and(|record| record.epoch >= partition.epoch)
            })
    }

    /// Gives back what others should serve, and takes what this shard should; answers when to look
    /// again if nothing changes before.
    async fn apply(&self, parts: &Arc<Parts>) -> Instant {
        self.put_away_lost(parts).await;
        self.learn(parts);
        let ttl = parts.tuning.lease_ttl;
        let live: Vec<&str> = self
            .leases
            .iter()
            .filter(|view| view.age <= ttl && view.lease.state == LeaseState::Active)
            .map(|view| view.lease.shard.as_str())
            .collect();
        let (mut free, mut given_back, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for number in parts.partition_count.partitions() {
            let chosen = infrachat_routing::owner(number, live.iter().copied());
            let mine = chosen == Some(parts.shard.as_str());
            match parts.partitions.get(number) {
                Some(partition) if !mine => given_back.push(partition),
                None if mine && self.is_free(parts, number) => free.push(number),
                // It was given back, or taken, and the store did not answer: nobody else can take it.
                None if !mine => left.extend(self.epoch_here(parts, number).map(|e| (number, e))),
                _ => {}
            }
        }
        let giving: Vec<_> = given_back
            .into_iter()
            .map(|partition| give_back(parts, partition))
            .collect();
        let taking: Vec<_> = free.into_iter().map(|number| take(parts, number)).collect();
        let taking = stream::iter(taking)
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<bool>>();
        let releasing = left
            .into_iter()
            .map(|(number, epoch)| release(parts, number, epoch));
        let (_, _, taken) = tokio::join!(
            futures::future::join_all(giving),
            futures::future::join_all(releasing),
            taking
        );
        let wait = if taken.into_iter().all(|taken| taken) {
            parts.tuning.lease_renewal
        } else {
            IMPATIENT
        };
        let next = Instant::now() + wait;
        self.next_to_run_out(ttl).map_or(next, |at| next.min(at))
    }

    /// When the next lease runs out, which no record tells.
    fn next_to_run_out(&self, ttl: Duration) -> Option<Instant> {
        let left = self
            .leases
            .iter()
            .filter_map(|view| ttl.checked_sub(view.age));
        Some(self.looked + left.min()? + PAST)
    }

    /// Puts away what is served here and is no longer this shard's by the records: it was frozen, or
    /// its history was refused.
    async fn put_away_lost(&self, parts: &Parts) {
        for partition in parts.partitions.all() {
            let owned = self.epoch_here(parts, partition.number) == Some(partition.epoch);
            if !owned || !partition.is_open() {
                let (number, epoch) = (partition.number, partition.epoch);
                tracing::warn!(partition = number, %epoch, "a partition is no longer this shard's");
                COUNTED.ownership.lost.increment(1);
                parts.partitions.remove(number);
                partition.abandon().await;
            }
        }
    }

    /// Where the partitions of others are, for redirecting.
    fn learn(&self, parts: &Parts) {
        let others = self
            .ownerships
            .values()
            .filter(|record| record.owner.as_ref() != Some(&parts.shard));
        let endpoints = others.filter_map(|record| {
            let holder = self.holder(parts, record)?;
            Some((record.partition, holder.endpoint.clone()))
        });
        parts.partitions.learn(endpoints.collect());
    }

    /// The live lease of a partition's owner.
    fn holder(&self, parts: &Parts, record: &Ownership) -> Option<&Lease> {
        let owner: &ShardId = record.owner.as_ref()?;
        let found = self.leases.iter().find(|view| {
            view.lease.shard == *owner && view.lease.incarnation == record.incarnation
        });
        found
            .filter(|view| view.age <= parts.tuning.lease_ttl)
            .map(|view| &view.lease)
    }

    /// The epoch under which this life of the shard has a partition, by the records.
    fn epoch_here(&self, parts: &Parts, number: u32) -> Option<Epoch> {
        let record = self.ownerships.get(&number)?;
        let here =
            record.owner.as_ref() == Some(&parts.shard) && record.incarnation == parts.incarnation;
        here.then_some(record.epoch)
    }

    /// Whether taking a partition may succeed; the store has the last word.
    fn is_free(&self, parts: &Parts, number: u32) -> bool {
        let holder = self
            .ownerships
            .get(&number)
            .and_then(|record| self.holder(parts, record));
        holder.is_none_or(|holder| holder.incarnation == parts.incarnation)
    }
}

/// Takes a partition; answers whether it is served here now.
async fn take(parts: &Arc<Parts>, number: u32) -> bool {
    let ttl = parts.tuning.lease_ttl;
    let taking = parts
        .store
        .take_partition(number, &parts.shard, &parts.incarnation, ttl);
    match tokio::time::timeout(HAND_OVER, taking).await {
        Ok(Ok(epoch)) => {
            let partition = Partition::start(number, epoch, parts);
            let served = parts.partitions.insert(Arc::clone(&partition));
            if served {
                COUNTED.ownership.taken.increment(1);
            } else {
                partition.abandon().await;
            }
            served
        }
        Ok(Err(MetadataError::Held { .. })) => false,
        Ok(Err(err)) => {
            tracing::warn!(partition = number, %err, "a partition can't be taken; trying again");
            false
        }
        Err(_) => {
            tracing::warn!(
                partition = number,
                "taking a partition was not answered; trying again"
            );
            false
        }
    }
}

/// Gives everything back, in order, and ends the lease; what can't be given back before the lease may have
/// run out is dropped then.
async fn leave(parts: &Parts) {
    tokio::select! {
        () = give_all_back(parts) => {}
        () = run_out(parts) => fence(parts).await,
    }
    let ended = parts.store.end_lease(&parts.shard, &parts.incarnation);
    if !matches!(tokio::time::timeout(HAND_OVER, ended).await, Ok(Ok(()))) {
        tracing::warn!("the lease can't be ended; it runs out by itself");
    }
}

/// Until the lease may have run out.
async fn run_out(parts: &Parts) {
    loop {
        let good_until = parts.partitions.good_until();
        if Instant::now() >= good_until {
            return;
        }
        tokio::time::sleep_until(good_until).await;
    }
}

async fn give_all_back(parts: &Parts) {
    let began = Instant::now();
    let draining = parts.store.renew_lease(lease(parts, LeaseState::Draining));
    match tokio::time::timeout(HAND_OVER, draining).await {
        Ok(Ok(())) => parts.partitions.unfence(good_until(parts, began)),
        _ => tracing::warn!("the lease can't be marked as draining"),
    }
    let closing = parts
        .partitions
        .all()
        .into_iter()
        .map(|partition| give_back(parts, partition));
    futures::future::join_all(closing).await;
}

async fn give_back(parts: &Parts, partition: Arc<Partition>) {
    partition.close(HAND_OVER).await;
    parts.partitions.remove(partition.number);
    release(parts, partition.number, partition.epoch).await;
}

/// Lets others have a partition that is not served here any more. What can't be released is found again in
/// the records, or free once the lease has ended.
async fn release(parts: &Parts, number: u32, epoch: Epoch) {
    let released = parts.store.release_partition(number, epoch);
    match tokio::time::timeout(HAND_OVER, released).await {
        Ok(Ok(())) => {
            COUNTED.ownership.released.increment(1);
            tracing::debug!(partition = number, "gave a partition back");
        }
        _ => tracing::warn!(partition = number, "a partition can't be released now"),
    }
}

#[cfg(test)]
mod tests {
    use infrachat_types::OriginId;

    use super::*;

    fn aged(millis: u64) -> LeaseView {
        LeaseView {
            lease: Lease {
                shard: ShardId::new(&format!("shard-{millis}")).expect("valid"),
                incarnation: OriginId::from_text("life"),
                endpoint: "shard.example:7003".to_owned(),
                zone: "us-west1".to_owned(),
                sessions: 0,
                state: LeaseState::Active,
            },
            age: Duration::from_millis(millis),
            asked: Duration::from_millis(millis),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_lease_to_run_out_is_the_oldest_that_has_not() {
        let ttl = Duration::from_millis(5_000);
        let wait = |ages: &[u64]| {
            let records = Records::new(ages.iter().copied().map(aged).collect(), Vec::new());
            let at = records.next_to_run_out(ttl)?;
            Some(at.duration_since(Instant::now()).as_millis())
        };
        assert_eq!(wait(&[1_000, 3_000, 5_001, 60_000]), Some(2_001));
        assert_eq!(wait(&[0, 5_000]), Some(1));
        assert_eq!(wait(&[5_001]), None);
        assert_eq!(wait(&[]), None);
    }
}
