//! One version of a document.

use std::sync::Arc;

use super::{
    error::Result,
    field_path::{FieldPath, Fields},
    order,
    path::{DatabaseName, DocumentPath},
    proto::v1,
    time::Time,
};

/// A document as it was from its `update_time` on. Never changed: a write makes another.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) path: DocumentPath,
    pub(super) fields: Fields,
    pub(super) create_time: Time,
    pub(super) update_time: Time,
}

pub(super) type Version = Arc<Document>;

impl Document {
    /// As a response carries it, with the fields of `mask` only.
    pub(super) fn to_proto(
        &self,
        database: &DatabaseName,
        mask: Option<&[FieldPath]>,
    ) -> v1::Document {
        v1::Document {
            name: self.path.name(database),
            fields: match mask {
                None => self.fields.clone(),
                Some(mask) => project(&self.fields, mask),
            },
            create_time: Some(self.create_time.into()),
            update_time: Some(self.update_time.into()),
        }
    }

    /// The key by which a query sorts and compares the field; none if the document lacks it.
    pub(super) fn key(&self, database: &DatabaseName, field: &FieldPath) -> Option<Vec<u8>> {
        if field.is_name() {
            let mut key = Vec::with_capacity(64);
            order::push_name(&mut key, database, &self.path);
            return Some(key);
        }
        field.get(&self.fields).map(order::key)
    }
}

/// Reads a mask; none means everything.
pub(super) fn parse_mask(mask: Option<v1::DocumentMask>) -> Result<Option<Vec<FieldPath>>> {
    mask.map(|mask| {
        mask.field_paths
            .iter()
            .map(|path| FieldPath::parse(path))
            .collect()
    })
    .transpose()
}

fn project(fields: &Fields, mask: &[FieldPath]) -> Fields {
    let mut projected = Fields::new();
    for path in mask {
        if let Some(value) = path.get(fields) {
            path.set(&mut projected, value.clone());
        }
    }
    projected
}
