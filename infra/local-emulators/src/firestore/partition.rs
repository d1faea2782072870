//! Cutting a query into parts of about the same size, to be run side by side.

use super::{
    document::Version,
    path::DatabaseName,
    proto::v1::{Cursor, Value, value::ValueType},
};

/// At most `count` cursors between the documents, which are in the query's order by name.
pub(super) fn cursors(database: &DatabaseName, documents: &[Version], count: usize) -> Vec<Cursor> {
    let parts = count.saturating_add(1).min(documents.len());
    (1..parts)
        .filter_map(|part| documents.get(part * documents.len() / parts))
        .map(|document| Cursor {
            values: vec![Value {
                value_type: Some(ValueType::ReferenceValue(document.path.name(database))),
            }],
            before: true,
        })
        .collect()
}
