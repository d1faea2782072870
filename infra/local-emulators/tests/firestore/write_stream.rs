//! The bidirectional `Write` stream.

use gcloud_sdk::google::firestore::v1::{WriteRequest, precondition::ConditionType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::{DATABASE, int, number, only_if, set, soon, start};

#[tokio::test]
async fn each_request_is_one_commit_and_a_refused_one_ends_the_stream() {
    let emulator = start().await;
    let mut raw = emulator.raw().await;
    let (requests, receiver) = mpsc::channel(4);
    requests
        .send(WriteRequest {
            database: DATABASE.to_owned(),
            ..Default::default()
        })
        .await
        .expect("open");
    let mut answers = raw
        .write(ReceiverStream::new(receiver))
        .await
        .expect("accepted")
        .into_inner();
    let opened = soon(answers.message()).await.expect("open").expect("one");
    assert!(!opened.stream_id.is_empty());
    assert!(!opened.stream_token.is_empty());
    let mut token = opened.stream_token;
    for n in 1..=3 {
        requests
            .send(WriteRequest {
                stream_token: token.clone(),
                writes: vec![set("a/1", [("n", int(n))])],
                ..Default::default()
            })
            .await
            .expect("open");
        let written = soon(answers.message()).await.expect("open").expect("one");
        assert_eq!(written.write_results.len(), 1);
        assert!(written.commit_time.is_some());
        assert_ne!(written.stream_token, token);
        token = written.stream_token;
        assert_eq!(number(&mut raw, "a/1").await, Some(n));
    }
    requests
        .send(WriteRequest {
            stream_token: token,
            writes: vec![only_if(
                set("a/1", [("n", int(9))]),
                ConditionType::Exists(false),
            )],
            ..Default::default()
        })
        .await
        .expect("open");
    let ended = soon(answers.message()).await.expect_err("it exists");
    assert_eq!(ended.code(), Code::AlreadyExists);
    assert_eq!(number(&mut raw, "a/1").await, Some(3));
}
