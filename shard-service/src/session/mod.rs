//! One client's stream: what it sends, what it is sent, and when it ends.

mod catch_up;
mod channels;
mod frames;
mod handshake;
mod mailbox;

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use governor::{
    Quota, RateLimiter,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use infrachat_identity::TokioClock;
use infrachat_proto::chat::v1::{self as chat, server_event::Kind};
use infrachat_types::{ChannelName, CloseCode, SessionId, UnixMillis, UserName};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Code, Status, Streaming};

pub(crate) use self::mailbox::{Mailbox, Note};
use self::{
    channels::Seated,
    handshake::{Admitted, Closing, Heartbeat},
};
use crate::{
    counted::{CLIENT_LEFT, CONNECTION_LOST, COUNTED},
    parts::Parts,
    reader::Ear,
    registry::SessionHandle,
    tally::Tally,
};

/// What a client is sent, frame by frame.
pub(crate) type Outbound = mpsc::Sender<Result<Bytes, Status>>;

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// About the most bytes of one frame.
const FRAME: usize = 32 * 1024;
/// Answers that may wait to be sent before the session stops listening.
const OUTBOX: usize = 256;
/// A burst of publishes may be this many times the rate of a second.
const BURST: NonZeroU32 = NonZeroU32::new(4).unwrap();
/// How long a closed session is given to hear why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    parts: Arc<Parts>,
    id: SessionId,
    user: UserName,
    auth_expires_at: UnixMillis,
    heartbeat: Heartbeat,
    mailbox: Mailbox,
    notes: mpsc::UnboundedReceiver<Note>,
    ear: Arc<Ear>,
    channels: HashMap<u64, Seated>,
    numbers: HashMap<ChannelName, u64>,
    next_number: u64,
    /// Encoded answers, to be sent before anything from a channel.
    outbox: VecDeque<Bytes>,
    in_flight: usize,
    limiter: Limiter,
    last_heard: Instant,
    /// Since when something waits that can't be sent.
    blocked_since: Option<Instant>,
    /// Set once `Close` was queued: when to end at the latest.
    closing: Option<Instant>,
    closed_as: Option<CloseCode>,
    tally: Tally,
}

/// Serves a stream to its end.
pub(crate) async fn serve(parts: Arc<Parts>, mut inbound: Streaming<Bytes>, outbound: Outbound) {
    let admitted = match handshake::admit(&parts, &mut inbound).await {
        Ok(Some(admitted)) => admitted,
        Ok(None) => return,
        Err(closing) => return turn_away(&outbound, &closing).await,
    };
    let (mailbox, notes) = Mailbox::new();
    let id = SessionId::random();
    let claims = &admitted.claims;
    let handle = SessionHandle {
        mailbox: mailbox.clone(),
        user: claims.user.clone(),
        family: claims.family.clone(),
        signed_in_at: claims.issued_at,
    };
    if !parts.sessions.insert(id.clone(), handle) {
        let reason = "this shard has as many sessions as it takes: try again later";
        return turn_away(&outbound, &(CloseCode::TooManySessions, reason.to_owned())).await;
    }
    // One that was revoked while the session was not known yet closed nothing.
    if let Err(refusal) = parts.callers.still_good(claims).await {
        parts.sessions.remove(&id);
        return turn_away(&outbound, &handshake::not_admitted(refusal)).await;
    }
    COUNTED.sessions_opened.increment(1);
    let session = Session::new(&parts, id.clone(), &admitted, (mailbox, notes));
    tracing::debug!(session = %id, user = %claims.user, "a session opened");
    let why = session.run(inbound, outbound).await;
    parts.sessions.remove(&id);
    COUNTED.closed(why);
    tracing::debug!(session = %id, why, "a session ended");
}

/// Says why, and ends the stream.
async fn turn_away(outbound: &Outbound, closing: &Closing) {
    COUNTED.closed(closing.0.as_str());
    let close = infrachat_proto::event_entry(Kind::Close(close_event(closing)));
    // A client that is gone needs no reason.
    drop(tokio::time::timeout(LAST_WORDS, outbound.send(Ok(close))).await);
}

fn close_event((code, reason): &Closing) -> chat::Close {
    let retry_after = match code {
        CloseCode::TooManySessions | CloseCode::KeysUnavailable => 1_000,
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
    fn new(
        parts: &Arc<Parts>,
        id: SessionId,
        admitted: &Admitted,
        (mailbox, notes): (Mailbox, mpsc::UnboundedReceiver<Note>),
    ) -> Self {
        let rate = NonZeroU32::new(parts.tuning.publish_per_second).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(rate).allow_burst(rate.saturating_mul(BURST));
        let mut session = Self {
            parts: Arc::clone(parts),
            user: admitted.claims.user.clone(),
            auth_expires_at: admitted.claims.expires_at,
            heartbeat: admitted.heartbeat,
            mailbox,
            notes,
            ear: Arc::default(),
            channels: HashMap::new(),
            numbers: HashMap::new(),
            next_number: 0,
            outbox: VecDeque::new(),
            in_flight: 0,
            limiter: RateLimiter::direct_with_clock(quota, TokioClock::default()),
            last_heard: Instant::now(),
            blocked_since: None,
            closing: None,
            closed_as: None,
            tally: Tally::default(),
            id,
        };
        let welcome = handshake::welcome(parts, &session.id, admitted);
        session.say(Kind::Welcome(welcome));
        session
    }

    /// Runs to the end, and answers why it came, as it is counted.
    async fn run(mut self, mut inbound: Streaming<Bytes>, outbound: Outbound) -> &'static str {
        let alarm = tokio::time::sleep_until(self.next_check());
        tokio::pin!(alarm);
        let why = loop {
            let to_send = self.has_to_send();
            if !to_send && self.closing.is_some() {
                break CLIENT_LEFT;
            }
            let listening = self.closing.is_none() && self.outbox.len() < OUTBOX;
            tokio::select! {
                permit = outbound.reserve(), if to_send => match permit {
                    Ok(permit) => {
                        self.blocked_since = None;
                        if let Some(frame) = self.next_frame().await {
                            permit.send(Ok(frame));
                        }
                    }
                    Err(_) => break CONNECTION_LOST,
                },
                frame = inbound.message(), if listening => match frame {
                    Ok(Some(frame)) => self.heard(frame).await,
                    Err(err) if err.code() == Code::OutOfRange => {
                        self.close((CloseCode::BadFrame, err.message().to_owned()));
                    }
                    Ok(None) => break CLIENT_LEFT,
                    Err(_) => break CONNECTION_LOST,
                },
                Some(note) = self.notes.recv() => self.note(note),
                () = self.ear.heard() => {}
                () = &mut alarm => {
                    if self.check(Instant::now()) {
                        break CloseCode::SlowConsumer.as_str();
                    }
                    alarm.as_mut().reset(self.next_check());
                }
            }
            if self.blocked_since.is_none() && self.has_to_send() {
                self.blocked_since = Some(Instant::now());
            }
            if let Some(end) = self.closing.filter(|end| *end < alarm.deadline()) {
                alarm.as_mut().reset(end);
            }
        };
        self.leave_all();
        self.closed_as.map_or(why, CloseCode::as_str)
    }

    fn has_to_send(&self) -> bool {
        !self.outbox.is_empty() || (self.closing.is_none() && !self.ear.is_empty())
    }

    /// When the next of the session's deadlines may come.
    fn next_check(&self) -> Instant {
        if let Some(end) = self.closing {
            return end;
        }
        let left = self.auth_expires_at.saturating_sub(self.parts.clock.now());
        let auth = Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or_default());
        let heard = self.last_heard + self.heartbeat.timeout;
        let blocked = self
            .blocked_since
            .map(|since| since + self.heartbeat.timeout);
        [Some(auth), Some(heard), blocked]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(heard)
    }

    /// Closes the session when a deadline has passed; answers whether it must end without a word.
    fn check(&mut self, now: Instant) -> bool {
        let passed = |since: Instant| now >= since + self.heartbeat.timeout;
        if self.closing.is_some_and(|end| now >= end) || self.blocked_since.is_some_and(passed) {
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
    fn say(&mut self, kind: Kind) {
        self.outbox.push_back(infrachat_proto::event_entry(kind));
    }

    /// Queues the last event. Nothing is listened to afterwards.
    fn close(&mut self, closing: Closing) {
        if self.closing.is_none() {
            self.say(Kind::Close(close_event(&closing)));
            self.closing = Some(Instant::now() + LAST_WORDS);
            self.closed_as = Some(closing.0);
        }
    }

    /// What goes into the next frame: answers first, then what the channels have.
    async fn next_frame(&mut self) -> Option<Bytes> {
        let mut pieces = Vec::new();
        let mut size = 0;
        while size < FRAME
            && let Some(answer) = self.outbox.pop_front()
        {
            size += answer.len();
            pieces.push(answer);
        }
        while size < FRAME
            && self.closing.is_none()
            && let Some(number) = self.ear.take()
        {
            let before = pieces.len();
            if self.read_channel(number, FRAME - size, &mut pieces).await {
                // A page of history took its time: others have their turn first.
                break;
            }
            size += pieces[before..].iter().map(Bytes::len).sum::<usize>();
        }
        let now = self.parts.clock.now();
        self.tally.sent(&self.parts.sources, &self.id, now);
        match pieces.len() {
            0 => None,
            1 => pieces.pop(),
            _ => {
                let mut frame = BytesMut::with_capacity(size);
                pieces
                    .iter()
                    .for_each(|piece| frame.extend_from_slice(piece));
                Some(frame.freeze())
            }
        }
    }
}
