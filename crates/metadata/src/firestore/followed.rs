//! What a listener has heard so far.
//!
//! Changes count once the stream says that it is at a snapshot, with its time: before, some of what
//! happened at one moment may still be on its way.

use std::{collections::BTreeMap, time::Duration};

use firestore::gcloud_sdk::{
    google::firestore::v1::{
        Document, ListenResponse, TargetChange, listen_response::ResponseType,
        target_change::TargetChangeType,
    },
    prost_types::Timestamp,
};
use tokio::time::Instant;

use super::{
    calls::decode,
    leases::{KeptLease, StoredLease},
    listener::Ended,
    routing::{StoredOwnership, readable},
};
use crate::{Ownership, RoutingView};

/// Targets have ids above zero.
pub(super) const LEASES_TARGET: i32 = 1;
pub(super) const PARTITIONS_TARGET: i32 = 2;

/// Documents by their names, and how to go on.
#[derive(Debug, Default)]
pub(super) struct Followed {
    leases: BTreeMap<String, HeardLease>,
    /// Leases that will be told anew until the next snapshot.
    former: BTreeMap<String, HeardLease>,
    /// None when it makes no sense: it counts, and says nothing.
    partitions: BTreeMap<String, Option<Ownership>>,
    targets: BTreeMap<i32, Progress>,
    /// When the last snapshot was heard.
    heard: Option<Instant>,
}

#[derive(Debug)]
struct HeardLease {
    /// None when it makes no sense.
    kept: Option<KeptLease>,
    /// As of the last snapshot; none since the last renewal.
    age: Option<Duration>,
}

impl HeardLease {
    /// Whether this is what the same renewal left.
    fn is_renewal(&self, other: Option<&KeptLease>) -> bool {
        let moment = |kept: &KeptLease| kept.renewed_at;
        self.kept.as_ref().map(moment) == other.map(moment)
    }
}

#[derive(Debug, Default)]
struct Progress {
    /// Whether the stream has told everything that was there when it began.
    current: bool,
    /// Where another stream can go on.
    token: Option<Vec<u8>>,
}

impl Followed {
    /// Where a target goes on; none if it has to start from nothing.
    pub(super) fn token(&self, target: i32) -> Option<Vec<u8>> {
        self.targets.get(&target)?.token.clone()
    }

    /// Whatever stream comes next has to start from nothing.
    pub(super) fn forget_tokens(&mut self) {
        self.targets.clear();
    }

    /// A new stream starts, and goes on from the tokens.
    pub(super) fn begin(&mut self) {
        for target in [LEASES_TARGET, PARTITIONS_TARGET] {
            self.targets.entry(target).or_default().current = false;
            if self.token(target).is_none() {
                self.clear(target);
            }
        }
    }

    /// Takes in what came; answers what the store says, when that is known in full.
    pub(super) fn hear(
        &mut self,
        response: ListenResponse,
        now: Instant,
    ) -> Result<Option<RoutingView>, Ended> {
        match response.response_type {
            Some(ResponseType::TargetChange(change)) => return self.target(change, now),
            Some(ResponseType::DocumentChange(change)) => {
                if let Some(document) = change.document {
                    self.remove(&document.name, &change.removed_target_ids);
                    for target in change.target_ids {
                        self.put(target, &document)?;
                    }
                }
            }
            Some(ResponseType::DocumentDelete(gone)) => {
                self.remove(&gone.document, &gone.removed_target_ids);
            }
            Some(ResponseType::DocumentRemove(gone)) => {
                self.remove(&gone.document, &gone.removed_target_ids);
            }
            Some(ResponseType::Filter(filter)) => {
                let here = match filter.target_id {
                    LEASES_TARGET => self.leases.len(),
                    _ => self.partitions.len(),
                };
                if usize::try_from(filter.count) != Ok(here) {
                    let there = filter.count;
                    let why = format!("{here} documents are known where there are {there}");
                    return Err(Ended::Void(why));
                }
            }
            None => {}
        }
        Ok(None)
    }

    fn target(&mut self, change: TargetChange, now: Instant) -> Result<Option<RoutingView>, Ended> {
        let kind = change.target_change_type();
        let all = change.target_ids.is_empty();
        let targets = if all {
            vec![LEASES_TARGET, PARTITIONS_TARGET]
        } else {
            change.target_ids
        };
        match kind {
            TargetChangeType::Current => {
                for target in &targets {
                    self.targets.entry(*target).or_default().current = true;
                }
            }
            TargetChangeType::Reset => {
                for target in &targets {
                    self.targets.insert(*target, Progress::default());
                    self.clear(*target);
                }
            }
            TargetChangeType::Remove => {
                let why = change.cause.map_or_else(String::new, |cause| cause.message);
                return Err(Ended::Void(format!("Firestore refused to go on: {why}")));
            }
            TargetChangeType::NoChange | TargetChangeType::Add => {}
        }
        if !change.resume_token.is_empty() {
            for target in targets {
                let token = Some(change.resume_token.clone());
                self.targets.entry(target).or_default().token = token;
            }
        }
        let known = self.targets.values().all(|target| target.current);
        let snapshot = change.read_time.filter(|_| all && known);
        Ok(snapshot.map(|read_at| self.view(read_at, now)))
    }

    /// Everything, as of a snapshot.
    fn view(&mut self, read_at: Timestamp, now: Instant) -> RoutingView {
        let since = self.heard.map(|heard| now.duration_since(heard));
        self.heard = Some(now);
        self.former.clear();
        let leases = self.leases.values_mut().filter_map(|heard| {
            let kept = heard.kept.clone()?;
            let told = kept.age(read_at);
            // A snapshot that was long on its way makes nobody younger.
            let grown = heard.age.zip(since).map(|(age, since)| age + since);
            let age = grown.map_or(told, |grown| grown.max(told));
            heard.age = Some(age);
            Some(kept.view(age))
        });
        let mut ownerships: Vec<_> = self.partitions.values().flatten().cloned().collect();
        ownerships.sort_unstable_by_key(|ownership| ownership.partition);
        RoutingView::new(leases, ownerships, now)
    }

    fn put(&mut self, target: i32, document: &Document) -> Result<(), Ended> {
        let name = document.name.clone();
        if target == PARTITIONS_TARGET {
            let ownership = readable(decode(document, StoredOwnership::ownership));
            self.partitions.insert(name, ownership);
            return Ok(());
        }
        let updated_at = document
            .update_time
            .ok_or_else(|| Ended::Lost(format!("{name} came without the time of its change")))?;
        let kept = decode(document, |stored: StoredLease| stored.kept(updated_at));
        let kept = readable(kept);
        let known = self.leases.get(&name).or_else(|| self.former.get(&name));
        let age = known.and_then(|known| known.age.filter(|_| known.is_renewal(kept.as_ref())));
        self.leases.insert(name, HeardLease { kept, age });
        Ok(())
    }

    fn remove(&mut self, name: &str, targets: &[i32]) {
        for target in targets {
            match *target {
                LEASES_TARGET => drop(self.leases.remove(name)),
                _ => drop(self.partitions.remove(name)),
            }
        }
    }

    fn clear(&mut self, target: i32) {
        match target {
            LEASES_TARGET => self.former.append(&mut self.leases),
            _ => self.partitions.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use firestore::{
        FirestoreDb,
        gcloud_sdk::google::firestore::v1::{
            DocumentChange, DocumentDelete, ExistenceFilter, Value, value::ValueType,
        },
    };
    use infrachat_types::{Epoch, OriginId, ShardId};

    use super::*;
    use crate::{Lease, LeaseState};

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease() -> Lease {
        Lease {
            shard: ShardId::new("shard-a").expect("valid"),
            incarnation: OriginId::from_text("life"),
            endpoint: "shard.example:7003".to_owned(),
            zone: "us-west1-b".to_owned(),
            sessions: 0,
            state: LeaseState::Active,
        }
    }

    fn ownership() -> Ownership {
        Ownership {
            partition: 7,
            epoch: Epoch(1),
            owner: Some(lease().shard),
            incarnation: lease().incarnation,
        }
    }

    fn changed(document: Document, target: i32) -> ResponseType {
        ResponseType::DocumentChange(DocumentChange {
            document: Some(document),
            target_ids: vec![target],
            removed_target_ids: Vec::new(),
        })
    }

    fn time(name: &str, seconds: i64) -> (String, Value) {
        let value_type = Some(ValueType::TimestampValue(at(seconds)));
        (name.to_owned(), Value { value_type })
    }

    /// A lease, with these times, that was changed then.
    fn told(updated_at: i64, times: &[(&str, i64)]) -> ResponseType {
        let document =
            FirestoreDb::serialize_to_doc("leases/shard-a", &StoredLease::from(&lease()));
        let mut document = document.expect("a document");
        document.update_time = Some(at(updated_at));
        let times = times.iter().map(|(name, seconds)| time(name, *seconds));
        document.fields.extend(times);
        changed(document, LEASES_TARGET)
    }

    fn renewed(updated_at: i64) -> ResponseType {
        told(updated_at, &[("renewed_at", updated_at)])
    }

    fn taken() -> ResponseType {
        let stored = StoredOwnership::from(&ownership());
        let document = FirestoreDb::serialize_to_doc("partitions/7", &stored);
        changed(document.expect("a document"), PARTITIONS_TARGET)
    }

    fn change(kind: TargetChangeType, target_ids: Vec<i32>, read_at: Option<i64>) -> ResponseType {
        ResponseType::TargetChange(TargetChange {
            target_change_type: kind.into(),
            resume_token: read_at.map(|_| b"here".to_vec()).unwrap_or_default(),
            read_time: read_at.map(at),
            target_ids,
            cause: None,
        })
    }

    fn snapshot(read_at: i64) -> ResponseType {
        change(TargetChangeType::NoChange, Vec::new(), Some(read_at))
    }

    fn count(target_id: i32, count: i32) -> ResponseType {
        ResponseType::Filter(ExistenceFilter {
            target_id,
            count,
            unchanged_names: None,
        })
    }

    /// Hears these at once; answers the last view of them.
    fn hear(
        followed: &mut Followed,
        now: Instant,
        responses: impl IntoIterator<Item = ResponseType>,
    ) -> Result<Option<RoutingView>, Ended> {
        let mut last = None;
        for response in responses {
            let response = ListenResponse {
                response_type: Some(response),
            };
            if let Some(view) = followed.hear(response, now)? {
                last = Some(view);
            }
        }
        Ok(last)
    }

    fn current(targets: &[i32], read_at: i64) -> ResponseType {
        change(TargetChangeType::Current, targets.to_vec(), Some(read_at))
    }

    /// One lease renewed at 100, one partition, seen at 101.
    fn started(now: Instant) -> (Followed, RoutingView) {
        let mut followed = Followed::default();
        followed.begin();
        let all = [LEASES_TARGET, PARTITIONS_TARGET];
        let told = [renewed(100), taken(), current(&all, 101), snapshot(101)];
        let view = hear(&mut followed, now, told).expect("sense");
        (followed, view.expect("all is known"))
    }

    fn age(view: &RoutingView) -> Option<Duration> {
        view.leases().next().map(|view| view.age)
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_known_before_both_targets_are() {
        let mut followed = Followed::default();
        followed.begin();
        let one = [renewed(100), current(&[LEASES_TARGET], 101), snapshot(101)];
        let view = hear(&mut followed, Instant::now(), one).expect("sense");
        assert!(view.is_none(), "{view:?}");
        let other = [taken(), current(&[PARTITIONS_TARGET], 102), snapshot(102)];
        let view = hear(&mut followed, Instant::now(), other).expect("sense");
        let view = view.expect("all is known");
        assert_eq!(age(&view), Some(secs(2)));
        assert_eq!(view.ownerships(), [ownership()]);
    }

    #[tokio::test(start_paused = true)]
    async fn documents_that_make_no_sense_are_passed_over_and_counted() {
        let now = Instant::now();
        let (mut followed, _) = started(now);
        let all = [LEASES_TARGET, PARTITIONS_TARGET];
        let handmade = |name: &str, target| {
            let document = Document {
                name: name.to_owned(),
                update_time: Some(at(102)),
                ..Document::default()
            };
            changed(document, target)
        };
        let told = [
            handmade("leases/handmade", LEASES_TARGET),
            handmade("partitions/handmade", PARTITIONS_TARGET),
            count(LEASES_TARGET, 2),
            count(PARTITIONS_TARGET, 2),
            current(&all, 103),
            snapshot(103),
        ];
        let view = hear(&mut followed, now, told).expect("sense");
        let view = view.expect("all is known");
        assert_eq!(view.leases().count(), 1);
        assert_eq!(view.ownerships(), [ownership()]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_shows_with_the_snapshot_behind_it() {
        let now = Instant::now();
        let (mut followed, _) = started(now);
        let gone = ResponseType::DocumentDelete(DocumentDelete {
            document: "leases/shard-a".to_owned(),
            removed_target_ids: vec![LEASES_TARGET],
            read_time: Some(at(102)),
        });
        // A newer token for one target is no snapshot of both.
        let part = [
            gone,
            change(TargetChangeType::NoChange, vec![LEASES_TARGET], Some(102)),
        ];
        assert!(hear(&mut followed, now, part).expect("sense").is_none());
        let view = hear(&mut followed, now, [snapshot(102)]).expect("sense");
        let view = view.expect("a snapshot");
        assert_eq!((age(&view), view.ownerships().len()), (None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn news_that_was_long_on_its_way_makes_no_lease_younger() {
        let now = Instant::now();
        let (mut followed, view) = started(now);
        assert_eq!(age(&view), Some(secs(1)));
        tokio::time::advance(secs(10)).await;
        let late = hear(&mut followed, Instant::now(), [snapshot(103)]).expect("sense");
        assert_eq!(age(&late.expect("a snapshot")), Some(secs(11)));
        // Nor does the same told again by another stream.
        followed.forget_tokens();
        followed.begin();
        let all = [LEASES_TARGET, PARTITIONS_TARGET];
        let again = [renewed(100), taken(), current(&all, 104), snapshot(104)];
        let view = hear(&mut followed, Instant::now(), again).expect("sense");
        assert_eq!(age(&view.expect("all is known")), Some(secs(11)));
        let news = hear(&mut followed, Instant::now(), [snapshot(130)]).expect("sense");
        assert_eq!(age(&news.expect("a snapshot")), Some(secs(30)));
        let renewal = [renewed(131), snapshot(131)];
        let view = hear(&mut followed, Instant::now(), renewal).expect("sense");
        assert_eq!(age(&view.expect("a snapshot")), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_is_no_renewal_makes_no_lease_younger() {
        let now = Instant::now();
        let (mut followed, _) = started(now);
        tokio::time::advance(secs(10)).await;
        let asked = told(103, &[("renewed_at", 100), ("asked_at", 102)]);
        let view = hear(&mut followed, Instant::now(), [asked, snapshot(103)]).expect("sense");
        let view = view.expect("a snapshot").leases().next().expect("a lease");
        // The news was 8 s on its way.
        assert_eq!((view.age, view.asked), (secs(11), secs(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_renewed_in_the_future_makes_no_sense() {
        let now = Instant::now();
        let (mut followed, _) = started(now);
        let ahead = told(102, &[("renewed_at", 1_000)]);
        let never = told(102, &[]);
        for handmade in [ahead, never] {
            let view = hear(&mut followed, now, [handmade, snapshot(102)]).expect("sense");
            assert_eq!(view.expect("a snapshot").leases().count(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_keeps_what_is_known_if_the_counts_agree() {
        let now = Instant::now();
        let all = [LEASES_TARGET, PARTITIONS_TARGET];
        let (mut followed, _) = started(now);
        assert_eq!(followed.token(LEASES_TARGET), Some(b"here".to_vec()));
        followed.begin();
        let counts = all.map(|target| count(target, 1));
        assert!(hear(&mut followed, now, counts).expect("as many").is_none());
        let view = hear(&mut followed, now, [current(&all, 103), snapshot(103)]).expect("sense");
        assert_eq!(view.expect("all is known").ownerships(), [ownership()]);
        for target in all {
            let more = hear(&mut followed, now, [count(target, 2)]);
            assert!(matches!(more, Err(Ended::Void(_))), "{more:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_starts_over_has_what_is_told_then() {
        let now = Instant::now();
        let (mut followed, _) = started(now);
        followed.begin();
        let reset = change(TargetChangeType::Reset, vec![PARTITIONS_TARGET], None);
        assert!(hear(&mut followed, now, [reset]).expect("sense").is_none());
        assert_eq!(followed.token(PARTITIONS_TARGET), None);
        let all = [LEASES_TARGET, PARTITIONS_TARGET];
        let told = [current(&all, 103), snapshot(103)];
        let view = hear(&mut followed, now, told)
            .expect("sense")
            .expect("all is known");
        assert_eq!((view.leases().count(), view.ownerships().len()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_is_refused_starts_from_nothing() {
        let (mut followed, _) = started(Instant::now());
        let refused = change(TargetChangeType::Remove, vec![LEASES_TARGET], None);
        let ended = hear(&mut followed, Instant::now(), [refused]);
        assert!(matches!(ended, Err(Ended::Void(_))), "{ended:?}");
    }
}
