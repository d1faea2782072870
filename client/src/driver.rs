//! The one task that decides: it alone changes what the client knows. Connections tell it what they
//! hear, the application what it wants, and it tells the application what happened.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use infrachat_proto::{
    chat::v1::{self as chat},
    switchboard::v1::Route,
};
use infrachat_types::{ChannelName, UserName};
use rand::rngs::StdRng;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel as Transport;

use crate::{
    ClientError, Event, JoinOptions, Options, RegionAddress,
    channel::{Channel, JoinReply},
    connection::Heard,
    outgoing::{Draft, Shard},
    stats::Counters,
    tokens::{self, Wallet},
};

/// Batches that wait to be looked at.
const HEARD: usize = 8;
const GOODBYE: Duration = Duration::from_secs(1);

/// What the application wants.
#[derive(Debug)]
pub(crate) enum Command {
    Join {
        channel: ChannelName,
        options: JoinOptions,
        reply: JoinReply,
    },
    Leave {
        channel: ChannelName,
        reply: oneshot::Sender<()>,
    },
    Publish {
        channel: ChannelName,
        draft: Draft,
    },
    Typing {
        channel: ChannelName,
    },
    /// Over which connection the channel is joined.
    Where {
        channel: ChannelName,
        reply: oneshot::Sender<Option<(String, Transport)>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// A stream as the driver sees it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) endpoint: String,
    pub(crate) frames: mpsc::Sender<chat::ClientFrame>,
    pub(crate) closing: CancellationToken,
    pub(crate) session: Option<Session>,
    /// Messages sent and not answered.
    pub(crate) in_flight: HashSet<infrachat_types::ClientMessageId>,
    /// When to go, and where to, as the shard asked.
    pub(crate) go_away: Option<(Instant, chat::GoAway)>,
    /// What the shard's last word was.
    pub(crate) close: Option<chat::Close>,
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shard: Shard,
    pub(crate) max_in_flight: usize,
    pub(crate) transport: Transport,
}

/// What a task of the driver's ended with.
#[derive(Debug)]
pub(crate) enum Done {
    Stream,
    Resolved {
        channels: Vec<ChannelName>,
        routes: Result<Vec<Route>, ClientError>,
    },
}

/// The state of a client.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) options: Arc<Options>,
    pub(crate) user: UserName,
    pub(crate) regions: Arc<[RegionAddress]>,
    /// The region that is asked now.
    pub(crate) region: usize,
    /// Since when the region that is asked has been of no help.
    pub(crate) trouble_since: Option<Instant>,
    pub(crate) wallet: Wallet,
    pub(crate) refused_generation: u64,
    pub(crate) counters: Arc<Counters>,
    pub(crate) closed: Arc<OnceLock<ClientError>>,
    pub(crate) rng: StdRng,
    pub(crate) channels: HashMap<ChannelName, Channel>,
    pub(crate) connections: HashMap<u64, Connection>,
    pub(crate) last_connection: u64,
    pub(crate) heard_sender: mpsc::Sender<(u64, Heard)>,
    heard: mpsc::Receiver<(u64, Heard)>,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::Sender<Event>,
    /// Events the application has no room for yet; nothing is read until they are gone.
    outbox: VecDeque<Event>,
    pub(crate) jobs: JoinSet<Done>,
    /// Something changed that may call for action.
    pub(crate) dirty: bool,
    next_time: Option<Instant>,
}

/// What a driver starts from.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) options: Arc<Options>,
    pub(crate) regions: Arc<[RegionAddress]>,
    pub(crate) wallet: Wallet,
    pub(crate) counters: Arc<Counters>,
    pub(crate) closed: Arc<OnceLock<ClientError>>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Driver {
    pub(crate) fn new(start: Start) -> Self {
        let (heard_sender, heard) = mpsc::channel(HEARD);
        Self {
            user: start.options.user.clone(),
            rng: tokens::rng(&start.options),
            options: start.options,
            regions: start.regions,
            region: 0,
            trouble_since: None,
            wallet: start.wallet,
            refused_generation: 0,
            counters: start.counters,
            closed: start.closed,
            channels: HashMap::new(),
            connections: HashMap::new(),
            last_connection: 0,
            heard_sender,
            heard,
            commands: start.commands,
            events: start.events,
            outbox: VecDeque::new(),
            jobs: JoinSet::new(),
            dirty: false,
            next_time: None,
        }
    }

    /// Until the client is closed, here or by a server.
    pub(crate) async fn run(mut self) {
        let mut goodbye = None;
        while self.closed.get().is_none() {
            if self.dirty {
                self.act(Instant::now());
            }
            let next_time = self.next_time;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Close { reply }) => {
                        goodbye = Some(reply);
                        self.close(ClientError::closed());
                    }
                    Some(command) => self.obey(command),
                    None => self.close(ClientError::closed()),
                },
                () = room(&self.events), if !self.outbox.is_empty() => self.empty_outbox(),
                Some((connection, heard)) = self.heard.recv(), if self.outbox.is_empty() => {
                    self.hear(connection, heard);
                }
                Some(done) = self.jobs.join_next() => match done {
                    Ok(Done::Resolved { channels, routes }) => self.resolved(channels, routes),
                    Ok(Done::Stream) => {}
                    Err(err) => tracing::error!(%err, "a task of the client failed"),
                },
                () = self.wallet.changed() => self.tokens_changed(),
                () = sleep_until(next_time), if next_time.is_some() => self.dirty = true,
            }
        }
        self.finish(goodbye).await;
    }

    /// Says goodbye on every stream, then tells the application the rest.
    async fn finish(mut self, goodbye: Option<oneshot::Sender<()>>) {
        self.commands.close();
        self.heard.close();
        for (_, connection) in self.connections.drain() {
            connection.closing.cancel();
        }
        let ending = async { while self.jobs.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, ending).await.is_err() {
            tracing::debug!("streams were still open when the client closed");
        }
        if let Some(reply) = goodbye {
            // Nobody may wait for it.
            reply.send(()).ok();
        }
        let Self {
            outbox,
            events,
            commands,
            jobs,
            ..
        } = self;
        drop((commands, jobs));
        for event in outbox {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn emit(&mut self, event: Event) {
        if self.outbox.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => self.outbox.push_back(event),
            }
        } else {
            self.outbox.push_back(event);
        }
    }

    fn empty_outbox(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                self.outbox.push_front(event);
                return;
            }
        }
    }

    /// Ends the client: everything that waits fails with `why`.
    pub(crate) fn close(&mut self, why: ClientError) {
        let (code, reason) = match &why {
            ClientError::Closed { code, reason } => (code.clone(), reason.clone()),
            ClientError::Refused(refusal) => {
                (refusal.code.as_str().to_owned(), refusal.message.clone())
            }
            other => ("closed".to_owned(), other.to_string()),
        };
        let why = ClientError::Closed {
            code: code.clone(),
            reason: reason.clone(),
        };
        for (_, mut channel) in self.channels.drain() {
            channel.outgoing.fail_all(&why);
            for reply in channel.joins.drain(..) {
                drop(reply.send(Err(why.clone())));
            }
        }
        self.emit(Event::Closed { code, reason });
        // Only the first reason counts.
        drop(self.closed.set(why));
    }

    /// Does what is due, and finds out when to look again.
    fn act(&mut self, now: Instant) {
        self.dirty = false;
        self.expire(now);
        self.leave_settled();
        self.go_where_told(now);
        self.place(now);
        self.send(now);
        let away = self
            .connections
            .values()
            .filter_map(|open| Some(open.go_away.as_ref()?.0));
        let channels = self.channels.values_mut();
        self.next_time = away
            .chain(channels.filter_map(|channel| channel.next_time(now)))
            .min();
    }

    fn expire(&mut self, now: Instant) {
        let mut given_up = Vec::new();
        for channel in self.channels.values_mut() {
            channel.outgoing.expire(now, self.options.publish_deadline);
            if channel.give_up_at.is_some_and(|at| at <= now) {
                given_up.push((channel.name.clone(), channel.last_trouble.clone()));
            }
        }
        for (name, last) in given_up {
            let after = self.options.call_deadline;
            self.forget(
                &name,
                &ClientError::TimedOut {
                    what: "joining",
                    after,
                    last,
                },
            );
        }
    }
}

/// Resolves when there is room for an event, or nobody left to take one.
async fn room(events: &mpsc::Sender<Event>) {
    drop(events.reserve().await);
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
