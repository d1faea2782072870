//! Indexes over one field of one collection's current documents, made when a query first needs them.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{Bound, ControlFlow},
    sync::{PoisonError, RwLock},
};

use super::{document::Version, field_path::FieldPath, path::DatabaseName};

type Entries = BTreeMap<Vec<u8>, Version>;

/// The indexes of a collection, by field.
#[derive(Debug, Default)]
pub(super) struct Indexes(RwLock<HashMap<FieldPath, Entries>>);

/// A range of one index, and the direction to read it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) field: FieldPath,
    pub(super) lower: Bound<Vec<u8>>,
    pub(super) upper: Bound<Vec<u8>>,
    pub(super) descending: bool,
}

impl Indexes {
    /// Takes over a change of one document.
    pub(super) fn replace(
        &mut self,
        database: &DatabaseName,
        old: Option<&Version>,
        new: Option<&Version>,
    ) {
        let indexes = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (field, entries) in indexes {
            if let Some(key) = old.and_then(|old| entry_key(database, field, old)) {
                entries.remove(&key);
            }
            if let Some(new) = new
                && let Some(key) = entry_key(database, field, new)
            {
                entries.insert(key, new.clone());
            }
        }
    }

    /// Visits the documents in the range, until told to stop.
    pub(super) fn visit<'a, I>(
        &self,
        database: &DatabaseName,
        access: &Access,
        documents: impl FnOnce() -> I,
        mut visit: impl FnMut(&Version) -> ControlFlow<()>,
    ) where
        I: Iterator<Item = &'a Version>,
    {
        if is_empty(&access.lower, &access.upper) {
            return;
        }
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let indexes = if known.contains_key(&access.field) {
            known
        } else {
            drop(known);
            let mut made = self.0.write().unwrap_or_else(PoisonError::into_inner);
            made.entry(access.field.clone()).or_insert_with(|| {
                documents()
                    .filter_map(|doc| Some((entry_key(database, &access.field, doc)?, doc.clone())))
                    .collect()
            });
            drop(made);
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        };
        let Some(entries) = indexes.get(&access.field) else {
            return;
        };
        let mut range = entries.range((access.lower.clone(), access.upper.clone()));
        while let Some((_, document)) = if access.descending {
            range.next_back()
        } else {
            range.next()
        } {
            if visit(document).is_break() {
                return;
            }
        }
    }
}

fn entry_key(database: &DatabaseName, field: &FieldPath, document: &Version) -> Option<Vec<u8>> {
    let mut key = document.key(database, field)?;
    super::order::push_name(&mut key, database, &document.path);
    Some(key)
}

/// Whether no key is between the bounds.
fn is_empty(lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> bool {
    match (lower, upper) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
        _ => false,
    }
}
