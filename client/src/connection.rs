//! One stream to one shard, owned by one task: it opens the session, keeps it alive, and notices
//! when it is dead. It decides nothing.

use std::{sync::Arc, time::Duration};

use infrachat_proto::chat::v1::{
    self as chat, chat_service_client::ChatServiceClient, client_frame, server_event,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};

use crate::{
    Options,
    tokens::{Tokens, Wallet},
    transport,
};

/// Frames that wait to be taken by the shard: more than the limits of any session allow, so a
/// connection on which they pile up is dead.
pub(crate) const FRAMES: usize = 4_096;
/// How long a shard may take to greet.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stream may take to end once this side has said everything.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

/// What a connection's task tells.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The session is open.
    Opened {
        welcome: chat::Welcome,
        transport: Channel,
        generation: u64,
    },
    /// Events came.
    Batch(Vec<chat::ServerEvent>),
    /// The stream is over.
    Ended { reason: String },
}

/// What a connection's task works with.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u64,
    pub(crate) endpoint: String,
    pub(crate) options: Arc<Options>,
    pub(crate) wallet: Wallet,
    /// Tokens up to this generation were refused.
    pub(crate) refused_generation: u64,
    pub(crate) heard: mpsc::Sender<(u64, Heard)>,
    /// Cancelled when nobody listens any more; the stream is then ended in good order.
    pub(crate) closing: CancellationToken,
}

pub(crate) fn frame(kind: client_frame::Kind) -> chat::ClientFrame {
    chat::ClientFrame { kind: Some(kind) }
}

impl Stream {
    /// Runs until the stream ends, from either side.
    pub(crate) async fn run(
        self,
        frames: mpsc::WeakSender<chat::ClientFrame>,
        waiting: mpsc::Receiver<chat::ClientFrame>,
    ) {
        let closing = self.closing.clone();
        let opened = tokio::select! {
            opened = self.open(&frames, waiting) => opened,
            () = closing.cancelled() => return,
        };
        let reason = match opened {
            Ok((events, welcome)) => self.listen(events, &welcome, &frames).await,
            Err(reason) => reason,
        };
        self.tell(Heard::Ended { reason }).await;
    }

    async fn tell(&self, heard: Heard) {
        // Nobody listens when the client is gone.
        drop(self.heard.send((self.id, heard)).await);
    }

    async fn open(
        &self,
        frames: &mpsc::WeakSender<chat::ClientFrame>,
        waiting: mpsc::Receiver<chat::ClientFrame>,
    ) -> Result<(Streaming<chat::ServerBatch>, chat::Welcome), String> {
        let tokens = self.wallet.newer_than(self.refused_generation).await;
        let tokens = tokens.map_err(|err| err.to_string())?;
        let transport = transport::connect(&self.options, &self.endpoint)
            .await
            .map_err(|err| err.to_string())?;
        let hello = frame(client_frame::Kind::Hello(self.hello(&tokens)));
        let sender = frames.upgrade().ok_or("the client is closed")?;
        sender.try_send(hello).map_err(|err| err.to_string())?;
        drop(sender);
        let mut client = ChatServiceClient::new(transport.clone());
        let opening = async {
            let mut events = client
                .open(ReceiverStream::new(waiting))
                .await?
                .into_inner();
            let first = events.message().await?;
            Ok::<_, tonic::Status>((events, first))
        };
        let (events, first) = tokio::time::timeout(WELCOME_TIMEOUT, opening)
            .await
            .map_err(|_| format!("{} did not greet within {WELCOME_TIMEOUT:?}", self.endpoint))?
            .map_err(|status| transport::root_cause(&status))?;
        let mut batch = first
            .ok_or("the shard closed the stream at once")?
            .events
            .into_iter();
        let welcome = match batch.next().and_then(|event| event.kind) {
            Some(server_event::Kind::Welcome(welcome)) => welcome,
            Some(close @ server_event::Kind::Close(_)) => {
                self.tell(Heard::Batch(vec![chat::ServerEvent { kind: Some(close) }]))
                    .await;
                return Err("refused".to_owned());
            }
            _ => return Err(format!("{} did not greet", self.endpoint)),
        };
        self.tell(Heard::Opened {
            welcome: welcome.clone(),
            transport,
            generation: tokens.generation,
        })
        .await;
        let rest: Vec<_> = batch.collect();
        if !rest.is_empty() {
            self.tell(Heard::Batch(rest)).await;
        }
        Ok((events, welcome))
    }

    fn hello(&self, tokens: &Tokens) -> chat::Hello {
        let wish = self.options.heartbeat.unwrap_or_default();
        chat::Hello {
            access_token: tokens.access.to_string(),
            client: self.options.client.clone(),
            heartbeat_interval_ms: u32::try_from(wish.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// Passes on what comes. While nobody takes it, nothing more is read, which the shard feels;
    /// heartbeats go on, and silence is not held against the shard.
    async fn listen(
        &self,
        mut events: Streaming<chat::ServerBatch>,
        welcome: &chat::Welcome,
        frames: &mpsc::WeakSender<chat::ClientFrame>,
    ) -> String {
        let millis = |ms| Duration::from_millis(u64::from(ms)).max(SHORTEST_HEARTBEAT);
        let timeout = millis(welcome.heartbeat_timeout_ms);
        let mut heartbeat = tokio::time::interval(millis(welcome.heartbeat_interval_ms));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut nonce = 0;
        let mut silence_ends = Instant::now() + timeout;
        let mut batch = None;
        loop {
            let full = batch.is_some();
            tokio::select! {
                () = self.closing.cancelled() => {
                    drain(events).await;
                    return "closed by this program".to_owned();
                }
                next = events.message(), if !full => match next {
                    Ok(Some(next)) => {
                        batch = Some(next.events);
                        silence_ends = Instant::now() + timeout;
                    }
                    Ok(None) => return "the shard ended the stream".to_owned(),
                    Err(status) => return transport::root_cause(&status),
                },
                permit = self.heard.reserve(), if full => {
                    let (Ok(permit), Some(events)) = (permit, batch.take()) else {
                        return "closed by this program".to_owned();
                    };
                    permit.send((self.id, Heard::Batch(events)));
                    silence_ends = Instant::now() + timeout;
                }
                _ = heartbeat.tick() => {
                    nonce += 1;
                    let ping = frame(client_frame::Kind::Ping(chat::Ping { nonce }));
                    let sent = frames.upgrade().is_some_and(|frames| frames.try_send(ping).is_ok());
                    if !sent && !self.closing.is_cancelled() {
                        return "the shard takes nothing any more".to_owned();
                    }
                }
                () = tokio::time::sleep_until(silence_ends), if !full => {
                    return format!("nothing was heard for {timeout:?}");
                }
            }
        }
    }
}

/// Reads to the end, so that the shard sees an orderly one.
async fn drain(mut events: Streaming<chat::ServerBatch>) {
    let rest = async { while let Ok(Some(_)) = events.message().await {} };
    if tokio::time::timeout(GOODBYE_TIMEOUT, rest).await.is_err() {
        tracing::debug!("the shard did not end the stream in time");
    }
}
