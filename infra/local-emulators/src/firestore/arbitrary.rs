//! Arbitrary commits and queries, for tests that compare a quick way with the plain one.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    document::{Document, Version},
    field_path::Fields,
    path::{DatabaseName, DocumentPath},
    proto::v1::{
        ArrayValue, Cursor, StructuredQuery, Value,
        structured_query::{
            CollectionSelector, CompositeFilter, FieldFilter, FieldReference, Filter, Order,
            composite_filter, field_filter::Operator, filter::FilterType,
        },
        value::ValueType,
    },
    store::Store,
    time::Time,
};

/// Documents that exist or don't: more than are read without an index.
const IDS: u32 = 80;

pub(super) fn database() -> DatabaseName {
    DatabaseName {
        project: "p".to_owned(),
        database: "d".to_owned(),
    }
}

fn path(id: u32) -> DocumentPath {
    let name = format!("{}/documents/c/{id:02}", database());
    DocumentPath::parse(&name).expect("valid name").1
}

/// Commits of several changes, each of another document; without fields it goes.
pub(super) fn commits(many: usize) -> impl Strategy<Value = Vec<Vec<(u32, Option<Fields>)>>> {
    let fields = proptest::option::weighted(
        0.8,
        (
            proptest::option::weighted(0.9, value()),
            proptest::option::weighted(0.9, value()),
        )
            .prop_map(|(a, b)| {
                [("a", a), ("b", b)]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                    .collect()
            }),
    );
    let changes = proptest::collection::btree_map(0..IDS, fields, 1..IDS as usize)
        .prop_map(|changes| changes.into_iter().collect());
    proptest::collection::vec(changes, 1..=many)
}

/// Applies one commit at a time of its own.
pub(super) fn apply(
    store: &mut Store,
    changes: &[(u32, Option<Fields>)],
    time: Time,
) -> Vec<(DocumentPath, Option<Version>)> {
    changes
        .iter()
        .map(|(id, fields)| {
            let path = path(*id);
            let version = fields.clone().map(|fields| {
                Arc::new(Document {
                    path: path.clone(),
                    fields,
                    create_time: time,
                    update_time: time,
                })
            });
            store.put(&database(), &path, version.clone(), time);
            (path, version)
        })
        .collect()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0..6_i64).prop_map(ValueType::IntegerValue),
        1 => (0..6_i32).prop_map(|n| ValueType::DoubleValue(f64::from(n) / 2.0)),
        1 => Just(ValueType::DoubleValue(f64::NAN)),
        1 => Just(ValueType::NullValue(0)),
        2 => "[ab]{0,2}".prop_map(ValueType::StringValue),
        1 => (0..3_i64).prop_map(|n| ValueType::ArrayValue(ArrayValue {
            values: vec![Value { value_type: Some(ValueType::IntegerValue(n)) }],
        })),
    ]
    .prop_map(|value| Value {
        value_type: Some(value),
    })
}

fn reference() -> impl Strategy<Value = Value> {
    (0..IDS).prop_map(|id| Value {
        value_type: Some(ValueType::ReferenceValue(path(id).name(&database()))),
    })
}

fn field(name: &str) -> Option<FieldReference> {
    Some(FieldReference {
        field_path: name.to_owned(),
    })
}

fn condition() -> impl Strategy<Value = Filter> {
    let operator = prop_oneof![
        Just(Operator::Equal),
        Just(Operator::NotEqual),
        Just(Operator::LessThan),
        Just(Operator::LessThanOrEqual),
        Just(Operator::GreaterThan),
        Just(Operator::GreaterThanOrEqual),
    ];
    let operand = prop_oneof![
        4 => ("[ab]", value()),
        1 => (Just("__name__".to_owned()), reference()),
    ];
    (operator, operand).prop_map(|(op, (name, value))| Filter {
        filter_type: Some(FilterType::FieldFilter(FieldFilter {
            field: field(&name),
            op: op as i32,
            value: Some(value),
        })),
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let combine = |op: composite_filter::Operator, most| {
        proptest::collection::vec(condition(), 1..=most).prop_map(move |filters| Filter {
            filter_type: Some(FilterType::CompositeFilter(CompositeFilter {
                op: op as i32,
                filters,
            })),
        })
    };
    prop_oneof![
        condition(),
        combine(composite_filter::Operator::And, 3),
        combine(composite_filter::Operator::Or, 2),
    ]
}

/// Valid queries of the collection that [`commits`] fill.
pub(super) fn query() -> impl Strategy<Value = StructuredQuery> {
    let orders = prop_oneof![
        Just(vec![]),
        Just(vec!["a"]),
        Just(vec!["b"]),
        Just(vec!["a", "b"]),
        Just(vec!["__name__"]),
        Just(vec!["a", "__name__"]),
    ];
    let cursor = || {
        proptest::option::weighted(
            0.3,
            (
                proptest::collection::vec((value(), reference()), 1..3),
                any::<bool>(),
            ),
        )
    };
    (
        proptest::option::of(filter()),
        orders,
        proptest::collection::vec(1..=2_i32, 2),
        cursor(),
        cursor(),
        prop_oneof![2 => Just(0), 1 => 0..5_i32],
        proptest::option::of(0..20_i32),
    )
        .prop_map(|(filter, orders, directions, start, end, offset, limit)| {
            let cursor = |cursor: Option<(Vec<(Value, Value)>, bool)>| {
                let (values, before) = cursor?;
                let values = values
                    .into_iter()
                    .zip(&orders)
                    .map(|((value, reference), order)| match *order {
                        "__name__" => reference,
                        _ => value,
                    })
                    .collect();
                Some(Cursor { values, before })
            };
            StructuredQuery {
                from: vec![CollectionSelector {
                    collection_id: "c".to_owned(),
                    all_descendants: false,
                }],
                r#where: filter,
                start_at: cursor(start),
                end_at: cursor(end),
                order_by: orders
                    .iter()
                    .zip(directions)
                    .map(|(order, direction)| Order {
                        field: field(order),
                        direction,
                    })
                    .collect(),
                offset,
                limit,
                ..StructuredQuery::default()
            }
        })
}
