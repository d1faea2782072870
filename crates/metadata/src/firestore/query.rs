//! Queries, as few words as possible.

pub(super) use firestore::gcloud_sdk::google::firestore::v1::structured_query::{
    Direction as Sort, field_filter::Operator,
};
use firestore::{
    FirestoreValue,
    gcloud_sdk::google::firestore::v1::{
        Cursor, StructuredQuery, Value,
        structured_query::{
            CollectionSelector, CompositeFilter, FieldFilter, FieldReference, Filter, Order,
            Projection, composite_filter, filter::FilterType,
        },
        value::ValueType,
    },
};
use serde::Serialize;

/// The field that stands for a document's name.
pub(super) const NAME: &str = "__name__";

/// A query of one collection.
#[derive(Debug)]
pub(super) struct Query {
    query: StructuredQuery,
    filters: Vec<Filter>,
}

impl Query {
    pub(super) fn of(collection: &str) -> Self {
        Self {
            query: StructuredQuery {
                from: vec![CollectionSelector {
                    collection_id: collection.to_owned(),
                    all_descendants: false,
                }],
                ..StructuredQuery::default()
            },
            filters: Vec::new(),
        }
    }

    /// Only documents whose field is so; with several of these, all of them.
    pub(super) fn only(mut self, name: &str, op: Operator, value: impl Serialize) -> Self {
        let filter = FieldFilter {
            field: Some(field(name)),
            op: op.into(),
            value: Some(Into::<FirestoreValue>::into(value).value),
        };
        self.filters.push(Filter {
            filter_type: Some(FilterType::FieldFilter(filter)),
        });
        self
    }

    pub(super) fn sorted_by(mut self, name: &str, sort: Sort) -> Self {
        self.query.order_by.push(Order {
            field: Some(field(name)),
            direction: sort.into(),
        });
        self
    }

    /// From the document of that name on.
    pub(super) fn from(mut self, document: String) -> Self {
        self.query.start_at = Some(cursor(document, true));
        self
    }

    /// From the first document behind that name on.
    pub(super) fn behind(mut self, document: String) -> Self {
        self.query.start_at = Some(cursor(document, false));
        self
    }

    /// Up to the last document before that name.
    pub(super) fn until(mut self, document: String) -> Self {
        self.query.end_at = Some(cursor(document, true));
        self
    }

    /// Of each document this field alone.
    pub(super) fn select(mut self, name: &str) -> Self {
        self.query.select = Some(Projection {
            fields: vec![field(name)],
        });
        self
    }

    pub(super) fn limit(mut self, limit: usize) -> Self {
        self.query.limit = Some(i32::try_from(limit).unwrap_or(i32::MAX));
        self
    }
}

impl From<Query> for StructuredQuery {
    fn from(Query { mut query, filters }: Query) -> Self {
        if !filters.is_empty() {
            let all = CompositeFilter {
                op: composite_filter::Operator::And.into(),
                filters,
            };
            query.r#where = Some(Filter {
                filter_type: Some(FilterType::CompositeFilter(all)),
            });
        }
        query
    }
}

fn field(name: &str) -> FieldReference {
    FieldReference {
        field_path: name.to_owned(),
    }
}

fn cursor(document: String, before: bool) -> Cursor {
    Cursor {
        values: vec![Value {
            value_type: Some(ValueType::ReferenceValue(document)),
        }],
        before,
    }
}
