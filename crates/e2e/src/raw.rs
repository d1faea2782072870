//! A session spoken by hand: every frame is the test's own, good or bad.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use infrachat_proto::{
    chat::v1::{self as chat, client_frame::Kind as Frame, server_event::Kind},
    codec::Raw,
};
use infrachat_types::ClientMessageId;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, client::Grpc, transport::Endpoint};

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tests don't ping by themselves: they ask for heartbeats as seldom as a shard allows.
const SELDOM_MS: u32 = 60_000;

/// What the shard sent next.
#[derive(Debug)]
pub enum Received {
    /// An event.
    Event(Box<Kind>),
    /// The end of the stream.
    End(Option<Status>),
}

/// A stream to a shard.
#[derive(Debug)]
pub struct RawSession {
    frames: mpsc::Sender<Bytes>,
    events: Streaming<Bytes>,
    pending: VecDeque<Kind>,
    /// The token it came in with.
    pub token: String,
}

impl RawSession {
    /// Opens a stream, and says nothing.
    pub async fn open(endpoint: &str) -> Self {
        Self::open_on(Self::connect(endpoint).await).await
    }

    /// A connection, for several streams.
    pub async fn connect(endpoint: &str) -> tonic::transport::Channel {
        let channel = Endpoint::from_shared(format!("http://{endpoint}")).expect("an endpoint");
        channel.tcp_nodelay(true).connect().await.expect("connects")
    }

    /// Opens a stream on a connection.
    pub async fn open_on(channel: tonic::transport::Channel) -> Self {
        let (frames, outgoing) = mpsc::channel(64);
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.expect("ready");
        let path = http_path("/infrachat.chat.v1.ChatService/Open");
        let request = tonic::Request::new(ReceiverStream::new(outgoing));
        let events = grpc
            .streaming(request, path, Raw)
            .await
            .expect("opens")
            .into_inner();
        Self {
            frames,
            events,
            pending: VecDeque::new(),
            token: String::new(),
        }
    }

    /// Opens a stream and comes in.
    pub async fn hello(endpoint: &str, token: &str) -> Self {
        let mut session = Self::open(endpoint).await;
        session.greet(token).await;
        session
    }

    /// Says hello, and waits for the welcome.
    pub async fn greet(&mut self, token: &str) -> chat::Welcome {
        self.send_hello(token).await;
        token.clone_into(&mut self.token);
        match self.next().await {
            Kind::Welcome(welcome) => welcome,
            other => panic!("instead of a welcome came {other:?}"),
        }
    }

    /// Says hello.
    pub async fn send_hello(&mut self, token: &str) {
        let hello = chat::Hello {
            access_token: token.to_owned(),
            client: "infrachat-e2e".to_owned(),
            heartbeat_interval_ms: SELDOM_MS,
        };
        self.send(Frame::Hello(hello)).await;
    }

    /// Sends a frame.
    pub async fn send(&mut self, kind: Frame) {
        self.send_bytes(
            chat::ClientFrame { kind: Some(kind) }
                .encode_to_vec()
                .into(),
        )
        .await;
    }

    /// Sends anything as a frame. A stream that has ended takes nothing; the test will see its end.
    pub async fn send_bytes(&mut self, bytes: Bytes) {
        drop(
            tokio::time::timeout(PATIENCE, self.frames.send(bytes))
                .await
                .expect("the frame is taken in time"),
        );
    }

    /// Joins a channel, and waits for the answer.
    pub async fn join(&mut self, name: &str) -> chat::Joined {
        self.join_from(name, Bytes::new()).await
    }

    /// Joins a channel from a position, and waits for the answer.
    pub async fn join_from(&mut self, name: &str, position: Bytes) -> chat::Joined {
        let join = chat::Join {
            channel: name.to_owned(),
            position,
            ..Default::default()
        };
        self.send(Frame::Join(join)).await;
        self.until(|kind| match kind {
            Kind::Joined(joined) if joined.channel == name => Some(joined),
            Kind::Error(error) => panic!("joining {name} was refused: {error:?}"),
            _ => None,
        })
        .await
    }

    /// Publishes, and answers the id it gave.
    pub async fn publish(&mut self, name: &str, body: &str) -> ClientMessageId {
        let id = ClientMessageId::random();
        self.publish_as(id, 1, name, body).await;
        id
    }

    /// Publishes under an id.
    pub async fn publish_as(&mut self, id: ClientMessageId, attempt: u32, name: &str, body: &str) {
        self.send(Frame::Publish(chat::Publish {
            client_message_id: Bytes::copy_from_slice(id.as_bytes()),
            channel: name.to_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            attempt,
            ..Default::default()
        }))
        .await;
    }

    /// Publishes, and waits for the acknowledgement.
    pub async fn say(&mut self, name: &str, body: &str) -> chat::Ack {
        let id = self.publish(name, body).await;
        self.ack_of(id).await
    }

    /// Waits for the acknowledgement of a message.
    pub async fn ack_of(&mut self, id: ClientMessageId) -> chat::Ack {
        self.until(|kind| match kind {
            Kind::Ack(ack) if ack.client_message_id == id.as_bytes()[..] => Some(ack),
            Kind::Error(error) => panic!("{id} was refused: {error:?}"),
            _ => None,
        })
        .await
    }

    /// The next thing that comes.
    pub async fn receive(&mut self) -> Received {
        loop {
            if let Some(kind) = self.pending.pop_front() {
                return Received::Event(Box::new(kind));
            }
            match tokio::time::timeout(PATIENCE, self.events.message())
                .await
                .expect("something comes in time")
            {
                Ok(Some(batch)) => {
                    let batch = chat::ServerBatch::decode(batch).expect("a batch");
                    self.pending
                        .extend(batch.events.into_iter().filter_map(|event| event.kind));
                }
                Ok(None) => return Received::End(None),
                Err(status) => return Received::End(Some(status)),
            }
        }
    }

    /// The next event.
    pub async fn next(&mut self) -> Kind {
        match self.receive().await {
            Received::Event(kind) => *kind,
            Received::End(status) => panic!("the stream ended: {status:?}"),
        }
    }

    /// Passes over events until one is chosen.
    pub async fn until<T>(&mut self, choose: impl Fn(Kind) -> Option<T>) -> T {
        loop {
            if let Some(chosen) = choose(self.next().await) {
                return chosen;
            }
        }
    }

    /// The next message of others.
    pub async fn message(&mut self) -> chat::Message {
        self.until(|kind| match kind {
            Kind::Message(message) => Some(message),
            Kind::Gap(gap) => panic!("a gap instead of a message: {gap:?}"),
            _ => None,
        })
        .await
    }

    /// The next message's text.
    pub async fn text(&mut self) -> String {
        String::from_utf8(self.message().await.body.to_vec()).expect("UTF-8")
    }

    /// The next refusal.
    pub async fn error(&mut self) -> chat::Error {
        self.until(|kind| match kind {
            Kind::Error(error) => Some(error),
            _ => None,
        })
        .await
    }

    /// The close, which must come before the end of the stream.
    pub async fn closed(&mut self) -> chat::Close {
        let close = self
            .until(|kind| match kind {
                Kind::Close(close) => Some(close),
                _ => None,
            })
            .await;
        match self.receive().await {
            Received::End(_) => close,
            Received::Event(kind) => panic!("after the close came {kind:?}"),
        }
    }

    /// Answers whether the session is alive: a ping comes back, with no event but pongs, presence and
    /// receipts before it.
    pub async fn ping(&mut self, nonce: u64) {
        self.send(Frame::Ping(chat::Ping { nonce })).await;
        self.until(|kind| match kind {
            Kind::Pong(pong) if pong.nonce == nonce => Some(()),
            _ => None,
        })
        .await;
    }
}

fn http_path(path: &'static str) -> tonic::codegen::http::uri::PathAndQuery {
    tonic::codegen::http::uri::PathAndQuery::from_static(path)
}
