//! Documents and their past versions, in collections.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Bound, ControlFlow},
};

use super::{
    document::Version,
    index::Indexes,
    path::{DatabaseName, DocumentPath, Id, Path},
    time::Time,
};

/// All documents of a database.
#[derive(Debug)]
pub(super) struct Store {
    collections: BTreeMap<Path, Collection>,
    /// The collections that share an id.
    groups: BTreeMap<Id, BTreeSet<Path>>,
    /// Every change whose predecessor may still be kept, oldest first.
    log: VecDeque<(Time, DocumentPath)>,
    /// Before this, past versions may be gone.
    horizon: Time,
    last_commit: Time,
}

/// One collection: its documents by id.
#[derive(Debug)]
pub(super) struct Collection {
    documents: BTreeMap<Id, Versions>,
    last_change: Time,
    indexes: Indexes,
}

/// A document's versions, oldest first; a deletion is a version without a document.
#[derive(Debug, Default)]
struct Versions(VecDeque<(Time, Option<Version>)>);

impl Versions {
    fn at(&self, time: Time) -> Option<&Version> {
        let after = self.0.partition_point(|(since, _)| *since <= time);
        let (_, version) = self.0.get(after.checked_sub(1)?)?;
        version.as_ref()
    }

    fn latest(&self) -> Option<&Version> {
        self.0.back().and_then(|(_, version)| version.as_ref())
    }
}

/// Which collections a query reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// The document the collections are below; empty for the root.
    pub(super) parent: Path,
    /// The collections' id; none for any.
    pub(super) collection: Option<Id>,
    /// Whether collections further down count too.
    pub(super) all_descendants: bool,
}

impl Scope {
    /// Whether the scope is one collection, and which.
    pub(super) fn single(&self) -> Option<Path> {
        match &self.collection {
            Some(id) if !self.all_descendants => {
                Some(self.parent.iter().chain([id]).cloned().collect())
            }
            _ => None,
        }
    }

    pub(super) fn contains(&self, collection: &[Id]) -> bool {
        collection.starts_with(&self.parent)
            && (self.all_descendants || collection.len() == self.parent.len() + 1)
            && self
                .collection
                .as_ref()
                .is_none_or(|id| collection.last() == Some(id))
    }
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            collections: BTreeMap::new(),
            groups: BTreeMap::new(),
            log: VecDeque::new(),
            horizon: Time::MIN,
            last_commit: Time::MIN,
        }
    }

    pub(super) fn latest(&self, path: &DocumentPath) -> Option<&Version> {
        self.versions(path)?.latest()
    }

    pub(super) fn at(&self, path: &DocumentPath, time: Time) -> Option<&Version> {
        self.versions(path)?.at(time)
    }

    fn versions(&self, path: &DocumentPath) -> Option<&Versions> {
        self.collections
            .get(path.collection())?
            .documents
            .get(path.id())
    }

    /// When the document last changed, deletion included; none if never, as far as is kept.
    pub(super) fn last_change(&self, path: &DocumentPath) -> Option<Time> {
        self.versions(path)?.0.back().map(|(since, _)| *since)
    }

    pub(super) fn last_commit(&self) -> Time {
        self.last_commit
    }

    /// Reads before this time may not find what was there.
    pub(super) fn horizon(&self) -> Time {
        self.horizon
    }

    /// Puts a version, or a deletion, that every reader from `time` on sees.
    pub(super) fn put(
        &mut self,
        database: &DatabaseName,
        path: &DocumentPath,
        version: Option<Version>,
        time: Time,
    ) {
        let collection = match self.collections.get_mut(path.collection()) {
            Some(collection) => collection,
            None => {
                let name = path.collection().to_vec();
                if let Some(id) = name.last() {
                    self.groups
                        .entry(id.clone())
                        .or_default()
                        .insert(name.clone());
                }
                self.collections.entry(name).or_insert_with(|| Collection {
                    documents: BTreeMap::new(),
                    last_change: time,
                    indexes: Indexes::default(),
                })
            }
        };
        let versions = collection.documents.entry(path.id().clone()).or_default();
        collection
            .indexes
            .replace(database, versions.latest(), version.as_ref());
        let logged = !versions.0.is_empty() || version.is_none();
        versions.0.push_back((time, version));
        collection.last_change = time;
        self.last_commit = time;
        if logged {
            self.log.push_back((time, path.clone()));
        }
    }

    /// Forgets versions that no read at `horizon` or later sees, and what is beyond `capacity`.
    pub(super) fn prune(&mut self, horizon: Time, capacity: usize) {
        while let Some((time, _)) = self.log.front() {
            if *time > horizon && self.log.len() <= capacity {
                break;
            }
            let Some((time, path)) = self.log.pop_front() else {
                break;
            };
            self.horizon = self.horizon.max(time);
            self.forget_before(&path, time);
        }
    }

    /// Drops the versions of a document that were replaced at `time` or earlier.
    fn forget_before(&mut self, path: &DocumentPath, time: Time) {
        let Some(collection) = self.collections.get_mut(path.collection()) else {
            return;
        };
        let Some(versions) = collection.documents.get_mut(path.id()) else {
            return;
        };
        let newer = versions.0.partition_point(|(since, _)| *since <= time);
        versions.0.drain(..newer.saturating_sub(1));
        if versions.0.len() == 1 && versions.latest().is_none() {
            collection.documents.remove(path.id());
        }
        if collection.documents.is_empty() {
            self.collections.remove(path.collection());
            if let Some(id) = path.collection().last()
                && let Some(group) = self.groups.get_mut(id)
            {
                group.remove(path.collection());
                if group.is_empty() {
                    self.groups.remove(id);
                }
            }
        }
    }

    pub(super) fn collection(&self, path: &[Id]) -> Option<&Collection> {
        self.collections.get(path)
    }

    /// The collections of a scope that ever had documents, as far as is kept.
    pub(super) fn collections<'a>(
        &'a self,
        scope: &'a Scope,
    ) -> Box<dyn Iterator<Item = (&'a Path, &'a Collection)> + 'a> {
        if let Some(path) = scope.single() {
            return Box::new(self.collections.get_key_value(&path).into_iter());
        }
        let Some(id) = &scope.collection else {
            return Box::new(
                self.below(&scope.parent)
                    .filter(|(path, _)| scope.contains(path)),
            );
        };
        Box::new(
            self.groups
                .get(id)
                .into_iter()
                .flatten()
                .filter(|path| scope.contains(path))
                .filter_map(|path| self.collections.get_key_value(path)),
        )
    }

    /// The collections below a document, at any depth.
    pub(super) fn below<'a>(
        &'a self,
        parent: &'a [Id],
    ) -> impl Iterator<Item = (&'a Path, &'a Collection)> + 'a {
        self.collections
            .range::<[Id], _>((Bound::Included(parent), Bound::Unbounded))
            .take_while(|(path, _)| path.starts_with(parent))
    }

    /// The ids of the collections directly below a document that have documents at or below them.
    pub(super) fn collection_ids(&self, parent: &[Id], time: Time) -> BTreeSet<Id> {
        let mut ids = BTreeSet::new();
        for (path, collection) in self.below(parent) {
            if let Some(id) = path.get(parent.len())
                && !ids.contains(id)
                && collection.iter(time).next().is_some()
            {
                ids.insert(id.clone());
            }
        }
        ids
    }

    /// Ids in a collection that have documents below them, whether they exist themselves or not.
    pub(super) fn ids_with_descendants(&self, collection: &[Id], time: Time) -> BTreeSet<Id> {
        let mut ids = BTreeSet::new();
        for (path, below) in self.below(collection) {
            if let Some(id) = path.get(collection.len())
                && !ids.contains(id)
                && below.iter(time).next().is_some()
            {
                ids.insert(id.clone());
            }
        }
        ids
    }

    /// Every document as of `time`.
    pub(super) fn iter(&self, time: Time) -> impl Iterator<Item = &Version> {
        self.collections
            .values()
            .flat_map(move |collection| collection.iter(time))
    }
}

impl Collection {
    /// The documents as of `time`, by id.
    pub(super) fn iter(&self, time: Time) -> impl DoubleEndedIterator<Item = &Version> {
        self.documents
            .values()
            .filter_map(move |versions| versions.at(time))
    }

    /// The documents as of `time` whose ids are in the range, by id.
    pub(super) fn range(
        &self,
        range: (Bound<&Id>, Bound<&Id>),
        time: Time,
    ) -> impl DoubleEndedIterator<Item = &Version> {
        self.documents
            .range::<Id, _>(range)
            .filter_map(move |(_, versions)| versions.at(time))
    }

    /// How many documents there are or were.
    pub(super) fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether the indexes tell the state as of `time`.
    pub(super) fn indexes_tell(&self, time: Time) -> bool {
        self.last_change <= time
    }

    /// Visits the documents as they are now that have the field, by its value and then by name.
    pub(super) fn visit(
        &self,
        database: &DatabaseName,
        access: &super::index::Access,
        visit: impl FnMut(&Version) -> ControlFlow<()>,
    ) {
        let documents = || self.documents.values().filter_map(Versions::latest);
        self.indexes.visit(database, access, documents, visit);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::firestore::{document::Document, field_path::Fields};

    fn database() -> DatabaseName {
        DatabaseName::parse("projects/p/databases/d").expect("valid name")
    }

    fn path(text: &str) -> DocumentPath {
        let name = format!("{}/documents/{text}", database());
        DocumentPath::parse(&name).expect("valid name").1
    }

    fn id(text: &str) -> Id {
        Id::parse(text).expect("valid id")
    }

    fn put(store: &mut Store, at: &str, time: i64, exists: bool) {
        let time = Time::from_micros(time);
        let version = exists.then(|| {
            Arc::new(Document {
                path: path(at),
                fields: Fields::new(),
                create_time: time,
                update_time: time,
            })
        });
        store.put(&database(), &path(at), version, time);
    }

    #[test]
    fn past_versions_stay_until_the_horizon_passes_them() {
        let mut store = Store::new();
        put(&mut store, "a/1", 10, true);
        put(&mut store, "a/1", 20, true);
        put(&mut store, "a/1", 30, false);
        let seen = |store: &Store, at: i64| {
            store
                .at(&path("a/1"), Time::from_micros(at))
                .map(|doc| doc.update_time.micros())
        };
        assert_eq!(
            [5, 10, 19, 20, 29, 30].map(|at| seen(&store, at)),
            [None, Some(10), Some(10), Some(20), Some(20), None]
        );
        store.prune(Time::from_micros(25), 100);
        assert_eq!(
            [20, 29, 30].map(|at| seen(&store, at)),
            [Some(20), Some(20), None]
        );
        store.prune(Time::from_micros(30), 100);
        assert!(store.collections.is_empty(), "nothing is left of it");
    }

    #[test]
    fn versions_beyond_the_capacity_go_and_the_horizon_says_so() {
        let mut store = Store::new();
        for time in 1..=10 {
            put(&mut store, "a/1", time, true);
        }
        store.prune(Time::MIN, 3);
        assert_eq!(store.log.len(), 3);
        assert_eq!(store.horizon(), Time::from_micros(7));
        assert!(store.at(&path("a/1"), Time::from_micros(7)).is_some());
        assert!(store.at(&path("a/1"), Time::from_micros(6)).is_none());
    }

    #[test]
    fn collections_are_found_by_scope() {
        let mut store = Store::new();
        for (i, at) in ["a/1", "a/1/b/1", "a/2/b/1", "b/1", "b/1/c/1/b/1"]
            .into_iter()
            .enumerate()
        {
            put(&mut store, at, i as i64, true);
        }
        let count = |parent: &[&str], collection: Option<&str>, all_descendants| {
            let scope = Scope {
                parent: parent.iter().map(|segment| id(segment)).collect(),
                collection: collection.map(id),
                all_descendants,
            };
            store.collections(&scope).count()
        };
        assert_eq!(count(&[], Some("b"), false), 1);
        assert_eq!(count(&[], Some("b"), true), 4);
        assert_eq!(count(&["a", "1"], Some("b"), true), 1);
        assert_eq!(count(&[], None, true), 5);
        assert_eq!(count(&["a", "1"], None, false), 1);
        let now = Time::from_micros(100);
        assert_eq!(
            store.collection_ids(&[], now),
            BTreeSet::from([id("a"), id("b")])
        );
        assert_eq!(
            store.ids_with_descendants(&[id("a")], now),
            BTreeSet::from([id("1"), id("2")])
        );
    }
}
