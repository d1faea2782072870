//! InfraChat as its users run it: every session signed in, joined, and with presence.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use infrachat_proto::{
    chat::v1::{
        self as chat, chat_service_client::ChatServiceClient, client_frame::Kind as Frame,
        server_event::Kind,
    },
    gatekeeper::v1::{RegisterRequest, gatekeeper_service_client::GatekeeperServiceClient},
    switchboard::v1::{ResolveRequest, switchboard_service_client::SwitchboardServiceClient},
};
use infrachat_types::ClientMessageId;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, metadata::MetadataValue, transport::Endpoint};

use super::{Publisher, Subscriber, Wire};
use crate::{
    http2::{self, Messages, Windows},
    process::{self, Server},
};

/// The channel that is measured.
pub(crate) const CHANNEL: &str = "#bench";
/// Users; each has its share of the sessions.
const USERS: usize = 20;
/// Channels that Switchboard is asked for at once.
const RESOLVED: usize = 1_000;
/// The longest interval that a shard agrees to: 60 s.
const HEARTBEAT_MS: u32 = 60_000;
/// So that the sender's limits don't shape the load.
const UNLIMITED: [&str; 4] = [
    "--publish-per-second",
    "1000000",
    "--max-in-flight",
    "100000",
];

/// InfraChat, running.
#[derive(Debug)]
pub(crate) struct Infrachat {
    pub(crate) server: Server,
    pub(crate) region: Region,
    pub(crate) shard: Arc<Shard>,
}

/// A region, as its users find it.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) switchboard: String,
    /// Of users that signed in, here or elsewhere.
    pub(crate) tokens: Vec<String>,
}

/// The shard that owns a channel.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) endpoint: String,
    pub(crate) channel: String,
    pub(crate) windows: Windows,
    pub(crate) slow_reader: chat::SlowReaderPolicy,
    /// Bytes that the client's kernel takes before the server's has to keep them; none: as many as it
    /// finds right.
    pub(crate) receive_buffer: Option<u32>,
}

impl Infrachat {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts with more arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_limited(&[&UNLIMITED, arguments].concat()).await
    }

    /// Starts with the sender's limits as they are, and these arguments.
    pub(crate) async fn start_limited(arguments: &[&str]) -> anyhow::Result<Self> {
        let first = process::free_ports(20)?;
        let program = std::env::current_exe()?.with_file_name("infrachat-local");
        let mut command = Command::new(program);
        command.args(["--first-port", &first.to_string()]);
        command.args(arguments);
        // Users can sign in once Gatekeeper listens, which is last.
        let server = Server::start(&mut command, first).await?;
        let region = Region::register(first, USERS).await?;
        let shard = Arc::new(region.create(CHANNEL).await?);
        Ok(Self {
            server,
            region,
            shard,
        })
    }

    /// A session's token.
    pub(crate) fn token(&self, session: usize) -> &str {
        self.region.token(session)
    }

    /// So many sessions that joined the channel that is measured.
    pub(crate) async fn subscribe(&self, count: usize) -> anyhow::Result<Vec<Subscriber>> {
        let mut subscribers = Vec::with_capacity(count);
        for number in 0..count {
            subscribers.push(self.shard.subscribe(self.token(number)).await?);
        }
        Ok(subscribers)
    }

    pub(super) async fn publisher(&self) -> anyhow::Result<Publisher> {
        let session = Session::open(&self.shard, self.token(0)).await?;
        Ok(Publisher::Infrachat(session))
    }
}

impl Region {
    /// Registers users with the Gatekeeper that listens on this port, and Switchboard on the next.
    pub(crate) async fn register(gatekeeper: u16, users: usize) -> anyhow::Result<Self> {
        let switchboard = format!("http://127.0.0.1:{}", gatekeeper + 1);
        let gatekeeper = format!("http://127.0.0.1:{gatekeeper}");
        let mut gatekeeper = GatekeeperServiceClient::connect(gatekeeper).await?;
        let mut tokens = Vec::new();
        for user in 0..users {
            let registration = RegisterRequest {
                user: format!("bench-{user}"),
                password: "the bench's own pass phrase".to_owned(),
            };
            let session = gatekeeper.register(registration).await?.into_inner();
            tokens.push(session.access_token);
        }
        Ok(Self {
            switchboard,
            tokens,
        })
    }

    /// A session's token.
    pub(crate) fn token(&self, session: usize) -> &str {
        &self.tokens[session % self.tokens.len()]
    }

    /// Creates a channel; answers where it lives.
    pub(crate) async fn create(&self, channel: &str) -> anyhow::Result<Shard> {
        let mut created = self.create_all(&[channel.to_owned()]).await?;
        created.pop().context("Switchboard knows no route")
    }

    /// Creates channels; answers where each lives.
    pub(crate) async fn create_all(&self, channels: &[String]) -> anyhow::Result<Vec<Shard>> {
        let shards = self.resolve(channels).await?;
        // Any shard creates any channel.
        let any = shards.first().context("Switchboard knows no route")?;
        let mut client = ChatServiceClient::connect(format!("http://{}", any.endpoint)).await?;
        for shard in &shards {
            let creation = chat::CreateChannelRequest {
                name: shard.channel.clone(),
                visibility: chat::Visibility::Public.into(),
                ..Default::default()
            };
            client.create_channel(self.signed(creation)?).await?;
        }
        Ok(shards)
    }

    /// Where channels live here, whether they exist or not.
    pub(crate) async fn resolve(&self, channels: &[String]) -> anyhow::Result<Vec<Shard>> {
        let mut switchboard = SwitchboardServiceClient::connect(self.switchboard.clone()).await?;
        let mut shards = Vec::with_capacity(channels.len());
        for channels in channels.chunks(RESOLVED) {
            let channels = channels.to_vec();
            let request = self.signed(ResolveRequest { channels })?;
            let routes = switchboard.resolve(request).await?.into_inner().routes;
            shards.extend(routes.into_iter().map(|route| Shard {
                endpoint: route.endpoint,
                channel: route.channel,
                windows: Windows::default(),
                slow_reader: chat::SlowReaderPolicy::Unspecified,
                receive_buffer: None,
            }));
        }
        Ok(shards)
    }

    fn signed<T>(&self, message: T) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        let bearer = MetadataValue::try_from(format!("Bearer {}", self.token(0)))?;
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }
}

impl Shard {
    fn join(&self, channel: &str) -> Bytes {
        encode(Frame::Join(chat::Join {
            channel: channel.to_owned(),
            slow_reader: self.slow_reader.into(),
            ..Default::default()
        }))
    }

    /// A connection on which nothing was said.
    pub(crate) async fn connect(&self) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(self.endpoint.parse()?).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A stream on a connection of its own, on which these frames were said, and read until an answer is
    /// the one waited for.
    pub(crate) async fn open(
        &self,
        frames: &[Bytes],
        mut is_ready: impl FnMut(Bytes) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Subscriber> {
        let mut stream = self.connect().await?;
        let mut out = BytesMut::new();
        let mut connection = Box::new(http2::Connection::new(self.windows, &mut out));
        http2::open(&mut out, 1);
        for frame in frames {
            http2::message(&mut out, 1, frame);
        }
        let mut messages = Messages::default();
        let mut bytes = vec![0; 16 * 1024];
        loop {
            stream.write_all(&out.split()).await?;
            let read = stream.read(&mut bytes).await?;
            if read == 0 {
                bail!("the shard hung up");
            }
            connection.feed(&bytes[..read], &mut out, |data| messages.feed(data))?;
            while let Some(batch) = messages.next() {
                if is_ready(batch)? {
                    stream.write_all(&out.split()).await?;
                    let wire = Wire::Http2(connection);
                    return Ok(Subscriber { stream, wire });
                }
            }
        }
    }

    /// A session that joined. Presence of others may follow; messages don't, before the first is published.
    pub(crate) async fn subscribe(&self, token: &str) -> anyhow::Result<Subscriber> {
        self.subscribe_all(&[&self.channel], token).await
    }

    /// One that joined these channels, all of this shard.
    pub(crate) async fn subscribe_all(
        &self,
        channels: &[&str],
        token: &str,
    ) -> anyhow::Result<Subscriber> {
        let joins = channels.iter().map(|channel| self.join(channel));
        let frames: Vec<_> = std::iter::once(hello(token)).chain(joins).collect();
        let mut joined = 0;
        let all_joined = |batch| {
            joined += joins_in(batch)?;
            Ok(joined == channels.len())
        };
        self.open(&frames, all_joined).await
    }
}

/// How many channels a batch says are joined.
fn joins_in(batch: Bytes) -> anyhow::Result<usize> {
    let mut joined = 0;
    for event in chat::ServerBatch::decode(batch)?.events {
        if let Some(kind) = event.kind {
            joined += usize::from(is_joined(kind)?);
        }
    }
    Ok(joined)
}

/// Whether an event says that a channel is joined; fails when it won't be.
fn is_joined(kind: Kind) -> anyhow::Result<bool> {
    match kind {
        Kind::Joined(_) => Ok(true),
        Kind::Error(error) => bail!("joining was refused: {}", error.message),
        Kind::Close(close) => bail!("the session was closed: {}", close.reason),
        Kind::Redirect(redirect) => bail!("the channel moved: {}", redirect.reason),
        _ => Ok(false),
    }
}

/// The first frame.
pub(crate) fn hello(token: &str) -> Bytes {
    encode(Frame::Hello(chat::Hello {
        access_token: token.to_owned(),
        client: concat!("infrachat-bench/", env!("CARGO_PKG_VERSION")).to_owned(),
        heartbeat_interval_ms: HEARTBEAT_MS,
    }))
}

fn encode(kind: Frame) -> Bytes {
    chat::ClientFrame { kind: Some(kind) }
        .encode_to_vec()
        .into()
}

/// A session that speaks, by the ordinary gRPC client.
#[derive(Debug)]
pub(crate) struct Session {
    frames: mpsc::Sender<chat::ClientFrame>,
    pub(crate) events: mpsc::Receiver<Kind>,
    pub(crate) answers: Arc<Answers>,
}

/// What became of what was said.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) acked: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Answers {
    fn count(&self, kind: &Kind) {
        match kind {
            Kind::Ack(_) => self.acked.fetch_add(1, Ordering::Relaxed),
            Kind::Error(_) => self.refused.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

impl Session {
    /// Opens a session that has joined a shard's channel.
    pub(crate) async fn open(shard: &Shard, token: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{}", shard.endpoint))?;
        let transport = endpoint.tcp_nodelay(true).connect().await?;
        let (frames, outgoing) = mpsc::channel(64);
        for first in [hello(token), shard.join(&shard.channel)] {
            frames.send(chat::ClientFrame::decode(first)?).await?;
        }
        let mut client = ChatServiceClient::new(transport);
        let mut stream = client
            .open(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        let (heard, events) = mpsc::channel(1_024);
        let answers = Arc::new(Answers::default());
        let counting = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok(Some(batch)) = stream.message().await {
                for kind in batch.events.into_iter().filter_map(|event| event.kind) {
                    counting.count(&kind);
                    // Whoever does not take them does not want them.
                    drop(heard.try_send(kind));
                }
            }
        });
        let mut session = Self {
            frames,
            events,
            answers,
        };
        session.joined().await?;
        Ok(session)
    }

    /// Joins another channel of the shard.
    pub(crate) async fn join(&mut self, shard: &Shard) -> anyhow::Result<()> {
        let join = chat::ClientFrame::decode(shard.join(&shard.channel))?;
        self.frames.send(join).await?;
        self.joined().await
    }

    async fn joined(&mut self) -> anyhow::Result<()> {
        while let Some(kind) = self.events.recv().await {
            if is_joined(kind)? {
                return Ok(());
            }
        }
        bail!("the shard ended the stream");
    }

    /// Sends a frame, and waits for no answer.
    pub(crate) async fn send(&self, kind: Frame) -> anyhow::Result<()> {
        let kind = Some(kind);
        self.frames.send(chat::ClientFrame { kind }).await?;
        Ok(())
    }

    /// Says something.
    pub(crate) async fn say(&self, channel: &str, text: &str) -> anyhow::Result<()> {
        self.say_in("", channel, text).await
    }

    /// Says something in a trace, which a `traceparent` names.
    pub(crate) async fn say_in(
        &self,
        traceparent: &str,
        channel: &str,
        text: &str,
    ) -> anyhow::Result<()> {
        let publish = chat::Publish {
            client_message_id: Bytes::copy_from_slice(ClientMessageId::random().as_bytes()),
            channel: channel.to_owned(),
            body: Bytes::copy_from_slice(text.as_bytes()),
            attempt: 1,
            traceparent: traceparent.to_owned(),
            ..Default::default()
        };
        self.send(Frame::Publish(publish)).await
    }
}
