//! Puts events on the bus, in the order of each channel, whatever fails meanwhile.
//!
//! A partition has a few lanes; a channel always uses the same one, which is its ordering key. An
//! event that the bus has not accepted is tried again before later ones of its lane. One that is
//! given up ends the channel's origin: its numbers stay dense, so receivers know that nothing is
//! missing between them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use infrachat_bus::{BusError, Event, EventBus, Topic};
use infrachat_proto::{Refusal, bus::v1 as bus};
use infrachat_types::{ClientMessageId, ErrorCode, Message, OriginId, Region};
use prost::Message as _;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    channel::{Appended, Channel, Incoming},
    counted::COUNTED,
    ingest,
    memory::Weight,
    parts::Parts,
    session::Mailbox,
    traces::PublishSpan,
};

/// Events handed to the bus and not yet accepted, a lane.
const WINDOW: usize = 256;
/// First wait after a failure; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Something to put on the bus.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) channel: Arc<Channel>,
    pub(crate) content: Content,
}

/// What it is.
#[derive(Debug)]
pub(crate) enum Content {
    /// A message, whose sender waits to hear.
    Message {
        message: Message,
        _weight: Weight,
        /// The sender's message before it.
        after: Option<ClientMessageId>,
        attempt: u32,
        span: PublishSpan,
        mailbox: Mailbox,
        began: Instant,
        deadline: Instant,
    },
    /// Presence or typing: told if possible.
    Passing(bus::envelope::Kind),
}

impl Content {
    /// Tells the sender of a message that it was not taken.
    fn refuse(&self, refusal: Refusal) {
        if let Self::Message {
            message,
            span,
            mailbox,
            ..
        } = self
        {
            span.refused(message, refusal.code);
            mailbox.refused(message, refusal);
        }
    }
}

/// A lane takes nothing more at the moment, or for good.
#[derive(Debug)]
pub(crate) struct LaneFull;

/// The lanes of a partition.
#[derive(Debug)]
pub(crate) struct Lanes {
    senders: Vec<mpsc::Sender<Outgoing>>,
    pending: Arc<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    count: AtomicUsize,
    settled: Notify,
}

impl Lanes {
    pub(crate) fn start(
        topic: &Topic,
        parts: &Arc<Parts>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let pending = Arc::new(Pending::default());
        let lane = |number| {
            let (sender, queue) = mpsc::channel(WINDOW);
            let lane = Lane {
                key: format!("{}-{number}", parts.region),
                topic: topic.clone(),
                region: parts.region.clone(),
                bus: Arc::clone(&parts.bus),
                pending: Arc::clone(&pending),
                queue,
                in_flight: VecDeque::new(),
                failed: VecDeque::new(),
                pause: FIRST_PAUSE,
                failing: None,
            };
            let stop = stop.clone();
            tasks.spawn(lane.run(stop));
            sender
        };
        // A bounded number of ordering keys a region, however many channels there are.
        let lanes = (infrachat_routing::LANES / parts.partition_count.get()).max(1);
        Self {
            senders: (0..lanes).map(lane).collect(),
            pending,
        }
    }

    /// Queues it, unless the lane is full.
    pub(crate) fn push(&self, outgoing: Outgoing) -> Result<(), LaneFull> {
        let lanes = u32::try_from(self.senders.len()).unwrap_or(1);
        let lane = infrachat_routing::lane_of(outgoing.channel.name.as_str(), lanes);
        let sender = &self.senders[lane as usize];
        self.pending.count.fetch_add(1, Ordering::AcqRel);
        sender.try_send(outgoing).map_err(|_| {
            self.pending.settle();
            LaneFull
        })
    }

    /// Waits until everything queued was accepted or given up.
    pub(crate) async fn empty(&self) {
        loop {
            let settled = self.pending.settled.notified();
            if self.pending.count.load(Ordering::Acquire) == 0 {
                return;
            }
            settled.await;
        }
    }
}

impl Pending {
    fn settle(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_waiters();
        }
    }
}

struct Lane {
    key: String,
    topic: Topic,
    region: Region,
    bus: Arc<dyn EventBus>,
    pending: Arc<Pending>,
    queue: mpsc::Receiver<Outgoing>,
    in_flight: VecDeque<InFlight>,
    /// Failed, and about to be handed over again.
    failed: VecDeque<InFlight>,
    pause: Duration,
    failing: Option<Failing>,
}

/// The bus takes nothing of a lane for as long as this lives.
struct Failing;

impl Failing {
    fn begin() -> Self {
        COUNTED.bus_degraded.increment(1);
        Self
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        COUNTED.bus_degraded.decrement(1);
    }
}

struct InFlight {
    outgoing: Outgoing,
    origin: (OriginId, u64),
    accepted: BoxFuture<'static, Result<(), BusError>>,
}

impl Lane {
    /// Publishes until `stop`; whoever still waits then hears that the outcome is unknown.
    async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.work()).await;
        self.queue.close();
        let left = self.failed.drain(..).chain(self.in_flight.drain(..));
        let mut left: Vec<_> = left.map(|in_flight| in_flight.outgoing).collect();
        while let Ok(outgoing) = self.queue.try_recv() {
            left.push(outgoing);
        }
        for outgoing in left {
            let text =
                "the channel moves to another shard: send the message there, with the same id";
            outgoing
                .content
                .refuse(Refusal::new(ErrorCode::Unavailable, text));
            self.pending.settle();
        }
    }

    async fn work(&mut self) {
        loop {
            tokio::select! {
                biased;
                outcome = front(&mut self.in_flight) => match outcome {
                    Ok(()) => self.accepted(),
                    Err(err) => self.recover(err).await,
                },
                outgoing = self.queue.recv(), if self.in_flight.len() < WINDOW => match outgoing {
                    Some(outgoing) => self.hand_over(outgoing),
                    None => return,
                },
            }
        }
    }

    /// Gives the event its number and to the bus; from here on its place is settled.
    fn hand_over(&mut self, outgoing: Outgoing) {
        if let Content::Message { message, after, .. } = &outgoing.content
            && !outgoing.channel.may_pass(message, *after)
        {
            let refusal = Refusal::new(
                ErrorCode::OutOfOrder,
                "an earlier message of yours in this channel was given up: send that one again first",
            );
            outgoing.content.refuse(refusal);
            self.pending.settle();
            return;
        }
        let origin = match &outgoing.content {
            Content::Passing(_) => (OriginId::from_text(""), 0),
            Content::Message { .. } => outgoing.channel.next_origin_seq(),
        };
        self.put(outgoing, origin);
    }

    fn put(&mut self, mut outgoing: Outgoing, origin: (OriginId, u64)) {
        let event = self.event(&outgoing, &origin);
        if let Content::Message { span, .. } = &mut outgoing.content {
            span.handed_over();
        }
        let accepted = self.bus.publish(&self.topic, event);
        self.in_flight.push_back(InFlight {
            outgoing,
            origin,
            accepted,
        });
    }

    fn event(&self, outgoing: &Outgoing, (origin, origin_seq): &(OriginId, u64)) -> Event {
        let (kind, traceparent) = match &outgoing.content {
            Content::Passing(kind) => (kind.clone(), String::new()),
            Content::Message {
                message,
                attempt,
                span,
                ..
            } => {
                let traceparent = span.traceparent();
                let kind = bus::envelope::Kind::Message(bus::MessageEvent {
                    message_id: message.message_id.to_bytes().to_vec().into(),
                    sender: message.sender.to_string(),
                    client_message_id: message.client_message_id.as_bytes().to_vec().into(),
                    body: message.body.clone(),
                    published_at_ms: message.published_at,
                    session_id: message.session_id.to_string(),
                    attempt: *attempt,
                    traceparent: traceparent.clone(),
                });
                (kind, traceparent)
            }
        };
        let envelope = bus::Envelope {
            channel: outgoing.channel.name.to_string(),
            region: self.region.to_string(),
            origin: origin.to_string(),
            origin_seq: *origin_seq,
            kind: Some(kind),
        };
        let attributes = (!traceparent.is_empty()).then(|| ("traceparent".to_owned(), traceparent));
        Event {
            ordering_key: self.key.clone(),
            payload: envelope.encode_to_vec().into(),
            attributes: attributes.into_iter().collect(),
        }
    }

    /// The bus has the oldest event: readers of this region get it now, and its sender hears.
    fn accepted(&mut self) {
        self.pause = FIRST_PAUSE;
        self.failing = None;
        let Some(InFlight {
            outgoing, origin, ..
        }) = self.in_flight.pop_front()
        else {
            return;
        };
        if let Content::Message {
            message,
            mailbox,
            mut span,
            began,
            ..
        } = outgoing.content
        {
            span.answered(Ok(()));
            let acked = |message_id| {
                COUNTED.ack_seconds.record(began.elapsed());
                COUNTED.published_bytes.increment(message.body.len() as u64);
                span.acked(message_id);
                mailbox.acked(&message, message_id, message_id != message.message_id);
            };
            let incoming = Incoming {
                trace: span.traced(),
                message: message.clone(),
                origin: origin.0,
                origin_seq: origin.1,
                delivery: None,
            };
            match outgoing.channel.append(incoming) {
                Appended::New => {
                    acked(message.message_id);
                    // History may have been quicker than this acknowledgement.
                    outgoing.channel.tell_if_stable(&message, &mailbox);
                }
                Appended::Duplicate {
                    same_body: false, ..
                } => {
                    let refusal = ingest::reused();
                    span.refused(&message, refusal.code);
                    mailbox.refused(&message, refusal);
                }
                // Another copy came first; with the same id, it is this one, back from the bus.
                Appended::Duplicate { message_id, .. } => {
                    acked(message_id);
                    outgoing.channel.tell_when_stable(&message, &mailbox);
                }
            }
        }
        self.pending.settle();
    }

    /// Waits a moment, then hands everything over again, in order, from the oldest on.
    async fn recover(&mut self, err: BusError) {
        tracing::warn!(topic = %self.topic, key = self.key, %err, in_flight = self.in_flight.len(), "publishing failed");
        self.failing.get_or_insert_with(Failing::begin);
        self.failed = std::mem::take(&mut self.in_flight);
        // What was handed over after the one that failed must have failed as well: only then is the
        // key let go on.
        for in_flight in self.failed.iter_mut().skip(1) {
            drop((&mut in_flight.accepted).await);
        }
        for in_flight in &mut self.failed {
            if let Content::Message { span, .. } = &mut in_flight.outgoing.content {
                span.answered(Err(&err));
            }
        }
        if !matches!(err, BusError::Refused(_) | BusError::NotFound(_)) {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else if let Some(refused) = self.failed.pop_front() {
            self.give_up(refused.outgoing, &err);
        }
        self.bus.resume(&self.topic, &self.key);
        let now = Instant::now();
        for InFlight {
            outgoing, origin, ..
        } in std::mem::take(&mut self.failed)
        {
            match &outgoing.content {
                // Presence is said anew from time to time.
                Content::Passing(_) => self.pending.settle(),
                Content::Message { deadline, .. } if *deadline <= now => {
                    self.give_up(outgoing, &err)
                }
                Content::Message { .. } => self.hand_over_again(outgoing, origin),
            }
        }
    }

    fn hand_over_again(&mut self, outgoing: Outgoing, origin: (OriginId, u64)) {
        if outgoing.channel.is_origin(&origin.0) {
            self.put(outgoing, origin);
        } else {
            self.hand_over(outgoing);
        }
    }

    fn give_up(&mut self, outgoing: Outgoing, err: &BusError) {
        if let Content::Message { message, .. } = &outgoing.content {
            outgoing.channel.renew_origin();
            outgoing
                .channel
                .refuse(&message.sender, message.client_message_id);
            let refusal = Refusal::new(
                ErrorCode::Unavailable,
                format!(
                    "the message may or may not arrive: send it again with the same id ({err})"
                ),
            );
            outgoing.content.refuse(refusal.retry_after(LONGEST_PAUSE));
        }
        self.pending.settle();
    }
}

async fn front(in_flight: &mut VecDeque<InFlight>) -> Result<(), BusError> {
    match in_flight.front_mut() {
        Some(front) => (&mut front.accepted).await,
        None => std::future::pending().await,
    }
}
