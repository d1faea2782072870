//! Aggregations over queries.

use gcloud_sdk::google::firestore::v1::{
    self as api, StructuredAggregationQuery, StructuredQuery, run_aggregation_query_request,
    structured_aggregation_query::{
        self, Aggregation,
        aggregation::{Avg, Count, Operator, Sum},
    },
    structured_query::{Filter, field_filter::Operator as Op},
    value::ValueType,
};
use tokio_stream::StreamExt;

use crate::{
    queries::{field, from, test},
    support::{Raw, int, root, set, start, text, value, write},
};

#[tokio::test]
async fn aggregations_take_the_documents_that_have_all_their_fields() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    write(
        &mut raw,
        vec![
            set("a/1", [("n", int(1)), ("m", int(10))]),
            set("a/2", [("n", int(2))]),
            set("a/3", [("n", text("no number")), ("m", int(30))]),
            set("a/4", []),
        ],
    )
    .await;
    let aggregate = async |raw: &mut Raw, filter: Option<Filter>, operators: Vec<Operator>| {
        let query = StructuredAggregationQuery {
            aggregations: operators
                .into_iter()
                .map(|operator| Aggregation {
                    alias: String::new(),
                    operator: Some(operator),
                })
                .collect(),
            query_type: Some(structured_aggregation_query::QueryType::StructuredQuery(
                StructuredQuery {
                    r#where: filter,
                    ..from("a")
                },
            )),
        };
        let mut responses = raw
            .run_aggregation_query(api::RunAggregationQueryRequest {
                parent: root(),
                query_type: Some(
                    run_aggregation_query_request::QueryType::StructuredAggregationQuery(query),
                ),
                ..Default::default()
            })
            .await
            .expect("a valid query")
            .into_inner();
        let result = responses.next().await.expect("one").expect("accepted");
        let mut values: Vec<_> = result
            .result
            .expect("has one")
            .aggregate_fields
            .into_iter()
            .collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
            .into_iter()
            .map(|(_, value)| value)
            .collect::<Vec<_>>()
    };
    let count = |up_to: Option<i64>| Operator::Count(Count { up_to });
    let sum = |path| Operator::Sum(Sum { field: field(path) });
    let avg = |path| Operator::Avg(Avg { field: field(path) });
    let double = |number| value(ValueType::DoubleValue(number));
    assert_eq!(aggregate(&mut raw, None, vec![count(None)]).await, [int(4)]);
    assert_eq!(
        aggregate(&mut raw, None, vec![count(Some(3))]).await,
        [int(3)]
    );
    assert_eq!(
        aggregate(&mut raw, None, vec![count(None), sum("n"), avg("n")]).await,
        [int(3), int(3), double(1.5)]
    );
    assert_eq!(
        aggregate(&mut raw, None, vec![count(None), sum("n"), sum("m")]).await,
        [int(2), int(1), int(40)]
    );
    assert_eq!(
        aggregate(
            &mut raw,
            Some(test("n", Op::GreaterThan, int(100))),
            vec![count(None), sum("n"), avg("n")]
        )
        .await,
        [int(0), int(0), value(ValueType::NullValue(0))]
    );
}
