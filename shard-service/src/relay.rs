//! Takes what the bus delivers for a partition, from one source region, to the channels' logs.
//!
//! No copy is acknowledged before history has the message, duplicates included: so whatever the bus
//! no longer holds, history has.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use infrachat_bus::{ConsumeLimits, Delivery, Event, Subscription, Topic};
use infrachat_proto::{
    bus::v1::{self as bus, envelope::Kind},
    chat::v1 as chat,
};
use infrachat_types::{
    ChannelName, ClientMessageId, Message, MessageId, OriginId, Region, SessionId, UserName,
};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::{
    channel::{Appended, Channel, Incoming, Known},
    partition::Partition,
    parts::Parts,
    presence,
};

/// Wait before asking a dependency again.
const RETRY: Duration = Duration::from_millis(200);
/// Origins remembered to notice holes in their numbers.
const ORIGINS: usize = 10_000;

/// A consumer of one source region's topic of a partition.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) partition: Arc<Partition>,
    pub(crate) parts: Arc<Parts>,
    pub(crate) subscription: Subscription,
    pub(crate) limits: ConsumeLimits,
    pub(crate) stop: CancellationToken,
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
        let mut numbers = Numbers::default();
        loop {
            match self
                .parts
                .bus
                .consume(&self.subscription, self.limits)
                .await
            {
                Ok(mut consumer) => {
                    while let Some(delivery) = consumer.next().await {
                        self.partition.history.room().await;
                        self.handle(delivery, &mut numbers).await;
                    }
                    tracing::warn!(subscription = %self.subscription, "the bus ended a consumer; starting another");
                }
                Err(err) => {
                    tracing::warn!(subscription = %self.subscription, %err, "can't consume; trying again");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn handle(&self, delivery: Delivery, numbers: &mut Numbers) {
        let envelope = bus::Envelope::decode(delivery.event.payload.clone());
        let read = envelope.map_err(Unreadable::from).and_then(|envelope| {
            let names = (
                ChannelName::new(&envelope.channel)?,
                Region::new(&envelope.region)?,
            );
            Ok((names, envelope))
        });
        let ((name, from), envelope) = match read {
            Ok(read) => read,
            Err(err) => return self.set_aside(delivery, &err).await,
        };
        let origin = OriginId::from_text(&envelope.origin);
        match envelope.kind {
            Some(Kind::Message(event)) => {
                numbers.check(&name, &origin, envelope.origin_seq);
                match message(event, &name, &from) {
                    Ok((message, attempt)) => {
                        self.message(delivery, message, (origin, envelope.origin_seq), attempt)
                            .await;
                    }
                    Err(err) => self.set_aside(delivery, &err).await,
                }
            }
            Some(Kind::Typing(event)) => {
                if let Some(channel) = self.partition.loaded_channel(&name) {
                    typing(&channel, event);
                }
                delivery.ack();
            }
            Some(kind) => {
                numbers.check(&name, &origin, envelope.origin_seq);
                if let Some(channel) = self.channel(&name).await {
                    presence::heard(&self.parts, &channel, &from, kind).await;
                }
                delivery.ack();
            }
            // From a newer version.
            None => delivery.ack(),
        }
    }

    async fn message(
        &self,
        delivery: Delivery,
        message: Message,
        (origin, origin_seq): (OriginId, u64),
        attempt: u32,
    ) {
        let Some(channel) = self.channel(&message.channel).await else {
            return;
        };
        if channel.known(&message, attempt > 1) == Known::AskHistory
            && self.history_has(&message).await
        {
            return delivery.ack();
        }
        let incoming = Incoming {
            message,
            origin,
            origin_seq,
            delivery: Some(delivery),
        };
        if let Appended::Duplicate {
            message_id,
            same_body: false,
        } = channel.append(incoming)
        {
            tracing::warn!(channel = %channel.name, %message_id, "a copy with another body was dropped");
        }
    }

    /// The channel, as soon as history answers.
    async fn channel(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        loop {
            match self.partition.channel(name).await {
                Ok(channel) => return Some(channel),
                Err(err) => {
                    tracing::warn!(channel = %name, %err, "a channel can't be loaded; trying again")
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn history_has(&self, message: &Message) -> bool {
        loop {
            match self.parts.store.find_message(&message.identity()).await {
                Ok(found) => return found.is_some(),
                Err(err) => {
                    tracing::warn!(%err, "history can't be asked for a duplicate; trying again")
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// An event that can't be understood must not come for ever: the dead-letter topic keeps it.
    async fn set_aside(&self, delivery: Delivery, err: &Unreadable) {
        tracing::warn!(subscription = %self.subscription, %err, "an unreadable event goes to the dead-letter topic");
        let topic = Topic {
            region: self.parts.region.to_string(),
            name: infrachat_routing::DEAD_LETTER_TOPIC.to_owned(),
        };
        let mut event = Event {
            ordering_key: String::new(),
            ..delivery.event.clone()
        };
        event
            .attributes
            .insert("infrachat-from".to_owned(), self.subscription.to_string());
        event
            .attributes
            .insert("infrachat-error".to_owned(), err.to_string());
        loop {
            match self.parts.bus.publish(&topic, event.clone()).await {
                Ok(()) => return delivery.ack(),
                Err(err) => {
                    tracing::warn!(%err, "the dead-letter topic can't be reached; trying again")
                }
            }
            tokio::time::sleep(RETRY).await;
        }
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
    let encoded: Bytes = infrachat_proto::event_entry(kind);
    channel.append_passing(encoded, Some(SessionId::from_text(&event.session_id)));
}

/// Notices holes in the numbers of each origin and channel.
#[derive(Debug, Default)]
struct Numbers {
    newest: HashMap<(ChannelName, OriginId), u64>,
}

impl Numbers {
    fn check(&mut self, channel: &ChannelName, origin: &OriginId, number: u64) {
        if number == 0 {
            return;
        }
        if self.newest.len() >= ORIGINS {
            self.newest.clear();
        }
        let newest = self
            .newest
            .entry((channel.clone(), origin.clone()))
            .or_insert(number);
        if number > *newest + 1 {
            tracing::warn!(%channel, %origin, after = *newest, before = number, "a hole in an origin's numbers");
        }
        *newest = number.max(*newest);
    }
}
