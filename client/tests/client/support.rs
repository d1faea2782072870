//! Gatekeeper, Switchboard and a shard that a test plays by hand, over real connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize},
    },
    time::Duration,
};

use bytes::Bytes;
use infrachat_client::{Client, Event, JoinOptions, Options, Password};
use infrachat_proto::{
    Refusal,
    chat::v1::{self as chat, client_frame, server_event::Kind},
    event_entry,
    gatekeeper::v1::gatekeeper_service_server::GatekeeperServiceServer,
    switchboard::v1::{self as switchboard, switchboard_service_server::SwitchboardServiceServer},
};
use infrachat_types::{ErrorCode, MessageId, unix_millis};
use prost::Message as _;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::StreamExt as _;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming, transport::server::TcpIncoming};

use crate::servers::{Servers, Shard};

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it comes in time")
}

/// All servers on one port, and what they know.
pub(crate) struct World {
    pub(crate) address: String,
    pub(crate) state: Arc<State>,
    sessions: mpsc::Receiver<Session>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) own_address: Mutex<String>,
    /// Passwords of the users.
    pub(crate) users: Mutex<HashMap<String, String>>,
    /// How often a sign-in is told to wait first.
    pub(crate) busy: AtomicU32,
    /// How long an access token lives, in milliseconds.
    pub(crate) token_life_ms: AtomicU32,
    /// Another region's address, if there is one.
    pub(crate) other: Mutex<Option<String>>,
    /// What Switchboard answers instead of this address, once each.
    pub(crate) routes: Mutex<Vec<switchboard::Route>>,
    pub(crate) resolved: AtomicUsize,
    pub(crate) issued: AtomicU32,
    pub(crate) opened: Mutex<Option<mpsc::Sender<Session>>>,
}

/// A stream that a client opened, played by the test.
pub(crate) struct Session {
    pub(crate) frames: Streaming<Bytes>,
    pub(crate) events: mpsc::Sender<Result<Bytes, Status>>,
}

impl World {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (opened, sessions) = mpsc::channel(16);
        let state = Arc::new(State {
            own_address: Mutex::new(address.clone()),
            users: Mutex::new(HashMap::from([(
                "alice".to_owned(),
                "opensesame".to_owned(),
            )])),
            token_life_ms: AtomicU32::new(600_000),
            opened: Mutex::new(Some(opened)),
            ..State::default()
        });
        let serving = tonic::transport::Server::builder()
            .add_service(GatekeeperServiceServer::new(Servers(Arc::clone(&state))))
            .add_service(SwitchboardServiceServer::new(Servers(Arc::clone(&state))))
            .add_service(Shard::new(&state))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let serving = tokio::spawn(async move { serving.await.expect("serves") });
        Self {
            address,
            state,
            sessions,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub(crate) fn options(&self) -> Options {
        let user = "alice".parse().expect("valid");
        let mut options = Options::new(self.address.clone(), user, Password::new("opensesame"));
        options.backoff.cap = Duration::from_millis(200);
        options
    }

    pub(crate) async fn session(&mut self) -> Session {
        soon(self.sessions.recv())
            .await
            .expect("a stream is opened")
    }

    /// A client that has joined #general, and its session on shard-0.
    pub(crate) async fn joined(&mut self, options: Options) -> (Client, Session) {
        let client = Client::connect(options).await.expect("signed in");
        let general = "#general".parse().expect("valid");
        let joining = client.join(&general, JoinOptions::default());
        let welcoming = async {
            let mut session = self.session().await;
            session.welcome("shard-0").await;
            let join = session.join().await;
            session.joined(&join, b"p0").await;
            session
        };
        let (joined, session) = tokio::join!(joining, welcoming);
        joined.expect("joined");
        (client, session)
    }
}

/// The next event that is not about connections.
pub(crate) async fn next_chat(client: &Client) -> Event {
    loop {
        match soon(client.next_event()).await.expect("an event") {
            Event::Connected { .. } | Event::Disconnected { .. } | Event::Joined { .. } => {}
            event => return event,
        }
    }
}

impl Session {
    /// The next frame that is not a heartbeat, which is answered.
    pub(crate) async fn frame(&mut self) -> client_frame::Kind {
        soon(async {
            loop {
                let bytes = self.frames.next().await.expect("the stream goes on");
                let frame = chat::ClientFrame::decode(bytes.expect("no error"));
                match frame.expect("a valid frame").kind {
                    Some(client_frame::Kind::Ping(ping)) => {
                        self.tell(Kind::Pong(chat::Pong { nonce: ping.nonce }))
                            .await;
                    }
                    Some(kind) => return kind,
                    None => {}
                }
            }
        })
        .await
    }

    pub(crate) async fn hello(&mut self) -> chat::Hello {
        match self.frame().await {
            client_frame::Kind::Hello(hello) => hello,
            other => panic!("expected Hello, got {other:?}"),
        }
    }

    pub(crate) async fn join(&mut self) -> chat::Join {
        match self.frame().await {
            client_frame::Kind::Join(join) => join,
            other => panic!("expected Join, got {other:?}"),
        }
    }

    pub(crate) async fn publish(&mut self) -> chat::Publish {
        match self.frame().await {
            client_frame::Kind::Publish(publish) => publish,
            other => panic!("expected Publish, got {other:?}"),
        }
    }

    /// Reads on, answering heartbeats, until the client has ended its side.
    pub(crate) async fn end(&mut self) {
        let drained = async { while let Some(Ok(_)) = self.frames.next().await {} };
        soon(drained).await;
    }

    pub(crate) async fn tell(&self, kind: Kind) {
        // The client may be gone already.
        drop(self.events.send(Ok(event_entry(kind))).await);
    }

    pub(crate) async fn welcome_with(&mut self, welcome: chat::Welcome) -> chat::Hello {
        let hello = self.hello().await;
        self.tell(Kind::Welcome(welcome)).await;
        hello
    }

    pub(crate) async fn welcome(&mut self, shard: &str) -> chat::Hello {
        self.welcome_with(welcome(shard)).await
    }

    pub(crate) async fn joined(&self, join: &chat::Join, position: &'static [u8]) {
        let joined = chat::Joined {
            channel: join.channel.clone(),
            position: Bytes::from_static(position),
            recovered: true,
            ..Default::default()
        };
        self.tell(Kind::Joined(joined)).await;
    }

    pub(crate) async fn ack(&self, publish: &chat::Publish, millis: u64) {
        let ack = chat::Ack {
            client_message_id: publish.client_message_id.clone(),
            channel: publish.channel.clone(),
            message_id: MessageId::floor_of(millis).to_string(),
            duplicate: false,
        };
        self.tell(Kind::Ack(ack)).await;
    }

    pub(crate) async fn refuse(&self, publish: &chat::Publish, code: ErrorCode) {
        let id = publish.client_message_id.clone();
        self.tell(Refusal::new(code, "not now").into_event(&publish.channel, id))
            .await;
    }
}

pub(crate) fn welcome(shard: &str) -> chat::Welcome {
    chat::Welcome {
        session_id: "session".to_owned(),
        user: "alice".to_owned(),
        shard: shard.to_owned(),
        region: "us-west1".to_owned(),
        heartbeat_interval_ms: 10_000,
        heartbeat_timeout_ms: 30_000,
        auth_expires_at_ms: unix_millis() + 600_000,
        limits: Some(chat::Limits {
            max_body_bytes: 16_384,
            max_channels: 100,
            max_in_flight: 100,
            publish_per_second: 100,
            slow_reader_pending: 1_000,
        }),
        server_time_ms: unix_millis(),
    }
}

/// A message of somebody's.
pub(crate) fn message(sender: &str, id: [u8; 16], body: &str, position: &str) -> chat::Message {
    chat::Message {
        channel: "#general".to_owned(),
        message_id: MessageId::floor_of(1).to_string(),
        sender: sender.to_owned(),
        client_message_id: Bytes::copy_from_slice(&id),
        body: Bytes::copy_from_slice(body.as_bytes()),
        published_at_ms: 1,
        region: "us-west1".to_owned(),
        position: Bytes::copy_from_slice(position.as_bytes()),
        session_id: "other".to_owned(),
    }
}

pub(crate) fn general() -> infrachat_client::ChannelName {
    "#general".parse().expect("valid")
}

pub(crate) async fn body(client: &Client) -> String {
    match next_chat(client).await {
        Event::Message(message) => String::from_utf8(message.body.to_vec()).expect("UTF-8"),
        other => panic!("expected a message, got {other:?}"),
    }
}

/// Opens the session that follows a lost one.
pub(crate) async fn rejoined(world: &mut World, shard: &str) -> (Session, chat::Join) {
    let mut session = world.session().await;
    session.welcome(shard).await;
    let join = session.join().await;
    session.joined(&join, b"p9").await;
    (session, join)
}
