//! Running a query: which documents to look at, and in which order they come.

use std::ops::{Bound, ControlFlow};

use super::{
    Plan,
    filter::{Filter, Test},
};
use crate::firestore::{
    document::Version,
    field_path::FieldPath,
    index::Access,
    store::{Collection, Store},
    time::Time,
};

/// Below this many documents a collection is read whole.
const SMALL: usize = 32;

/// An equality that more documents than this meet yields to an index that is in order already.
const SELECTIVE: usize = 256;

/// What a query found.
#[derive(Debug, Default)]
pub(in crate::firestore) struct Results {
    pub(in crate::firestore) documents: Vec<Version>,
    /// How many came before, by the offset.
    pub(in crate::firestore) skipped: usize,
}

/// Matches as they are found.
struct Found<'a> {
    plan: &'a Plan,
    matches: Vec<(Vec<u8>, Version)>,
    /// Where to stop, when they come in order.
    enough: Option<usize>,
}

impl Found<'_> {
    fn offer(&mut self, document: &Version) -> ControlFlow<()> {
        if let Some(key) = self.plan.sort_key(document) {
            self.matches.push((key, document.clone()));
            if self.enough == Some(self.matches.len()) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Plan {
    /// The query's results as of `time`, which the store must still keep.
    pub(in crate::firestore) fn run(&self, store: &Store, time: Time) -> Results {
        let needed = self.limit.map(|limit| limit.saturating_add(self.offset));
        if self.limit == Some(0) {
            return Results::default();
        }
        let mut found = Found {
            plan: self,
            matches: Vec::new(),
            enough: None,
        };
        match self.scope.single() {
            Some(path) => {
                if let Some(collection) = store.collection(&path) {
                    self.search(collection, time, needed, &mut found);
                }
            }
            None => {
                for (_, collection) in store.collections(&self.scope) {
                    let _ = collection
                        .iter(time)
                        .try_for_each(|document| found.offer(document));
                }
            }
        }
        let mut matches = found.matches;
        if let Some(needed) = needed
            && matches.len() > needed
        {
            matches.select_nth_unstable_by(needed, |a, b| a.0.cmp(&b.0));
            matches.truncate(needed);
        }
        matches.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let skipped = self.offset.min(matches.len());
        Results {
            skipped,
            documents: matches
                .into_iter()
                .skip(skipped)
                .map(|(_, document)| document)
                .collect(),
        }
    }

    fn search(
        &self,
        collection: &Collection,
        time: Time,
        needed: Option<usize>,
        found: &mut Found<'_>,
    ) {
        let indexed = collection.len() > SMALL && collection.indexes_tell(time);
        let ordered = self.ordered_access();
        if indexed && let Some(access) = self.equality_access() {
            let most = ordered.as_ref().map_or(usize::MAX, |_| SELECTIVE);
            let mut candidates = Vec::new();
            collection.visit(&self.database, &access, |document| {
                candidates.push(document.clone());
                if candidates.len() > most {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            if candidates.len() <= most {
                let _ = candidates
                    .iter()
                    .try_for_each(|document| found.offer(document));
                return;
            }
        }
        if indexed && let Some((access, in_order)) = ordered {
            found.enough = needed.filter(|_| in_order);
            collection.visit(&self.database, &access, |document| found.offer(document));
            return;
        }
        let by_name = self.orders[0].field.is_name();
        found.enough = needed.filter(|_| by_name);
        let _ = if by_name && self.orders[0].descending {
            collection
                .iter(time)
                .rev()
                .try_for_each(|document| found.offer(document))
        } else {
            collection
                .iter(time)
                .try_for_each(|document| found.offer(document))
        };
    }

    fn required_tests(&self) -> Vec<(&FieldPath, &Test)> {
        self.filter
            .as_ref()
            .map(Filter::required)
            .unwrap_or_default()
    }

    /// An index range that holds every match, by a field that must have one value.
    fn equality_access(&self) -> Option<Access> {
        self.required_tests()
            .into_iter()
            .find_map(|(field, test)| match test {
                Test::Equal(key) => Some(Access {
                    field: field.clone(),
                    lower: Bound::Included(key.clone()),
                    upper: Bound::Excluded(after(key)),
                    descending: false,
                }),
                _ => None,
            })
    }

    /// An index range that holds every match, by the first field of the order, and whether it is in
    /// the results' order. None where reading the collection by name does as well.
    fn ordered_access(&self) -> Option<(Access, bool)> {
        let first = &self.orders[0];
        let (mut lower, mut upper) = (None::<Vec<u8>>, None::<Vec<u8>>);
        let mut at_least = |key: Vec<u8>| {
            if lower.as_ref().is_none_or(|lower| *lower < key) {
                lower = Some(key);
            }
        };
        let mut below = |key: Vec<u8>| {
            if upper.as_ref().is_none_or(|upper| *upper > key) {
                upper = Some(key);
            }
        };
        for (field, test) in self.required_tests() {
            if *field != first.field {
                continue;
            }
            match test {
                Test::Less { than, or_equal } => {
                    at_least(than[..1].to_vec());
                    below(if *or_equal { after(than) } else { than.clone() });
                }
                Test::Greater { than, or_equal } => {
                    at_least(if *or_equal { than.clone() } else { after(than) });
                    below(after(&than[..1]));
                }
                _ => {}
            }
        }
        let (start, end) = if first.descending {
            (&self.end, &self.start)
        } else {
            (&self.start, &self.end)
        };
        if let Some(key) = start.as_ref().and_then(|edge| edge.first.clone()) {
            at_least(key);
        }
        if let Some(key) = end.as_ref().and_then(|edge| edge.first.as_ref()) {
            below(after(key));
        }
        if first.field.is_name() && lower.is_none() && upper.is_none() {
            return None;
        }
        let in_order = match &self.orders[..] {
            [only] => only.field.is_name(),
            [first, second] => second.field.is_name() && first.descending == second.descending,
            _ => false,
        };
        let access = Access {
            field: first.field.clone(),
            lower: lower.map_or(Bound::Unbounded, Bound::Included),
            upper: upper.map_or(Bound::Unbounded, Bound::Excluded),
            descending: first.descending,
        };
        Some((access, in_order))
    }
}

/// Above every key that starts with this one, and below the next.
fn after(key: &[u8]) -> Vec<u8> {
    let mut after = key.to_vec();
    after.push(0xff);
    after
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::firestore::{
        arbitrary::{apply, commits, database, query},
        path::DocumentPath,
    };

    /// Looks at everything and sorts it.
    fn plainly(plan: &Plan, store: &Store, time: Time) -> Vec<DocumentPath> {
        let mut matches: Vec<_> = store
            .iter(time)
            .filter_map(|document| Some((plan.sort_key(document)?, document.path.clone())))
            .collect();
        matches.sort();
        matches
            .into_iter()
            .map(|(_, path)| path)
            .skip(plan.offset)
            .take(plan.limit.unwrap_or(usize::MAX))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn indexes_find_what_a_plain_look_at_everything_finds(
            commits in commits(4),
            queries in proptest::collection::vec(query(), 1..8),
        ) {
            let plans: Vec<_> = queries
                .into_iter()
                .map(|query| Plan::parse(&database(), Vec::new(), query).expect("a valid query"))
                .collect();
            let mut store = Store::new();
            let times = (1..=commits.len()).map(|n| Time::from_micros(n as i64));
            for (changes, time) in commits.iter().zip(times.clone()) {
                apply(&mut store, changes, time);
                // Now, when indexes serve, and as of the past, when versions do.
                for (plan, then) in plans.iter().flat_map(|plan| times.clone().map(move |t| (plan, t))) {
                    let found: Vec<_> = plan
                        .run(&store, then)
                        .documents
                        .iter()
                        .map(|document| document.path.clone())
                        .collect();
                    prop_assert_eq!(found, plainly(plan, &store, then));
                }
            }
        }
    }
}
