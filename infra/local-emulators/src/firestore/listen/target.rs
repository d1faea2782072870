//! What one target of a listener selects, and how commits change it.

use std::collections::{BTreeMap, BTreeSet};

use super::token;
use crate::firestore::{
    database::Commit,
    document::Version,
    error::{Error, Result},
    field_path::FieldPath,
    path::{DatabaseName, DocumentPath, parse_parent},
    proto::v1::{self, target},
    query::Plan,
    store::Store,
    time::Time,
};

/// One target: documents by name or by query, and which of them the client knows.
#[derive(Debug)]
pub(super) struct Target {
    selection: Selection,
    known: BTreeMap<DocumentPath, Time>,
    /// Where the client wants to go on.
    pub(super) resume: Option<Time>,
    /// Whether it ends once it is current.
    pub(super) once: bool,
}

#[derive(Debug)]
enum Selection {
    Documents(BTreeSet<DocumentPath>),
    Query(Box<Plan>),
}

/// What a target's client must be told of one document.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// It is among the results, and is new or has changed.
    Set(Version),
    /// It exists, but is no result any more.
    Left,
    /// It doesn't exist.
    Deleted,
}

pub(super) type Changes = BTreeMap<DocumentPath, Change>;

impl Target {
    pub(super) fn parse(database: &DatabaseName, target: v1::Target) -> Result<Self> {
        let selection = match target.target_type {
            Some(target::TargetType::Documents(documents)) => Selection::Documents(
                documents
                    .documents
                    .iter()
                    .map(|name| DocumentPath::parse_in(database, name))
                    .collect::<Result<_>>()?,
            ),
            Some(target::TargetType::Query(query)) => {
                let Some(target::query_target::QueryType::StructuredQuery(structured)) =
                    query.query_type
                else {
                    return Err(Error::invalid("Query is not set."));
                };
                let (found, parent) = parse_parent(&query.parent)?;
                if found != *database {
                    return Err(Error::invalid(format!(
                        "Parent \"{}\" is not in the stream's database \"{database}\".",
                        query.parent
                    )));
                }
                Selection::Query(Box::new(Plan::parse(database, parent, structured)?))
            }
            None => return Err(Error::invalid("Target has no type.")),
        };
        let resume = match target.resume_type {
            None => None,
            Some(target::ResumeType::ResumeToken(bytes)) if bytes.is_empty() => None,
            Some(target::ResumeType::ResumeToken(bytes)) => Some(token::decode(&bytes)?),
            Some(target::ResumeType::ReadTime(time)) => Some(time.try_into()?),
        };
        Ok(Self {
            selection,
            known: BTreeMap::new(),
            resume,
            once: target.once,
        })
    }

    /// The fields the client is sent; none for all.
    pub(super) fn projection(&self) -> Option<&[FieldPath]> {
        match &self.selection {
            Selection::Documents(_) => None,
            Selection::Query(plan) => plan.projection.as_deref(),
        }
    }

    /// How many documents are selected.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    fn select(&self, store: &Store, time: Time) -> Vec<Version> {
        match &self.selection {
            Selection::Documents(paths) => paths
                .iter()
                .filter_map(|path| store.at(path, time).cloned())
                .collect(),
            Selection::Query(plan) => plan.run(store, time).documents,
        }
    }

    /// Takes the past state that the client already has.
    pub(super) fn recall(&mut self, store: &Store, time: Time) {
        self.known = self
            .select(store, time)
            .into_iter()
            .map(|document| (document.path.clone(), document.update_time))
            .collect();
    }

    /// Everything the client must be told to be as of `time`.
    pub(super) fn refresh(&mut self, store: &Store, time: Time) -> Changes {
        let mut gone = std::mem::take(&mut self.known);
        let mut changes = Changes::new();
        for document in self.select(store, time) {
            let path = document.path.clone();
            self.known.insert(path.clone(), document.update_time);
            if gone.remove(&path) != Some(document.update_time) {
                changes.insert(path, Change::Set(document));
            }
        }
        for path in gone.into_keys() {
            let change = match store.at(&path, time) {
                Some(_) => Change::Left,
                None => Change::Deleted,
            };
            changes.insert(path, change);
        }
        changes
    }

    /// The documents asked for by name that don't exist: a client that starts is told so.
    pub(super) fn missing(&self) -> Vec<DocumentPath> {
        match &self.selection {
            Selection::Documents(paths) => paths
                .iter()
                .filter(|path| !self.known.contains_key(path))
                .cloned()
                .collect(),
            Selection::Query(_) => Vec::new(),
        }
    }

    /// Whether what a commit does to this target can only be told by running the query again: a
    /// document that comes or goes moves others over the limit.
    pub(super) fn must_rerun(&self, commit: &Commit) -> bool {
        let Selection::Query(plan) = &self.selection else {
            return false;
        };
        plan.is_bounded()
            && commit.changes.iter().any(|(path, version)| {
                // One among those skipped is unknown, and still moves the others when it goes.
                (plan.has_offset() && plan.scope.contains(path.collection()))
                    || self.known.contains_key(path)
                    || version.as_ref().is_some_and(|new| plan.matches(new))
            })
    }

    /// What the commit changes for a target that need not run again.
    pub(super) fn follow(&mut self, commit: &Commit) -> Changes {
        let mut changes = Changes::new();
        for (path, version) in &commit.changes {
            let selected = match &self.selection {
                Selection::Documents(paths) => paths.contains(path),
                Selection::Query(plan) if plan.is_bounded() => false,
                Selection::Query(plan) => version.as_ref().is_some_and(|new| plan.matches(new)),
            };
            match version {
                Some(new) if selected => {
                    self.known.insert(path.clone(), new.update_time);
                    changes.insert(path.clone(), Change::Set(new.clone()));
                }
                _ => {
                    if self.known.remove(path).is_some() {
                        let change = match version {
                            Some(_) => Change::Left,
                            None => Change::Deleted,
                        };
                        changes.insert(path.clone(), change);
                    }
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::firestore::arbitrary::{apply, commits, database, query};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_target_that_follows_every_commit_has_what_a_query_finds(
            commits in commits(6),
            query in query(),
        ) {
            let plan = Plan::parse(&database(), Vec::new(), query).expect("a valid query");
            let mut target = Target {
                selection: Selection::Query(Box::new(plan.clone())),
                known: BTreeMap::new(),
                resume: None,
                once: false,
            };
            let mut client = BTreeMap::new();
            let mut store = Store::new();
            for (changes, number) in commits.iter().zip(1..) {
                let time = Time::from_micros(number);
                let commit = Commit {
                    time,
                    changes: apply(&mut store, changes, time),
                };
                let told = if target.must_rerun(&commit) {
                    target.refresh(&store, time)
                } else {
                    target.follow(&commit)
                };
                for (path, change) in told {
                    match change {
                        Change::Set(document) => client.insert(path, document.update_time),
                        Change::Left | Change::Deleted => client.remove(&path),
                    };
                }
                let found: BTreeMap<_, _> = plan
                    .run(&store, time)
                    .documents
                    .iter()
                    .map(|document| (document.path.clone(), document.update_time))
                    .collect();
                prop_assert_eq!(&client, &found);
            }
        }
    }
}
