//! What a shard says, and what follows from it.

use std::time::Duration;

use infrachat_proto::{
    Refusal,
    chat::v1::{self as chat, client_frame, server_event::Kind},
    message_from_wire,
};
use infrachat_types::{ChannelName, ClientMessageId, CloseCode, ErrorCode, MessageId};
use tokio::time::Instant;

use crate::{
    ClientError, Event,
    channel::Place,
    connection::{Heard, frame},
    driver::{Driver, Session},
    outgoing::Shard,
    stats::count,
};

/// Most messages in flight on a connection, whatever its shard allows: its frames must have room.
const MOST_IN_FLIGHT: u32 = 1_024;

impl Driver {
    pub(crate) fn hear(&mut self, id: u64, heard: Heard) {
        if !self.connections.contains_key(&id) {
            return;
        }
        match heard {
            Heard::Opened {
                welcome,
                transport,
                generation,
            } => {
                self.opened(id, &welcome, transport, generation);
            }
            Heard::Batch(events) => {
                for kind in events.into_iter().filter_map(|event| event.kind) {
                    self.event(id, kind);
                }
            }
            Heard::Ended { reason } => self.ended(id, reason),
        }
    }

    fn opened(
        &mut self,
        id: u64,
        welcome: &chat::Welcome,
        transport: tonic::transport::Channel,
        generation: u64,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let limits = welcome.limits.unwrap_or_default();
        connection.session = Some(Session {
            shard: Shard {
                name: welcome.shard.as_str().into(),
                region: welcome.region.as_str().into(),
            },
            max_in_flight: limits.max_in_flight.clamp(1, MOST_IN_FLIGHT) as usize,
            transport,
        });
        self.dirty = true;
        self.emit(Event::Connected {
            region: welcome.region.clone(),
            shard: welcome.shard.clone(),
        });
        self.join_all(id);
        if self
            .wallet
            .current()
            .is_ok_and(|tokens| tokens.generation > generation)
        {
            self.tokens_changed();
        }
    }

    fn ended(&mut self, id: u64, reason: String) {
        let close = self
            .connections
            .get(&id)
            .and_then(|connection| connection.close.clone());
        match close {
            Some(close) if !close.reconnect => {
                self.close(ClientError::Closed {
                    code: close.code,
                    reason: close.reason,
                });
            }
            Some(close) => {
                let reason = format!("{} ({})", close.reason, close.code);
                self.lost(id, Some(close), reason);
            }
            None => self.lost(id, None, reason),
        }
    }

    /// Fresh tokens are told to every open session.
    pub(crate) fn tokens_changed(&mut self) {
        match self.wallet.current() {
            Ok(tokens) => {
                for open in self
                    .connections
                    .values()
                    .filter(|open| open.session.is_some())
                {
                    let access_token = tokens.access.to_string();
                    let renew =
                        client_frame::Kind::Reauthenticate(chat::Reauthenticate { access_token });
                    if let Err(err) = open.frames.try_send(frame(renew)) {
                        tracing::debug!(%err, "a token could not be handed to the stream");
                    }
                }
            }
            Err(err) => self.close(err),
        }
    }

    fn event(&mut self, id: u64, kind: Kind) {
        match kind {
            Kind::Message(message) => self.message(id, message),
            Kind::Ack(ack) => self.ack(id, &ack),
            Kind::Stable(stable) => self.stable(&stable),
            Kind::Joined(joined) => self.joined(id, joined),
            Kind::Left(left) => self.shard_left(id, left),
            Kind::Presence(presence) => {
                let Some(channel) = self.here(id, &presence.channel) else {
                    return;
                };
                self.emit(Event::Presence {
                    channel,
                    came: presence.came,
                    went: presence.went,
                    count: presence.present_count,
                    snapshot: presence.snapshot,
                });
            }
            Kind::Typing(typing) => {
                if let Some(channel) = self.here(id, &typing.channel) {
                    self.emit(Event::Typing {
                        channel,
                        user: typing.user,
                    });
                }
            }
            Kind::Gap(gap) => self.gap(id, gap),
            Kind::Redirect(redirect) => self.redirect(id, redirect),
            Kind::GoAway(told) => {
                let at = Instant::now() + Duration::from_millis(told.reconnect_after_ms.into());
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.go_away = Some((at, told));
                    self.dirty = true;
                }
            }
            Kind::Close(close) => {
                if CloseCode::from_text(&close.code) == Some(CloseCode::TokenExpired)
                    && let Ok(tokens) = self.wallet.current()
                {
                    self.refused_generation = tokens.generation;
                }
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.close = Some(close);
                }
                // Nothing comes after it, and the shard may take its time to end the stream.
                self.ended(id, String::new());
            }
            Kind::Error(error) => self.refused(id, error),
            Kind::Degraded(degraded) => self.emit(Event::Degraded {
                part: degraded.part,
                degraded: degraded.degraded,
                reason: degraded.reason,
            }),
            Kind::Welcome(_) | Kind::Pong(_) | Kind::Reauthenticated(_) => {}
        }
    }

    /// The channel, if it is on this connection.
    fn here(&self, id: u64, name: &str) -> Option<ChannelName> {
        let name = ChannelName::new(name).ok()?;
        self.channels
            .get(&name)
            .filter(|channel| channel.is_on(id))
            .map(|channel| channel.name.clone())
    }

    fn message(&mut self, id: u64, wire: chat::Message) {
        let position = wire.position.clone();
        let message = match message_from_wire(wire) {
            Ok(message) => message,
            Err(err) => {
                tracing::warn!(%err, "a message could not be read");
                return;
            }
        };
        let Some(channel) = self.channels.get_mut(&message.channel) else {
            return;
        };
        if !channel.is_on(id) {
            return;
        }
        channel.position = position;
        if channel
            .seen
            .insert(&message.sender, message.client_message_id)
        {
            count(&self.counters.received);
            self.emit(Event::Message(message));
        } else if message.sender == self.user {
            count(&self.counters.echoes_dropped);
        } else {
            count(&self.counters.duplicates_dropped);
        }
    }

    fn ack(&mut self, id: u64, ack: &chat::Ack) {
        let (Ok(name), Ok(client_message_id), Ok(message_id)) = (
            ChannelName::new(&ack.channel),
            ClientMessageId::from_bytes(&ack.client_message_id),
            ack.message_id.parse::<MessageId>(),
        ) else {
            tracing::warn!(?ack, "an acknowledgement could not be read");
            return;
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.in_flight.remove(&client_message_id);
        let (Some(session), Some(channel)) = (&connection.session, self.channels.get_mut(&name))
        else {
            return;
        };
        if channel.outgoing.acked(
            client_message_id,
            message_id,
            ack.duplicate,
            &session.shard,
            Instant::now(),
        ) {
            count(&self.counters.acknowledged);
        }
        self.dirty = true;
    }

    fn stable(&mut self, stable: &chat::Stable) {
        if let (Ok(name), Ok(up_to)) = (ChannelName::new(&stable.channel), stable.up_to.parse())
            && let Some(channel) = self.channels.get_mut(&name)
        {
            channel.outgoing.stable(up_to, Instant::now());
        }
    }

    fn joined(&mut self, id: u64, joined: chat::Joined) {
        let Some(name) = self.here(id, &joined.channel) else {
            return;
        };
        let session = self
            .connections
            .get(&id)
            .and_then(|open| open.session.as_ref());
        let (Some(session), Some(channel)) = (session, self.channels.get_mut(&name)) else {
            return;
        };
        channel.place = Place::On {
            connection: id,
            joined: true,
        };
        channel.failures = 0;
        channel.give_up_at = None;
        // Without its gap, which follows, a new start must not replace what is known.
        if joined.recovered || channel.position.is_empty() {
            channel.position = joined.position;
        }
        channel.outgoing.joined_on(&session.shard, Instant::now());
        let waiting = std::mem::take(&mut channel.joins);
        if waiting.is_empty() {
            count(&self.counters.rejoins);
        }
        self.trouble_since = None;
        self.dirty = true;
        self.close_unused();
        self.emit(Event::Joined {
            channel: name,
            present: joined
                .present
                .into_iter()
                .map(|member| member.user)
                .collect(),
            present_count: joined.present_count,
            recovered: joined.recovered,
        });
        for reply in waiting {
            // Nobody may wait for it any more.
            drop(reply.send(Ok(())));
        }
    }

    fn shard_left(&mut self, id: u64, left: chat::Left) {
        let Some(name) = self.here(id, &left.channel) else {
            return;
        };
        if left.code.is_empty() {
            return self.left(&name);
        }
        let code = ErrorCode::from_text(&left.code).unwrap_or(ErrorCode::NotMember);
        let err = ClientError::Refused(Refusal::new(code, left.reason.clone()));
        self.emit(Event::Left {
            channel: name.clone(),
            code: left.code,
            reason: left.reason,
        });
        self.forget(&name, &err);
    }

    fn gap(&mut self, id: u64, gap: chat::Gap) {
        let Some(name) = self.here(id, &gap.channel) else {
            return;
        };
        if let Some(channel) = self.channels.get_mut(&name)
            && !gap.to.is_empty()
        {
            channel.position = gap.to.clone();
        }
        count(&self.counters.gaps);
        self.emit(Event::Gap {
            channel: name,
            from: gap.from,
            to: gap.to,
            missed: gap.missed,
            code: gap.code,
            reason: gap.reason,
        });
    }

    fn redirect(&mut self, id: u64, redirect: chat::Redirect) {
        let Some(name) = self.here(id, &redirect.channel) else {
            return;
        };
        self.dirty = true;
        self.let_go(id, &name);
        let Some(channel) = self.channels.get_mut(&name) else {
            return;
        };
        let told = Duration::from_millis(redirect.retry_after_ms.into());
        // One that is sent back and forth asks Switchboard in the end.
        if redirect.endpoint.is_empty() || channel.failures > 2 {
            self.not_placed(&[name], told, &redirect.reason);
        } else {
            channel.failures += 1;
            let not_before = Instant::now() + told;
            channel.place = Place::Nowhere {
                endpoint: Some(redirect.endpoint),
                not_before,
            };
        }
    }
}
