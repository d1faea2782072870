//! One client's stream: what it sends, what it is sent, and when it ends.

mod catch_up;
mod channels;
mod frames;
mod handshake;
mod mailbox;
mod pace;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use infrachat_proto::chat::v1::{self as chat, server_event::Kind};
use infrachat_runtime::Line;
use infrachat_types::{ChannelName, CloseCode, SessionId, UnixMillis, UserName};
use tokio::time::Instant;

pub(crate) use self::mailbox::{Mailbox, Note};
use self::{
    channels::Seated,
    handshake::{Admitted, Closing, Heartbeat},
    mailbox::Notes,
    pace::{Limiter, Pace},
};
use crate::{
    counted::{CLIENT_LEFT, CONNECTION_LOST, COUNTED},
    inbound::{Inbound, Unreadable},
    memory::SESSION,
    outlet::{self, Outlet},
    parts::Parts,
    registry::SessionHandle,
    run::Author,
};

/// A burst of publishes may be this many times the rate of a second.
const BURST: u32 = 4;
/// How long a closed session is given to hear why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    parts: Arc<Parts>,
    user: UserName,
    auth_expires_at: UnixMillis,
    heartbeat: Heartbeat,
    notes: Notes,
    outlet: Arc<Outlet>,
    channels: HashMap<u64, Seated>,
    numbers: HashMap<ChannelName, u64>,
    next_number: u64,
    /// Channels that are read from history first.
    replaying: VecDeque<u64>,
    in_flight: usize,
    limiter: Limiter,
    pace: Pace,
    last_heard: Instant,
    /// Since when something waits to be sent and nothing is: the frames taken until then.
    stuck: Option<(u64, Instant)>,
    /// Set once `Close` was queued: when to end at the latest.
    closing: Option<Instant>,
    closed_as: Option<CloseCode>,
}

/// A stream's session, to be run, and the body of its response.
pub(crate) fn open(
    parts: &Arc<Parts>,
    inbound: Inbound,
    line: Option<Line>,
) -> (impl Future<Output = ()> + Send + use<>, outlet::Body) {
    let id = SessionId::random();
    let (mailbox, notes) = Mailbox::new();
    let outlet = Outlet::new(parts, Author::new(id), mailbox);
    let body = outlet::Body::new(Arc::clone(&outlet), line.clone());
    (serve(outlet, notes, inbound, line), body)
}

/// Serves a stream to its end.
async fn serve(outlet: Arc<Outlet>, notes: Notes, mut inbound: Inbound, line: Option<Line>) {
    if let Err(closing) = admit_and_run(&outlet, notes, &mut inbound).await {
        COUNTED.closed(closing.0.as_str());
        outlet.say(infrachat_proto::event_entry(Kind::Close(close_event(
            &closing,
        ))));
    }
    outlet.end();
    let drained = async {
        while !outlet.is_drained() {
            outlet.turned().await;
        }
    };
    // A client that does not even hear why its session ended keeps nothing waiting for it.
    if tokio::time::timeout(LAST_WORDS, drained).await.is_err()
        && let Some(line) = line
    {
        line.hang_up();
    }
}

/// Runs the session that a client opens, if it may.
async fn admit_and_run(
    outlet: &Arc<Outlet>,
    notes: Notes,
    inbound: &mut Inbound,
) -> Result<(), Closing> {
    let Some(mut session) = Box::pin(admit(outlet, notes, inbound)).await? else {
        return Ok(());
    };
    let why = session.run(inbound).await;
    outlet.parts.sessions.remove(session.id());
    COUNTED.closed(why);
    tracing::debug!(session = %session.id(), why, "a session ended");
    Ok(())
}

/// Opens the session. `None`: the client left before.
async fn admit(
    outlet: &Arc<Outlet>,
    notes: Notes,
    inbound: &mut Inbound,
) -> Result<Option<Session>, Closing> {
    let parts = &outlet.parts;
    let Some(admitted) = handshake::admit(parts, inbound).await? else {
        return Ok(None);
    };
    let id = outlet.reader.session().clone();
    let claims = &admitted.claims;
    if !parts.memory.admits() {
        let reason = "this shard is short of memory: try again later";
        return Err((CloseCode::Overloaded, reason.to_owned()));
    }
    let handle = SessionHandle {
        mailbox: outlet.mailbox.clone(),
        user: claims.user.clone(),
        family: claims.family.clone(),
        signed_in_at: claims.issued_at,
        _weight: parts.memory.weigh(SESSION),
    };
    if !parts.sessions.insert(id.clone(), handle) {
        let reason = "this shard has as many sessions as it takes: try again later";
        return Err((CloseCode::TooManySessions, reason.to_owned()));
    }
    // One that was revoked while the session was not known yet closed nothing.
    if let Err(refusal) = parts.callers.still_good(claims).await {
        parts.sessions.remove(&id);
        return Err(handshake::not_admitted(refusal));
    }
    COUNTED.sessions_opened.increment(1);
    let session = Session::new(outlet, &admitted, notes);
    tracing::debug!(session = %id, user = %claims.user, "a session opened");
    Ok(Some(session))
}

fn close_event((code, reason): &Closing) -> chat::Close {
    let retry_after = match code {
        CloseCode::TooManySessions | CloseCode::Overloaded | CloseCode::KeysUnavailable => 1_000,
        _ => 0,
    };
    chat::Close {
        code: code.as_str().to_owned(),
        reason: reason.clone(),
        reconnect: code.reconnect(),
        retry_after_ms: retry_after,
        resume_endpoint: String::new(),
    }
}

impl Session {
    fn new(outlet: &Arc<Outlet>, admitted: &Admitted, notes: Notes) -> Self {
        let parts = &outlet.parts;
        let publishes = parts.tuning.publish_per_second;
        let session = Self {
            parts: Arc::clone(parts),
            user: admitted.claims.user.clone(),
            auth_expires_at: admitted.claims.expires_at,
            heartbeat: admitted.heartbeat,
            notes,
            outlet: Arc::clone(outlet),
            channels: HashMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            replaying: VecDeque::new(),
            in_flight: 0,
            limiter: pace::limiter(publishes, publishes.saturating_mul(BURST)),
            pace: Pace::new(&parts.tuning),
            last_heard: Instant::now(),
            stuck: None,
            closing: None,
            closed_as: None,
        };
        let welcome = handshake::welcome(parts, session.id(), admitted);
        session.say(Kind::Welcome(welcome));
        session
    }

    fn id(&self) -> &SessionId {
        self.outlet.reader.session()
    }

    /// Runs to the end, and answers why it came, as it is counted.
    async fn run(&mut self, inbound: &mut Inbound) -> &'static str {
        let alarm = tokio::time::sleep_until(self.next_check());
        tokio::pin!(alarm);
        let why = loop {
            if self.closing.is_some() && self.outlet.is_drained() {
                break CLIENT_LEFT;
            }
            let listening = self.closing.is_none() && self.outlet.has_room();
            let replaying = listening && !self.replaying.is_empty();
            let in_time = self.pace.closed_until().is_none();
            tokio::select! {
                // What is done with it lives only while it is done: most sessions are idle.
                frame = inbound.message(), if listening && in_time => match frame {
                    Ok(Some(frame)) => Box::pin(self.heard(frame)).await,
                    Err(Unreadable::Bad(reason)) => self.close((CloseCode::BadFrame, reason)),
                    Ok(None) => break CLIENT_LEFT,
                    Err(Unreadable::Lost) => break CONNECTION_LOST,
                },
                note = self.notes.next() => Box::pin(self.note(note)).await,
                () = std::future::ready(()), if replaying => Box::pin(self.replay_on()).await,
                () = self.outlet.turned(), if !listening => {
                    if self.outlet.is_gone() {
                        break CONNECTION_LOST;
                    }
                }
                () = &mut alarm => {
                    if self.check(Instant::now()) {
                        break CloseCode::SlowConsumer.as_str();
                    }
                    alarm.as_mut().reset(self.next_check());
                }
            }
            let sooner = self.closing.or(self.pace.closed_until());
            if let Some(at) = sooner.filter(|at| *at < alarm.deadline()) {
                alarm.as_mut().reset(at);
            }
        };
        self.leave_all();
        self.closed_as.map_or(why, CloseCode::as_str)
    }

    /// When the next of the session's deadlines may come.
    fn next_check(&self) -> Instant {
        if let Some(end) = self.closing {
            return end;
        }
        let now = Instant::now();
        let left = self.auth_expires_at.saturating_sub(self.parts.clock.now());
        let auth = now + Duration::from_millis(u64::try_from(left).unwrap_or_default());
        let heard = self.last_heard + self.heartbeat.timeout;
        // Often enough to notice in time that nothing is taken.
        let look = now + self.heartbeat.timeout / 2;
        let stuck = self.stuck.map(|(_, since)| since + self.heartbeat.timeout);
        let paced = self.pace.closed_until().unwrap_or(look);
        auth.min(heard)
            .min(look)
            .min(stuck.unwrap_or(look))
            .min(paced)
    }

    /// Closes the session when a deadline has passed; answers whether it must end without a word.
    fn check(&mut self, now: Instant) -> bool {
        if self.pace.closed_until().is_some_and(|until| now >= until) {
            self.count_frame();
        }
        let passed = |since: Instant| now >= since + self.heartbeat.timeout;
        let (pending, taken) = self.outlet.progress();
        self.stuck = match self.stuck {
            Some((before, since)) if pending && before == taken => Some((before, since)),
            _ => pending.then_some((taken, now)),
        };
        if self.closing.is_some_and(|end| now >= end)
            || self.stuck.is_some_and(|(_, since)| passed(since))
        {
            return true;
        }
        if self.closing.is_some() {
            return false;
        }
        if passed(self.last_heard) {
            let reason = format!(
                "nothing was heard for {:?}: send Ping",
                self.heartbeat.timeout
            );
            self.close((CloseCode::HeartbeatTimeout, reason));
        } else if self.parts.clock.now() >= self.auth_expires_at {
            let reason = "the access token has expired: reconnect with a fresh one, and Reauthenticate in time";
            self.close((CloseCode::TokenExpired, reason.to_owned()));
        }
        false
    }

    /// Queues an event for the client.
    fn say(&self, kind: Kind) {
        self.outlet.say(infrachat_proto::event_entry(kind));
    }

    /// Queues the last event. Nothing is listened to afterwards.
    fn close(&mut self, closing: Closing) {
        if self.closing.is_none() {
            self.say(Kind::Close(close_event(&closing)));
            self.outlet.close();
            self.closing = Some(Instant::now() + LAST_WORDS);
            self.closed_as = Some(closing.0);
        }
    }
}
