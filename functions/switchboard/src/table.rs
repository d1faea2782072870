//! The routes of a region, as its store has them at one moment.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use infrachat_metadata::{Lease, LeaseState, LeaseView, Ownership};
use infrachat_routing::PartitionCount;
use infrachat_types::ShardId;

/// Taking a free partition over is a matter of a transaction and of loading the tail of history.
const TAKEOVER: Duration = Duration::from_millis(250);
/// Without shards, one must start first.
const NO_SHARDS: Duration = Duration::from_secs(1);

/// Leases and ownerships, read together.
#[derive(Debug)]
pub(crate) struct RoutingTable {
    count: PartitionCount,
    live: BTreeMap<ShardId, Lease>,
    /// Of those that ask for their leases: beside the live, suspect ones that get none.
    asking: Vec<Lease>,
    /// How long after that moment all of those leases are good, or were asked for; none without any.
    good_for: Option<Duration>,
    ownerships: HashMap<u32, Ownership>,
}

/// Where a partition is served, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Placement<'a> {
    /// The shard that serves it, or how long until there may be one.
    pub(crate) owner: Result<Owner<'a>, Duration>,
    /// For people.
    pub(crate) reason: String,
}

/// A shard that serves a partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    pub(crate) shard: &'a ShardId,
    pub(crate) endpoint: &'a str,
    pub(crate) epoch: u64,
}

impl RoutingTable {
    /// A lease older than `ttl` is taken for a dead shard's.
    pub(crate) fn new(
        count: PartitionCount,
        ttl: Duration,
        leases: impl IntoIterator<Item = LeaseView>,
        ownerships: impl IntoIterator<Item = Ownership>,
    ) -> Self {
        let asking = leases.into_iter().filter(|view| view.asked <= ttl);
        let asking: Vec<_> = asking.collect();
        let live = asking.iter().filter(|view| view.age <= ttl);
        let left = |view: &LeaseView| {
            ttl - if view.age <= ttl {
                view.age
            } else {
                view.asked
            }
        };
        Self {
            count,
            good_for: asking.iter().map(left).min(),
            live: live
                .map(|view| (view.lease.shard.clone(), view.lease.clone()))
                .collect(),
            asking: asking.into_iter().map(|view| view.lease).collect(),
            ownerships: ownerships
                .into_iter()
                .map(|owned| (owned.partition, owned))
                .collect(),
        }
    }

    /// Whether, so long after that moment, one of the leases may have run out.
    pub(crate) fn has_run_out(&self, after: Duration) -> bool {
        self.good_for.is_some_and(|good_for| after > good_for)
    }

    /// The leases of the shards that live, as far as their asking shows, and are in a state.
    pub(crate) fn shards(&self, state: LeaseState) -> impl Iterator<Item = &Lease> {
        self.asking.iter().filter(move |lease| lease.state == state)
    }

    /// Who serves a partition: the owner that the store recorded, if it lives.
    pub(crate) fn place(&self, partition: u32) -> Placement<'_> {
        let choice = self.choice(partition);
        let (owner, why) = match self.ownerships.get(&partition) {
            Some(owned) => match owned.owner.as_ref() {
                Some(holder) => self.held(owned, holder, choice),
                None => (
                    Err(self.wait()),
                    format!(
                        "released under epoch {}; {}",
                        owned.epoch.0,
                        self.next(choice)
                    ),
                ),
            },
            None => (
                Err(self.wait()),
                format!("never owned so far; {}", self.next(choice)),
            ),
        };
        Placement {
            owner,
            reason: format!("partition {partition} of {}; {why}", self.count),
        }
    }

    fn held<'a>(
        &'a self,
        owned: &Ownership,
        holder: &'a ShardId,
        choice: Option<&str>,
    ) -> (Result<Owner<'a>, Duration>, String) {
        let epoch = owned.epoch.0;
        let Some(lease) = self.live.get(holder) else {
            let why = format!(
                "{holder} held it under epoch {epoch} and its lease has run out; {}",
                self.next(choice)
            );
            return (Err(self.wait()), why);
        };
        if lease.incarnation != owned.incarnation {
            let why = format!(
                "{holder} held it under epoch {epoch} and has restarted since; {}",
                self.next(choice)
            );
            return (Err(self.wait()), why);
        }
        let state = match lease.state {
            LeaseState::Active => "",
            LeaseState::Draining => " and draining",
            LeaseState::Suspect => " and failing its probes",
        };
        let choice = match choice {
            Some(choice) if choice == holder.as_str() => {
                format!("rendezvous choice among {}", self.live_shards())
            }
            Some(choice) => {
                format!("taking over: the choice is {choice} but {holder} still holds it")
            }
            None => "no shard is ready to take it".to_owned(),
        };
        let owner = Owner {
            shard: holder,
            endpoint: &lease.endpoint,
            epoch,
        };
        (
            Ok(owner),
            format!("owner {holder} since epoch {epoch}{state} ({choice})"),
        )
    }

    /// Who should own it, of those that are ready.
    fn choice(&self, partition: u32) -> Option<&str> {
        infrachat_routing::owner(partition, self.ready().map(ShardId::as_str))
    }

    fn ready(&self) -> impl Iterator<Item = &ShardId> {
        let ready = self
            .live
            .values()
            .filter(|lease| lease.state == LeaseState::Active);
        ready.map(|lease| &lease.shard)
    }

    fn next(&self, choice: Option<&str>) -> String {
        match choice {
            Some(choice) => format!(
                "taking over: the choice is {choice} among {}",
                self.live_shards()
            ),
            None if self.live.is_empty() => "no live shard".to_owned(),
            None => format!("none of {} is ready to take it", self.live_shards()),
        }
    }

    fn wait(&self) -> Duration {
        if self.ready().next().is_some() {
            TAKEOVER
        } else {
            NO_SHARDS
        }
    }

    fn live_shards(&self) -> String {
        match self.live.len() {
            1 => "1 live shard".to_owned(),
            count => format!("{count} live shards"),
        }
    }
}

#[cfg(test)]
mod tests {
    use infrachat_types::{Epoch, OriginId};

    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    fn lease(slot: u32, state: LeaseState, age: Duration) -> LeaseView {
        let shard = ShardId::new(&format!("us-west1-shard-{slot}")).expect("a shard");
        LeaseView {
            lease: Lease {
                incarnation: OriginId::from_text("first-life"),
                endpoint: format!("shard-{slot}:7003"),
                zone: "us-west1-a".to_owned(),
                sessions: 0,
                state,
                shard,
            },
            age,
            asked: age,
        }
    }

    fn owned_by(slot: Option<u32>, incarnation: &str) -> Ownership {
        let shard = |slot| ShardId::new(&format!("us-west1-shard-{slot}")).expect("a shard");
        Ownership {
            partition: 7,
            epoch: Epoch(4),
            owner: slot.map(shard),
            incarnation: OriginId::from_text(incarnation),
        }
    }

    fn place(
        leases: Vec<LeaseView>,
        ownerships: Vec<Ownership>,
    ) -> (Result<String, Duration>, String) {
        let table = RoutingTable::new(PartitionCount::default(), TTL, leases, ownerships);
        let placement = table.place(7);
        (
            placement.owner.map(|owner| owner.endpoint.to_owned()),
            placement.reason,
        )
    }

    fn two_active() -> Vec<LeaseView> {
        vec![
            lease(0, LeaseState::Active, TTL),
            lease(1, LeaseState::Active, TTL),
        ]
    }

    /// Of the two, by rendezvous hashing.
    const CHOICE: u32 = 1;
    const OTHER: u32 = 0;

    #[test]
    fn the_recorded_owner_is_the_answer() {
        let (owner, reason) = place(two_active(), vec![owned_by(Some(CHOICE), "first-life")]);
        assert_eq!(owner.as_deref(), Ok("shard-1:7003"));
        assert_eq!(
            reason,
            "partition 7 of 64; owner us-west1-shard-1 since epoch 4 (rendezvous choice among 2 live shards)"
        );
    }

    #[test]
    fn until_it_releases_the_recorded_owner_is_the_answer_even_when_another_is_the_choice() {
        let (owner, reason) = place(two_active(), vec![owned_by(Some(OTHER), "first-life")]);
        assert_eq!(owner.as_deref(), Ok("shard-0:7003"));
        assert!(
            reason.contains("the choice is us-west1-shard-1 but us-west1-shard-0 still holds it"),
            "{reason}"
        );
    }

    #[test]
    fn a_draining_owner_is_the_answer_but_never_the_choice() {
        let leases = vec![
            lease(0, LeaseState::Active, TTL),
            lease(1, LeaseState::Draining, TTL),
        ];
        let (owner, reason) = place(leases, vec![owned_by(Some(CHOICE), "first-life")]);
        assert_eq!(owner.as_deref(), Ok("shard-1:7003"));
        assert!(
            reason.contains("and draining (taking over: the choice is us-west1-shard-0"),
            "{reason}"
        );
    }

    #[test]
    fn a_suspect_owner_is_the_answer_while_it_holds_the_partition_and_never_the_choice() {
        let mut leases = vec![
            lease(0, LeaseState::Active, TTL),
            lease(1, LeaseState::Suspect, TTL),
        ];
        let (owner, reason) = place(leases.clone(), vec![owned_by(Some(CHOICE), "first-life")]);
        assert_eq!(owner.as_deref(), Ok("shard-1:7003"));
        let why = "and failing its probes (taking over: the choice is us-west1-shard-0";
        assert!(reason.contains(why), "{reason}");

        leases[1].age = TTL * 2;
        let (owner, _) = place(leases.clone(), vec![owned_by(Some(CHOICE), "first-life")]);
        assert_eq!(owner, Err(TAKEOVER));
        let table = RoutingTable::new(PartitionCount::default(), TTL, leases.clone(), []);
        assert_eq!(
            table.shards(LeaseState::Suspect).count(),
            1,
            "it asks still"
        );
        leases[1].asked = TTL * 2;
        let table = RoutingTable::new(PartitionCount::default(), TTL, leases, []);
        assert_eq!(table.shards(LeaseState::Suspect).count(), 0);
    }

    #[test]
    fn an_owner_whose_lease_has_run_out_is_no_answer() {
        let late = TTL + Duration::from_millis(1);
        let leases = vec![
            lease(0, LeaseState::Active, TTL),
            lease(1, LeaseState::Active, late),
        ];
        let (owner, reason) = place(leases, vec![owned_by(Some(1), "first-life")]);
        assert_eq!(owner, Err(TAKEOVER));
        assert!(reason.contains("its lease has run out; taking over: the choice is us-west1-shard-0 among 1 live shard"), "{reason}");
    }

    #[test]
    fn a_restarted_owner_is_no_answer_until_it_takes_the_partition_again() {
        let (owner, reason) = place(two_active(), vec![owned_by(Some(CHOICE), "former-life")]);
        assert_eq!(owner, Err(TAKEOVER));
        assert!(reason.contains("has restarted since"), "{reason}");
    }

    #[test]
    fn a_partition_that_nobody_holds_has_no_owner() {
        for ownerships in [vec![], vec![owned_by(None, "first-life")]] {
            let (owner, reason) = place(two_active(), ownerships);
            assert_eq!(owner, Err(TAKEOVER));
            assert!(
                reason.contains("the choice is us-west1-shard-1 among 2 live shards"),
                "{reason}"
            );
        }
    }

    #[test]
    fn without_live_shards_the_answer_says_so() {
        let (owner, reason) = place(vec![], vec![owned_by(Some(1), "first-life")]);
        assert_eq!(owner, Err(NO_SHARDS));
        assert!(reason.ends_with("no live shard"), "{reason}");
    }

    #[test]
    fn shards_that_only_drain_are_no_choice() {
        let (owner, reason) = place(vec![lease(0, LeaseState::Draining, TTL)], vec![]);
        assert_eq!(owner, Err(NO_SHARDS));
        assert!(
            reason.ends_with("none of 1 live shard is ready to take it"),
            "{reason}"
        );
    }
}
