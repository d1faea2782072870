//! Google's limits and rules on names.

use gcloud_sdk::google::firestore::v1::{
    self as api, ArrayValue, MapValue, Value, Write, value::ValueType,
};
use tonic::Code;

use crate::support::{commit, fields, int, name, set, start, text, value};

fn nested(levels: usize) -> Value {
    (0..levels).fold(int(1), |inner, _| {
        value(ValueType::MapValue(MapValue {
            fields: fields([("m", inner)]),
        }))
    })
}

/// Strings that make up about this many bytes together, none of them too long by itself.
fn filler(bytes: usize) -> Value {
    const PIECE: usize = 1024;
    let values = vec![text(&"x".repeat(PIECE - 1)); bytes / PIECE];
    value(ValueType::ArrayValue(ArrayValue { values }))
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_and_what_is_at_it_accepted() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let long = |bytes| "i".repeat(bytes);
    let array = |values| value(ValueType::ArrayValue(ArrayValue { values }));
    let cases: Vec<(&str, Write, bool)> = vec![
        (
            "a document of nearly 1 MiB",
            set("a/1", [("f", filler(1020 * 1024))]),
            true,
        ),
        (
            "a document over 1 MiB",
            set("a/1", [("f", filler(1024 * 1024))]),
            false,
        ),
        ("20 levels", set("a/1", [("f", nested(20))]), true),
        ("21 levels", set("a/1", [("f", nested(21))]), false),
        (
            "an id of 1,500 bytes",
            set(&format!("a/{}", long(1_500)), []),
            true,
        ),
        (
            "an id of 1,501 bytes",
            set(&format!("a/{}", long(1_501)), []),
            false,
        ),
        (
            "a field name of 1,500 bytes",
            set("a/1", [(long(1_500).as_str(), int(1))]),
            true,
        ),
        (
            "a field name of 1,501 bytes",
            set("a/1", [(long(1_501).as_str(), int(1))]),
            false,
        ),
        ("a reserved id", set("a/__x__", []), false),
        ("a numeric id", set("a/__id7__", []), true),
        ("a dot", set("a/.", []), false),
        ("two dots", set("a/..", []), false),
        ("a reserved field", set("a/1", [("__x__", int(1))]), false),
        ("an empty field name", set("a/1", [("", int(1))]), false),
        (
            "an array in an array",
            set("a/1", [("f", array(vec![array(vec![])]))]),
            false,
        ),
        (
            "a value without type",
            set("a/1", [("f", Value { value_type: None })]),
            false,
        ),
        ("a collection's name", set("a", []), false),
        ("an empty segment", set("a//b/c", []), false),
    ];
    for (what, write, accepted) in cases {
        let answer = raw.commit(commit(vec![write])).await;
        let refusal = answer.err().map(|status| status.code());
        assert_eq!(
            refusal,
            (!accepted).then_some(Code::InvalidArgument),
            "{what}"
        );
    }
}

#[tokio::test]
async fn the_size_of_a_refused_document_is_told() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let refused = raw
        .commit(commit(vec![set("a/1", [("f", filler(1024 * 1024))])]))
        .await
        .expect_err("too large");
    let expected = format!(
        "Document '{}' cannot be written because its size (1048630 bytes) exceeds the maximum allowed size of 1048576 bytes.",
        name("a/1")
    );
    assert_eq!(refused.message(), expected);
}

#[tokio::test]
async fn a_request_over_10_mib_is_refused() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let writes = (0..11)
        .map(|n| set(&format!("a/{n}"), [("f", filler(1000 * 1024))]))
        .collect();
    let refused = raw
        .commit(commit(writes))
        .await
        .expect_err("too large together");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        refused.message(),
        "Request payload size exceeds the limit: 10485760 bytes."
    );
}

#[tokio::test]
async fn more_than_500_writes_are_one_commit() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let writes: Vec<_> = (0..2_000)
        .map(|n| set(&format!("a/{n}"), [("n", int(n))]))
        .collect();
    let answer = raw
        .commit(commit(writes.clone()))
        .await
        .expect("no limit on their number")
        .into_inner();
    assert_eq!(answer.write_results.len(), 2_000);
    let refused = raw
        .batch_write(api::BatchWriteRequest {
            database: crate::support::DATABASE.to_owned(),
            writes,
            ..Default::default()
        })
        .await
        .expect_err("a batch has one");
    assert_eq!(refused.code(), Code::InvalidArgument);
}
