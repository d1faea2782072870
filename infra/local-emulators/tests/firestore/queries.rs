//! Queries, as the protocol has them.

use gcloud_sdk::google::firestore::v1::{
    self as api, ArrayValue, Cursor, StructuredQuery, Value, run_query_request,
    structured_query::{
        CollectionSelector, CompositeFilter, Direction, FieldFilter, FieldReference, Filter, Order,
        Projection, UnaryFilter, composite_filter, field_filter::Operator as Op,
        filter::FilterType, unary_filter,
    },
    value::ValueType,
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::support::{Raw, int, name, root, set, start, text, value, write};

pub(crate) fn field(path: &str) -> Option<FieldReference> {
    Some(FieldReference {
        field_path: path.to_owned(),
    })
}

pub(crate) fn test(path: &str, op: Op, value: Value) -> Filter {
    Filter {
        filter_type: Some(FilterType::FieldFilter(FieldFilter {
            field: field(path),
            op: op as i32,
            value: Some(value),
        })),
    }
}

fn combine(op: composite_filter::Operator, filters: Vec<Filter>) -> Filter {
    Filter {
        filter_type: Some(FilterType::CompositeFilter(CompositeFilter {
            op: op as i32,
            filters,
        })),
    }
}

fn and(filters: Vec<Filter>) -> Filter {
    combine(composite_filter::Operator::And, filters)
}

fn or(filters: Vec<Filter>) -> Filter {
    combine(composite_filter::Operator::Or, filters)
}

fn array(values: Vec<Value>) -> Value {
    value(ValueType::ArrayValue(ArrayValue { values }))
}

fn by(path: &str, direction: Direction) -> Order {
    Order {
        field: field(path),
        direction: direction as i32,
    }
}

pub(crate) fn from(collection: &str) -> StructuredQuery {
    StructuredQuery {
        from: vec![CollectionSelector {
            collection_id: collection.to_owned(),
            all_descendants: false,
        }],
        ..Default::default()
    }
}

fn only(filter: Filter) -> StructuredQuery {
    StructuredQuery {
        r#where: Some(filter),
        ..from("a")
    }
}

fn request(query: StructuredQuery) -> api::RunQueryRequest {
    api::RunQueryRequest {
        parent: root(),
        query_type: Some(run_query_request::QueryType::StructuredQuery(query)),
        ..Default::default()
    }
}

/// The ids found, in order.
async fn run(raw: &mut Raw, query: StructuredQuery) -> Result<Vec<String>, Status> {
    let mut responses = raw.run_query(request(query)).await?.into_inner();
    let mut ids = Vec::new();
    while let Some(response) = responses.next().await.transpose()? {
        if let Some(document) = response.document {
            ids.push(
                document
                    .name
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
    }
    Ok(ids)
}

async fn found(raw: &mut Raw, query: StructuredQuery) -> String {
    run(raw, query).await.expect("a valid query").join(" ")
}

#[tokio::test]
async fn equality_and_ranges_follow_the_documented_rules_on_types() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let double = |number| value(ValueType::DoubleValue(number));
    let null = || value(ValueType::NullValue(0));
    write(
        &mut raw,
        vec![
            set("a/absent", []),
            set("a/null", [("v", null())]),
            set("a/nan", [("v", double(f64::NAN))]),
            set("a/one", [("v", int(1))]),
            set("a/onefloat", [("v", double(1.0))]),
            set("a/two", [("v", int(2))]),
            set("a/text", [("v", text("x"))]),
            set("a/array", [("v", array(vec![int(1), null()]))]),
        ],
    )
    .await;
    for (filter, expected) in [
        (test("v", Op::Equal, int(1)), "one onefloat"),
        (test("v", Op::GreaterThan, int(1)), "two"),
        (test("v", Op::LessThanOrEqual, int(1)), "nan one onefloat"),
        (test("v", Op::GreaterThan, text("")), "text"),
        (test("v", Op::NotEqual, int(1)), "nan two text array"),
        (
            test("v", Op::NotEqual, null()),
            "nan one onefloat two text array",
        ),
        (test("v", Op::Equal, null()), "null"),
        (test("v", Op::LessThan, null()), ""),
        (
            test("v", Op::In, array(vec![int(1), text("x"), null()])),
            "one onefloat text",
        ),
        (
            test("v", Op::NotIn, array(vec![int(1), text("x")])),
            "nan two array",
        ),
        (test("v", Op::NotIn, array(vec![int(1), null()])), ""),
        (test("v", Op::ArrayContains, double(1.0)), "array"),
        (
            test("v", Op::ArrayContainsAny, array(vec![int(7), int(1)])),
            "array",
        ),
    ] {
        assert_eq!(
            found(&mut raw, only(filter.clone())).await,
            expected,
            "{filter:?}"
        );
    }
    for (op, expected) in [
        (unary_filter::Operator::IsNan, "nan"),
        (unary_filter::Operator::IsNull, "null"),
        (
            unary_filter::Operator::IsNotNan,
            "one onefloat two text array",
        ),
        (
            unary_filter::Operator::IsNotNull,
            "nan one onefloat two text array",
        ),
    ] {
        let filter = Filter {
            filter_type: Some(FilterType::UnaryFilter(UnaryFilter {
                op: op as i32,
                operand_type: Some(unary_filter::OperandType::Field(FieldReference {
                    field_path: "v".to_owned(),
                })),
            })),
        };
        assert_eq!(found(&mut raw, only(filter)).await, expected, "{op:?}");
    }
}

/// Enough documents for indexes to be used: `n` from 0 to 999, `half` 0 or 1, `rare` 0 in every 100th.
async fn fill(raw: &mut Raw) {
    let writes = (0..1_000)
        .map(|n| {
            set(
                &format!("a/{n:04}"),
                [("n", int(n)), ("half", int(n % 2)), ("rare", int(n % 100))],
            )
        })
        .collect();
    write(raw, writes).await;
}

#[tokio::test]
async fn a_large_collection_gives_the_same_as_it_changes() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    fill(&mut raw).await;
    let rare = || test("rare", Op::Equal, int(7));
    let limited = |query, limit| StructuredQuery {
        limit: Some(limit),
        ..query
    };
    let descending = |query| StructuredQuery {
        order_by: vec![by("n", Direction::Descending)],
        ..query
    };
    let range = || {
        and(vec![
            test("n", Op::GreaterThanOrEqual, int(10)),
            test("n", Op::LessThan, int(13)),
        ])
    };
    let cases = |raw: &mut Raw| {
        let mut raw = raw.clone();
        async move {
            [
                found(&mut raw, only(range())).await,
                found(&mut raw, descending(only(range()))).await,
                found(&mut raw, limited(descending(only(rare())), 2)).await,
                found(
                    &mut raw,
                    limited(descending(only(test("half", Op::Equal, int(1)))), 2),
                )
                .await,
                found(&mut raw, limited(only(rare()), 1)).await,
                found(
                    &mut raw,
                    StructuredQuery {
                        start_at: Some(Cursor {
                            values: vec![value(ValueType::ReferenceValue(name("a/0997")))],
                            before: false,
                        }),
                        order_by: vec![by("__name__", Direction::Ascending)],
                        ..from("a")
                    },
                )
                .await,
            ]
        }
    };
    let before = cases(&mut raw).await;
    assert_eq!(
        before,
        [
            "0010 0011 0012",
            "0012 0011 0010",
            "0907 0807",
            "0999 0997",
            "0007",
            "0998 0999"
        ]
    );
    write(
        &mut raw,
        vec![
            set("a/0011", [("n", int(12)), ("half", int(1))]),
            set(
                "a/new",
                [("n", int(2_000)), ("half", int(1)), ("rare", int(7))],
            ),
            crate::support::remove("a/0007"),
        ],
    )
    .await;
    assert_eq!(
        cases(&mut raw).await,
        [
            "0010 0011 0012",
            "0012 0011 0010",
            "new 0907",
            "new 0999",
            "0107",
            "0998 0999 new"
        ]
    );
}

#[tokio::test]
async fn and_and_or_nest() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    fill(&mut raw).await;
    let filter = and(vec![
        test("n", Op::LessThan, int(10)),
        or(vec![
            test("n", Op::Equal, int(3)),
            and(vec![
                test("half", Op::Equal, int(0)),
                test("n", Op::GreaterThan, int(5)),
            ]),
        ]),
    ]);
    assert_eq!(found(&mut raw, only(filter)).await, "0003 0006 0008");
}

#[tokio::test]
async fn cursors_are_positions_in_the_order() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(
        &mut raw,
        [
            ("p", 1, "x"),
            ("q", 1, "y"),
            ("r", 2, "x"),
            ("s", 2, "y"),
            ("t", 3, "x"),
        ]
        .map(|(id, n, s)| set(&format!("a/{id}"), [("n", int(n)), ("s", text(s))]))
        .to_vec(),
    )
    .await;
    let between = |start: Option<(Vec<Value>, bool)>, end: Option<(Vec<Value>, bool)>, down| {
        let direction = if down {
            Direction::Descending
        } else {
            Direction::Ascending
        };
        let cursor = |(values, before)| Cursor { values, before };
        StructuredQuery {
            order_by: vec![by("n", direction), by("s", direction)],
            start_at: start.map(cursor),
            end_at: end.map(cursor),
            ..from("a")
        }
    };
    for (query, expected) in [
        (between(Some((vec![int(2)], true)), None, false), "r s t"),
        (between(Some((vec![int(2)], false)), None, false), "t"),
        (
            between(Some((vec![int(2), text("x")], false)), None, false),
            "s t",
        ),
        (between(None, Some((vec![int(2)], true)), false), "p q"),
        (between(None, Some((vec![int(2)], false)), false), "p q r s"),
        (between(Some((vec![int(2)], true)), None, true), "s r q p"),
        (
            between(Some((vec![int(2), text("y")], false)), None, true),
            "r q p",
        ),
        (
            between(
                Some((vec![int(1), text("y")], true)),
                Some((vec![int(2), text("x")], false)),
                false,
            ),
            "q r",
        ),
    ] {
        assert_eq!(found(&mut raw, query.clone()).await, expected, "{query:?}");
    }
    let too_many = between(Some((vec![int(1); 4], true)), None, false);
    let refused = run(&mut raw, too_many).await.expect_err("too many values");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "Cursor has too many values.");
}

#[tokio::test]
async fn offset_limit_and_projection() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    fill(&mut raw).await;
    let query = StructuredQuery {
        offset: 2,
        limit: Some(1),
        select: Some(Projection {
            fields: vec![FieldReference {
                field_path: "half".to_owned(),
            }],
        }),
        ..from("a")
    };
    let mut responses = raw
        .run_query(request(query))
        .await
        .expect("a valid query")
        .into_inner();
    let first = responses.next().await.expect("one").expect("accepted");
    assert_eq!(first.skipped_results, 2);
    let document = first.document.expect("one result");
    assert_eq!(document.name, name("a/0002"));
    assert_eq!(document.fields, crate::support::fields([("half", int(0))]));
    assert!(responses.next().await.is_none());
}

#[tokio::test]
async fn a_collection_group_is_read_below_its_parent_only() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(
        &mut raw,
        ["g/1", "x/1/g/2", "x/1/y/1/g/3", "x/2/g/4", "x/1/h/5"]
            .map(|path| set(path, []))
            .to_vec(),
    )
    .await;
    let group = || StructuredQuery {
        from: vec![CollectionSelector {
            collection_id: "g".to_owned(),
            all_descendants: true,
        }],
        ..Default::default()
    };
    assert_eq!(found(&mut raw, group()).await, "1 2 3 4");
    let mut below = request(group());
    below.parent = name("x/1");
    let responses: Vec<_> = raw
        .run_query(below)
        .await
        .expect("a valid query")
        .into_inner()
        .collect()
        .await;
    assert_eq!(responses.len(), 2);
}

#[tokio::test]
async fn what_a_query_must_not_combine_is_refused() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let many = |count| array((0..count).map(int).collect());
    for (filter, accepted) in [
        (test("v", Op::In, many(30)), true),
        (test("v", Op::In, many(31)), false),
        (test("v", Op::In, many(0)), false),
        (test("v", Op::In, int(1)), false),
        (test("v", Op::NotIn, many(10)), true),
        (test("v", Op::NotIn, many(11)), false),
        (test("__name__", Op::Equal, text("x")), false),
        (
            and(vec![
                test("v", Op::NotIn, many(2)),
                test("w", Op::NotEqual, int(1)),
            ]),
            false,
        ),
        (
            and(vec![
                test("v", Op::NotIn, many(2)),
                test("w", Op::In, many(2)),
            ]),
            false,
        ),
        (
            and(vec![
                test("v", Op::ArrayContains, int(1)),
                test("w", Op::ArrayContains, int(1)),
            ]),
            false,
        ),
        (
            or(vec![
                test("v", Op::ArrayContains, int(1)),
                test("w", Op::ArrayContains, int(1)),
            ]),
            true,
        ),
        (
            and(vec![test("v", Op::In, many(6)), test("w", Op::In, many(6))]),
            false,
        ),
    ] {
        let refusal = run(&mut raw, only(filter.clone())).await.err();
        assert_eq!(
            refusal.map(|status| status.code()),
            (!accepted).then_some(Code::InvalidArgument),
            "{filter:?}"
        );
    }
}

#[tokio::test]
async fn a_partitioned_group_covers_every_document_once() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let writes = (0..100)
        .map(|n| set(&format!("p/{n}/g/1"), [("n", int(n))]))
        .collect();
    write(&mut raw, writes).await;
    let group = || StructuredQuery {
        from: vec![CollectionSelector {
            collection_id: "g".to_owned(),
            all_descendants: true,
        }],
        order_by: vec![by("__name__", Direction::Ascending)],
        ..Default::default()
    };
    let partitions = raw
        .partition_query(api::PartitionQueryRequest {
            parent: root(),
            partition_count: 3,
            query_type: Some(api::partition_query_request::QueryType::StructuredQuery(
                group(),
            )),
            ..Default::default()
        })
        .await
        .expect("accepted")
        .into_inner()
        .partitions;
    assert_eq!(partitions.len(), 3);
    let starts = [None]
        .into_iter()
        .chain(partitions.iter().cloned().map(Some));
    let ends = partitions.iter().cloned().map(Some).chain([None]);
    let mut sizes = Vec::new();
    for (start_at, end_at) in starts.zip(ends) {
        let part = StructuredQuery {
            start_at,
            end_at,
            ..group()
        };
        sizes.push(run(&mut raw, part).await.expect("a valid query").len());
    }
    assert_eq!(sizes, [25, 25, 25, 25]);
}
