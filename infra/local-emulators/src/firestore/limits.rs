//! Google's documented limits.

use std::time::Duration;

/// A document, by [`super::value::document_size`].
pub(super) const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// One string or bytes value: a document less 89 bytes.
pub(super) const MAX_VALUE_BYTES: usize = 1024 * 1024 - 89;
/// Maps and arrays inside one another.
pub(super) const MAX_DEPTH: usize = 20;
pub(super) const MAX_FIELD_NAME_BYTES: usize = 1_500;
pub(super) const MAX_ID_BYTES: usize = 1_500;
pub(super) const MAX_NAME_BYTES: usize = 6 * 1024;
/// Collections inside one another: 100.
pub(super) const MAX_PATH_SEGMENTS: usize = 200;
pub(super) const MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;
/// Field transforms on one document in one commit.
pub(super) const MAX_TRANSFORMS: usize = 500;
/// Writes in one batch that is not atomic.
pub(super) const MAX_BATCH_WRITES: usize = 500;
/// Alternatives of a query in disjunctive normal form; also the values of `IN`.
pub(super) const MAX_DISJUNCTIONS: usize = 30;
pub(super) const MAX_NOT_IN_VALUES: usize = 10;
pub(super) const MAX_AGGREGATIONS: usize = 5;
pub(super) const MAX_FILTERS_AND_ORDERS: usize = 100;

/// How long a transaction may last, and how long it may do nothing.
pub(super) const TRANSACTION_LIFETIME: Duration = Duration::from_secs(270);
pub(super) const TRANSACTION_IDLE: Duration = Duration::from_secs(60);

/// Names of the form `__.*__` are Google's own.
pub(super) fn is_reserved(name: &str) -> bool {
    name.len() >= 4 && name.starts_with("__") && name.ends_with("__")
}
