//! Takes what the bus delivers for a partition, from one source region, to the channels' logs.
//!
//! No copy is acknowledged before history has the message, duplicates included: so whatever the bus
//! no longer holds, history has.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use infrachat_bus::{ConsumeLimits, Consumer, Delivery, Subscription};
use infrachat_control::DeadLetters;
use infrachat_proto::{
    bus::v1::{self as bus, envelope::Kind},
    chat::v1 as chat,
};
use infrachat_types::{
    ChannelName, ClientMessageId, Message, MessageId, OriginId, Region, SessionId, UserName,
};
use metrics::Counter;
use prost::Message as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    channel::{Appended, Channel, Incoming, Known},
    counted::COUNTED,
    holes::{Hole, Numbers},
    memory::{MESSAGE, Weight},
    partition::Partition,
    parts::{Parts, in_time},
    presence::Heard,
    traces::RelaySpan,
};

/// Wait before asking a dependency again.
const RETRY: Duration = Duration::from_millis(200);

/// A consumer of one source region's topic of a partition.
pub(crate) struct Relay {
    pub(crate) partition: Arc<Partition>,
    pub(crate) parts: Arc<Parts>,
    pub(crate) subscription: Subscription,
    pub(crate) limits: ConsumeLimits,
    pub(crate) stop: CancellationToken,
    /// Events that came again.
    pub(crate) redelivered: Counter,
}

/// Why a consumer is over.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    ByTheBus,
    ShortOfMemory,
}

/// Why an event can't be understood.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Envelope(#[from] prost::DecodeError),
    #[error(transparent)]
    Name(#[from] infrachat_types::BadName),
    #[error(transparent)]
    Id(#[from] infrachat_types::BadId),
}

impl Relay {
    /// Relays until the partition is given back.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        // What is being handled when the stop comes is dropped, and so goes back to the bus.
        stop.run_until_cancelled_owned(self.consume()).await;
    }

    async fn consume(self) {
        let mut numbers = Numbers::new(self.parts.clock.now());
        // Seen from the start on, at 0.
        self.redelivered.increment(0);
        loop {
            match self
                .parts
                .bus
                .consume(&self.subscription, self.limits)
                .await
            {
                Ok(consumer) => match self.relay(consumer, &mut numbers).await {
                    Ended::ByTheBus => {
                        tracing::warn!(subscription = %self.subscription, "the bus ended a consumer; starting another");
                    }
                    Ended::ShortOfMemory => {
                        tracing::debug!(subscription = %self.subscription, "short of memory: what the bus has delivered goes back to it");
                        self.parts.memory.room().await;
                    }
                },
                Err(err) => {
                    tracing::warn!(subscription = %self.subscription, %err, "can't consume; trying again");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Relays until the consumer ends, or is given up: then the bus has back what it delivered and
    /// history does not have, and delivers it again to the next one.
    async fn relay(&self, mut consumer: Consumer, numbers: &mut Numbers) -> Ended {
        let mut held = Held::new(self.parts.memory.weightless());
        let mut full = std::pin::pin!(self.parts.memory.full());
        // Goes on while deliveries come.
        let mut again = tokio::time::interval(RETRY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = &mut full => return Ended::ShortOfMemory,
                () = self.partition.history.room() => {}
            }
            tokio::select! {
                () = &mut full => return Ended::ShortOfMemory,
                delivery = consumer.next() => match delivery {
                    Some(delivery) => self.handle(delivery, numbers, &mut held).await,
                    None => return Ended::ByTheBus,
                },
                _ = again.tick(), if !held.is_empty() => self.release(&mut held).await,
            }
        }
    }

    async fn handle(&self, delivery: Delivery, numbers: &mut Numbers, held: &mut Held) {
        if delivery.attempt > 1 {
            self.redelivered.increment(1);
        }
        let arrived = match read(&delivery) {
            Ok(Some(arrived)) => arrived,
            // From a newer version.
            Ok(None) => return delivery.ack(),
            Err(err) => return self.set_aside(delivery, &err),
        };
        let Arrived {
            channel: name,
            from,
            origin,
            content,
        } = arrived;
        match content {
            Content::Message(message, attempt, traceparent) => {
                let waiting = Waiting {
                    hole: numbers.check(&message, &origin),
                    traceparent,
                    message,
                    attempt,
                    origin,
                    delivery,
                };
                // Behind those of its channel that wait already.
                if held.has(&name) {
                    held.push_back(waiting);
                } else if let Err(waiting) = self.message(waiting).await {
                    held.push_back(waiting);
                }
            }
            Content::Typing(event) => {
                if let Some(channel) = self.partition.loaded_channel(&name) {
                    typing(&channel, event);
                }
                delivery.ack();
            }
            Content::Seats(kind) => {
                self.partition.heard(Heard {
                    channel: name,
                    from,
                    kind,
                });
                delivery.ack();
            }
        }
    }

    /// Appends a message, or gives it back when it has to wait for a store.
    async fn message(&self, mut waiting: Waiting) -> Result<(), Waiting> {
        let Ok(channel) = in_time(self.partition.channel(&waiting.message.channel)).await else {
            return Err(waiting);
        };
        if let Some(hole) = &waiting.hole {
            if !self.fill(hole, &channel).await {
                return Err(waiting);
            }
            waiting.hole = None;
        }
        let Waiting {
            traceparent,
            message,
            attempt,
            origin,
            delivery,
            hole: _,
        } = waiting;
        let span = RelaySpan::begin(&traceparent, &message);
        if channel.known(&message, attempt > 1) == Known::AskHistory {
            match in_time(self.parts.store.find_message(&message.identity())).await {
                Err(_) => {
                    return Err(Waiting {
                        traceparent,
                        message,
                        attempt,
                        origin,
                        delivery,
                        hole: None,
                    });
                }
                Ok(Some(entry)) if entry.message.message_id <= message.message_id => {
                    self.count_again(entry.message.message_id == message.message_id, &delivery);
                    delivery.ack();
                    return Ok(());
                }
                Ok(Some(entry)) => {
                    COUNTED.duplicates.retried.increment(1);
                    // The smaller id wins, in every region.
                    channel.write(message, (entry.epoch, entry.offset), origin, Some(delivery));
                    return Ok(());
                }
                Ok(None) => {}
            }
        }
        let incoming = Incoming {
            message,
            origin: origin.0,
            origin_seq: origin.1,
            delivery: Some(delivery),
            trace: span.traced(),
        };
        let counted = incoming.delivery.as_ref().is_some_and(|d| d.attempt > 1);
        let appended = channel.append(incoming);
        span.end(appended != Appended::New);
        let Appended::Duplicate {
            message_id,
            same_body,
            redelivered,
        } = appended
        else {
            return Ok(());
        };
        self.redelivered
            .increment(u64::from(redelivered && !counted));
        if !same_body {
            tracing::warn!(channel = %channel.name, %message_id, "a copy with another body was dropped");
        }
        Ok(())
    }

    /// Appends what did not come over the bus and the history of its region has. After a while, readers
    /// are told what is missing; until then, answers false if something is.
    async fn fill(&self, hole: &Hole, channel: &Arc<Channel>) -> bool {
        let found = match self.parts.stores.get(hole.region()) {
            Some(store) => in_time(hole.find(&channel.name, store)).await,
            None => Ok(Vec::new()),
        };
        let found = found.unwrap_or_else(|err| {
            tracing::warn!(channel = %channel.name, %err, "the history that fills a hole can't be read");
            Vec::new()
        });
        let missing = hole.size().saturating_sub(found.len());
        if missing > 0 && !hole.is_late() {
            return false;
        }
        tracing::warn!(channel = %channel.name, filled = found.len(), missing, "a hole was filled from history");
        for entry in found {
            if channel.known(&entry.message, false) == Known::AskHistory {
                let identity = entry.message.identity();
                if let Ok(Some(_)) = in_time(self.parts.store.find_message(&identity)).await {
                    continue;
                }
            }
            channel.append(Incoming {
                message: entry.message,
                origin: entry.origin,
                origin_seq: entry.origin_seq,
                delivery: None,
                trace: None,
            });
        }
        if missing > 0 {
            COUNTED.missing.increment(missing as u64);
            channel.append_gap(missing as u64, hole.region());
        }
        true
    }

    /// History has the message: a copy of it is dropped.
    fn count_again(&self, same_id: bool, delivery: &Delivery) {
        let counter = if same_id {
            &COUNTED.duplicates.redelivered
        } else {
            &COUNTED.duplicates.retried
        };
        counter.increment(1);
        if same_id && delivery.attempt == 1 {
            self.redelivered.increment(1);
        }
    }

    /// Tries again what had to wait, each channel in order.
    async fn release(&self, held: &mut Held) {
        for name in held.names() {
            while let Some(waiting) = held.pop_front(&name) {
                if let Err(waiting) = self.message(waiting).await {
                    let store_is_away = waiting.hole.is_none();
                    held.push_front(waiting);
                    if store_is_away {
                        tracing::warn!(channel = %name, "the store does not answer; messages wait");
                        return;
                    }
                    break;
                }
            }
        }
    }

    /// An event that can't be understood must not come for ever: the dead-letter topic keeps it.
    fn set_aside(&self, delivery: Delivery, err: &Unreadable) {
        let letters = DeadLetters::new(Arc::clone(&self.parts.bus), &self.parts.region);
        let (from, why) = (self.subscription.to_string(), err.to_string());
        let setting_aside = async move {
            while letters.put(&delivery.event, &from, &why).await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
            COUNTED.dead_letters.increment(1);
            delivery.ack();
        };
        self.parts
            .tasks
            .spawn(self.stop.clone().run_until_cancelled_owned(setting_aside));
    }
}

/// An event that can be understood.
struct Arrived {
    channel: ChannelName,
    from: Region,
    origin: (OriginId, u64),
    content: Content,
}

enum Content {
    /// A message, the number of its attempt, and the trace it is in.
    Message(Message, u32, String),
    Typing(bus::TypingEvent),
    Seats(Kind),
}

fn read(delivery: &Delivery) -> Result<Option<Arrived>, Unreadable> {
    let envelope = bus::Envelope::decode(delivery.event.payload.clone())?;
    let channel = ChannelName::new(&envelope.channel)?;
    let from = Region::new(&envelope.region)?;
    let content = match envelope.kind {
        None => return Ok(None),
        Some(Kind::Message(mut event)) => {
            let traceparent = std::mem::take(&mut event.traceparent);
            let (message, attempt) = message(event, &channel, &from)?;
            Content::Message(message, attempt, traceparent)
        }
        Some(Kind::Typing(event)) => Content::Typing(event),
        Some(kind) => Content::Seats(kind),
    };
    let origin = (OriginId::from_text(&envelope.origin), envelope.origin_seq);
    Ok(Some(Arrived {
        channel,
        from,
        origin,
        content,
    }))
}

/// A message that was delivered and can't be appended yet.
#[derive(Debug)]
struct Waiting {
    traceparent: String,
    message: Message,
    attempt: u32,
    origin: (OriginId, u64),
    delivery: Delivery,
    /// What should have come before it.
    hole: Option<Hole>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.message.body.len() + MESSAGE
    }
}

/// Messages that wait for the store, by channel: other channels go on. Bounded, since they count as
/// taken from the bus.
#[derive(Debug)]
struct Held {
    channels: HashMap<ChannelName, VecDeque<Waiting>>,
    bytes: usize,
    weight: Weight,
}

impl Held {
    fn new(weight: Weight) -> Self {
        Self {
            channels: HashMap::new(),
            bytes: 0,
            weight,
        }
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    fn has(&self, channel: &ChannelName) -> bool {
        self.channels.contains_key(channel)
    }

    fn names(&self) -> Vec<ChannelName> {
        self.channels.keys().cloned().collect()
    }

    fn push_back(&mut self, waiting: Waiting) {
        self.weigh(self.bytes + waiting.bytes());
        self.channels
            .entry(waiting.message.channel.clone())
            .or_default()
            .push_back(waiting);
    }

    fn push_front(&mut self, waiting: Waiting) {
        self.weigh(self.bytes + waiting.bytes());
        self.channels
            .entry(waiting.message.channel.clone())
            .or_default()
            .push_front(waiting);
    }

    fn pop_front(&mut self, channel: &ChannelName) -> Option<Waiting> {
        let queue = self.channels.get_mut(channel);
        let popped = queue.and_then(VecDeque::pop_front);
        match &popped {
            Some(waiting) => self.weigh(self.bytes - waiting.bytes()),
            None => drop(self.channels.remove(channel)),
        }
        popped
    }

    fn weigh(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.weight.set(bytes);
    }
}

fn message(
    event: bus::MessageEvent,
    channel: &ChannelName,
    from: &Region,
) -> Result<(Message, u32), Unreadable> {
    let message = Message {
        channel: channel.clone(),
        message_id: MessageId::from_bytes(&event.message_id)?,
        sender: UserName::new(&event.sender)?,
        client_message_id: ClientMessageId::from_bytes(&event.client_message_id)?,
        body: event.body,
        published_at: event.published_at_ms,
        region: from.clone(),
        session_id: SessionId::from_text(&event.session_id),
    };
    Ok((message, event.attempt))
}

fn typing(channel: &Channel, event: bus::TypingEvent) {
    let kind = chat::server_event::Kind::Typing(chat::Typing {
        channel: channel.name.to_string(),
        user: event.user,
    });
    channel.append_passing(kind, Some(SessionId::from_text(&event.session_id)));
}
