//! StreamingPull, by plain gRPC.

mod common;

use std::time::Duration;

use common::{LONG, Ours, Server, data, keyed, message, numbered, subscription};
use infrachat_emulators::proto::{
    DeleteSubscriptionRequest, ReceivedMessage, StreamingPullRequest, StreamingPullResponse,
    Subscription,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// A StreamingPull from the client's side.
struct Stream {
    requests: mpsc::Sender<StreamingPullRequest>,
    responses: Streaming<StreamingPullResponse>,
}

impl Stream {
    async fn open(server: &Server, first: StreamingPullRequest) -> Self {
        let opened = Self::try_open(server, first).await;
        opened.expect("a stream")
    }

    async fn try_open(server: &Server, first: StreamingPullRequest) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(16);
        requests.send(first).await.expect("room for one");
        let opened = server
            .subscriber()
            .streaming_pull(ReceiverStream::new(outgoing))
            .await;
        Ok(Self {
            requests,
            responses: opened?.into_inner(),
        })
    }

    async fn plain(server: &Server, subscription: &str) -> Self {
        let first = StreamingPullRequest {
            subscription: subscription.to_owned(),
            stream_ack_deadline_seconds: 10,
            protocol_version: 1,
            ..StreamingPullRequest::default()
        };
        Self::open(server, first).await
    }

    /// Resolves once all that was sent has been heard: a heartbeat, and its answer.
    async fn settle(&mut self) {
        self.send(StreamingPullRequest::default()).await;
        let answer = self.response().await.expect("no error");
        let answer = answer.expect("the stream goes on");
        assert_eq!(answer.received_messages, []);
    }

    async fn response(&mut self) -> Result<Option<StreamingPullResponse>, Status> {
        tokio::time::timeout(LONG, self.responses.message())
            .await
            .expect("an answer")
    }

    /// Messages, as soon as `count` have come.
    async fn receive(&mut self, count: usize) -> Vec<ReceivedMessage> {
        let mut received = Vec::new();
        while received.len() < count {
            let response = self.response().await.expect("no error");
            received.extend(response.expect("the stream goes on").received_messages);
        }
        received
    }

    async fn send(&self, request: StreamingPullRequest) {
        self.requests.send(request).await.expect("an open stream");
    }

    async fn ack(&self, received: &[ReceivedMessage]) {
        self.send(StreamingPullRequest {
            ack_ids: received.iter().map(|each| each.ack_id.clone()).collect(),
            ..StreamingPullRequest::default()
        })
        .await;
    }

    /// The error that ends the stream.
    async fn end(&mut self) -> Status {
        loop {
            match self.response().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended well"),
                Err(status) => return status,
            }
        }
    }
}

#[tokio::test]
async fn a_stream_sends_no_more_than_the_client_can_bear() {
    let server = Server::start().await;
    let topic = server.topic("bounded").await;
    let sub = server.subscription(subscription("bounded", &topic)).await;
    server.publish(&topic, numbered(10, "")).await;
    let mut stream = Stream::open(
        &server,
        StreamingPullRequest {
            subscription: sub.clone(),
            stream_ack_deadline_seconds: 10,
            max_outstanding_messages: 4,
            ..StreamingPullRequest::default()
        },
    )
    .await;
    let first = stream.receive(4).await;
    assert_eq!(data(&first), ["0", "1", "2", "3"]);
    // The rest is there for others, so the stream has left it.
    let others = server.pull_now(&sub).await;
    assert_eq!(others.len(), 6);
    server.nack(&sub, &others).await;
    stream.ack(&first[..3]).await;
    assert_eq!(stream.receive(3).await.len(), 3);
    assert_eq!(server.pull_now(&sub).await.len(), 3);
}

#[tokio::test]
async fn a_stream_acknowledges_gives_back_and_extends() {
    let server = Ours::start().await;
    let topic = server.topic("stream").await;
    let sub = server.subscription(subscription("stream", &topic)).await;
    server.publish(&topic, numbered(3, "")).await;
    let mut stream = Stream::plain(&server, &sub).await;
    let received = stream.receive(3).await;
    stream.ack(&received[..1]).await;
    stream
        .send(StreamingPullRequest {
            modify_deadline_ack_ids: received[1..].iter().map(|r| r.ack_id.clone()).collect(),
            modify_deadline_seconds: vec![0, 600],
            ..StreamingPullRequest::default()
        })
        .await;
    let again = stream.receive(1).await;
    assert_eq!(data(&again), ["1"]);
    stream.ack(&again).await;
    stream.settle().await;
    server.clock.advance(Duration::from_secs(599));
    assert!(server.pull_now(&sub).await.is_empty());
    server.clock.advance(Duration::from_secs(2));
    assert_eq!(data(&stream.receive(1).await), ["2"]);
}

#[tokio::test]
async fn a_stream_ends_with_the_reason() {
    let server = Server::start().await;
    let topic = server.topic("ends").await;
    let sub = server.subscription(subscription("ends", &topic)).await;

    let nowhere = StreamingPullRequest {
        subscription: "projects/p/subscriptions/none".to_owned(),
        stream_ack_deadline_seconds: 10,
        ..StreamingPullRequest::default()
    };
    // The answer to the call may be the error, or the end of the stream.
    let missing = match Stream::try_open(&server, nowhere).await {
        Ok(mut stream) => stream.end().await,
        Err(status) => status,
    };
    assert_eq!(missing.code(), Code::NotFound);

    let mut repeated = Stream::plain(&server, &sub).await;
    repeated
        .send(StreamingPullRequest {
            max_outstanding_messages: 5,
            ..StreamingPullRequest::default()
        })
        .await;
    assert_eq!(repeated.end().await.code(), Code::InvalidArgument);

    let mut deleted = Stream::plain(&server, &sub).await;
    server.publish(&topic, vec![message("a")]).await;
    deleted.receive(1).await;
    let delete = DeleteSubscriptionRequest { subscription: sub };
    let gone = server.subscriber().delete_subscription(delete).await;
    gone.expect("deleted");
    assert_eq!(deleted.end().await.code(), Code::NotFound);
}

#[tokio::test]
async fn two_streams_share_messages_and_never_a_key() {
    let server = Server::start().await;
    let topic = server.topic("shared").await;
    let settings = Subscription {
        enable_message_ordering: true,
        ..subscription("shared", &topic)
    };
    let sub = server.subscription(settings).await;
    let first = |limit| StreamingPullRequest {
        subscription: sub.clone(),
        stream_ack_deadline_seconds: 600,
        max_outstanding_messages: limit,
        ..StreamingPullRequest::default()
    };
    let mut one = Stream::open(&server, first(1)).await;
    server.publish(&topic, numbered(3, "a")).await;
    let held = one.receive(1).await;
    assert_eq!(data(&held), ["0"]);
    let mut two = Stream::open(&server, first(100)).await;
    server.publish(&topic, vec![keyed("other", "b")]).await;
    assert_eq!(
        data(&two.receive(1).await),
        ["other"],
        "a's key went to two streams"
    );
    one.ack(&held).await;
    let mut rest = Vec::new();
    // Whoever comes first has the key now: the others follow in order, on one stream.
    tokio::select! {
        received = one.receive(1) => rest.extend(received),
        received = two.receive(2) => rest.extend(received),
    }
    assert_eq!(data(&rest)[0], "1");
}
