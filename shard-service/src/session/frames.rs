//! What a client sends, one frame at a time, and what the shard tells the session.

use std::sync::Arc;

use bytes::Bytes;
use infrachat_proto::{
    Refusal,
    bus::v1 as bus,
    chat::v1::{self as chat, client_frame, server_event::Kind},
};
use infrachat_types::{ClientMessageId, ErrorCode};
use tokio::time::Instant;

use super::{Note, Session, handshake};
use crate::{
    counted::COUNTED,
    ingest::{self, Sender, Taken},
    publish::{Content, Outgoing},
};

impl Session {
    /// Handles one frame.
    pub(super) async fn heard(&mut self, frame: Bytes) {
        self.last_heard = Instant::now();
        let frame = match handshake::decode(frame) {
            Ok(frame) => frame,
            Err(closing) => return self.close(closing),
        };
        match frame.kind {
            Some(client_frame::Kind::Ping(ping)) => {
                self.say(Kind::Pong(chat::Pong { nonce: ping.nonce }))
            }
            Some(client_frame::Kind::Publish(publish)) => {
                // One that is taken has a limit of its own.
                if self.publish(publish).await {
                    return;
                }
            }
            Some(client_frame::Kind::Join(join)) => self.join(join).await,
            Some(client_frame::Kind::Leave(leave)) => self.leave(&leave.channel),
            Some(client_frame::Kind::SetTyping(typing)) => self.typing(&typing.channel),
            Some(client_frame::Kind::Reauthenticate(renewal)) => self.reauthenticate(renewal).await,
            Some(client_frame::Kind::Hello(_)) => {
                self.refuse(
                    Refusal::new(
                        ErrorCode::AlreadyOpen,
                        "Hello may come once, as the first frame",
                    ),
                    "",
                );
            }
            None => {
                let text = "the frame has no kind that this shard knows: is the client newer than the shard?";
                self.refuse(Refusal::new(ErrorCode::UnknownFrame, text), "");
            }
        }
        self.count_frame();
    }

    /// Counts a frame. If it was too many, nothing is listened to for a while: that silence is not the client's.
    pub(super) fn count_frame(&mut self) {
        if let Some(until) = self.pace.count() {
            COUNTED.frames_limited.increment(1);
            self.last_heard = until;
        }
    }

    /// Answers a frame with an error.
    pub(super) fn refuse(&mut self, refusal: Refusal, channel: &str) {
        self.say(refusal.into_event(channel, Bytes::new()));
    }

    /// Answers whether the message was taken.
    async fn publish(&mut self, publish: chat::Publish) -> bool {
        let (name, id) = (publish.channel.clone(), publish.client_message_id.clone());
        match self.try_publish(publish).await {
            Ok(Taken::OnItsWay) => {
                self.in_flight += 1;
                true
            }
            Ok(Taken::Duplicate(message)) => {
                COUNTED.publishes.duplicate.increment(1);
                self.say(Kind::Ack(chat::Ack {
                    client_message_id: id,
                    channel: name,
                    message_id: message.message_id.to_string(),
                    duplicate: true,
                }));
                true
            }
            Err(refusal) => {
                COUNTED.publishes.refused(refusal.code);
                if refusal.code.retryable() {
                    self.hold_back_after(&name, &id);
                }
                self.say(refusal.into_event(&name, id));
                false
            }
        }
    }

    /// A message was not taken, and will come again: what is said after it must not pass it.
    fn hold_back_after(&mut self, name: &str, id: &[u8]) {
        if let (Ok(seated), Ok(id)) = (self.seated(name), ClientMessageId::from_bytes(id)) {
            seated.reader.channel.refuse(&self.user, id);
        }
    }

    async fn try_publish(&mut self, publish: chat::Publish) -> Result<Taken, Refusal> {
        let most = self.parts.tuning.max_in_flight;
        if self.in_flight >= most {
            let text = format!("{most} messages wait for their Ack: wait for some of them");
            return Err(Refusal::new(ErrorCode::TooManyInFlight, text));
        }
        let seated = self.seated(&publish.channel)?;
        let (partition, channel) = (
            Arc::clone(&seated.reader.partition),
            Arc::clone(&seated.reader.channel),
        );
        if let Err(early) = self.limiter.check() {
            COUNTED.publishes_limited.increment(1);
            let wait = early.wait_time_from(governor::clock::Clock::now(self.limiter.clock()));
            let text = format!(
                "at most {} messages a second: slow down",
                self.parts.tuning.publish_per_second
            );
            return Err(Refusal::new(ErrorCode::RateLimited, text).retry_after(wait));
        }
        let sender = Sender {
            user: &self.user,
            session: self.id(),
            mailbox: &self.outlet.mailbox,
        };
        ingest::take(&self.parts, (&partition, &channel), sender, publish).await
    }

    fn typing(&mut self, name: &str) {
        let seated = match self.seated(name) {
            Ok(seated) => seated,
            Err(refusal) => return self.refuse(refusal, name),
        };
        let (partition, channel) = (
            Arc::clone(&seated.reader.partition),
            Arc::clone(&seated.reader.channel),
        );
        // Not worth an answer: typing is dropped under load.
        if self.limiter.check().is_err() {
            return;
        }
        let kind = bus::envelope::Kind::Typing(bus::TypingEvent {
            user: self.user.to_string(),
            session_id: self.id().to_string(),
        });
        drop(partition.publish(Outgoing {
            channel,
            content: Content::Passing(kind),
        }));
    }

    async fn reauthenticate(&mut self, renewal: chat::Reauthenticate) {
        let claims = match self.parts.callers.check(&renewal.access_token).await {
            Ok(claims) => claims,
            Err(refusal) => return self.refuse(refusal, ""),
        };
        if claims.user != self.user {
            let text = format!(
                "the token is {}'s, and the session {}'s",
                claims.user, self.user
            );
            return self.refuse(Refusal::new(ErrorCode::WrongSubject, text), "");
        }
        self.parts
            .sessions
            .renewed(self.id(), claims.family, claims.issued_at);
        self.auth_expires_at = claims.expires_at;
        self.say(Kind::Reauthenticated(chat::Reauthenticated {
            auth_expires_at_ms: claims.expires_at,
        }));
    }

    /// Tells the client what the rest of the shard has to say.
    pub(super) async fn note(&mut self, note: Note) {
        let kind = match note {
            Note::Acked {
                channel,
                client_message_id,
                message_id,
                duplicate,
            } => {
                self.in_flight = self.in_flight.saturating_sub(1);
                let answered = &COUNTED.publishes;
                let answered = if duplicate {
                    &answered.duplicate
                } else {
                    &answered.acked
                };
                answered.increment(1);
                Kind::Ack(chat::Ack {
                    client_message_id: Bytes::copy_from_slice(client_message_id.as_bytes()),
                    channel: channel.to_string(),
                    message_id: message_id.to_string(),
                    duplicate,
                })
            }
            Note::Refused {
                channel,
                client_message_id,
                refusal,
            } => {
                self.in_flight = self.in_flight.saturating_sub(1);
                COUNTED.publishes.refused(refusal.code);
                let id = Bytes::copy_from_slice(client_message_id.as_bytes());
                refusal.into_event(channel.as_str(), id)
            }
            Note::Stable { channel, up_to } => Kind::Stable(chat::Stable {
                channel: channel.to_string(),
                up_to: up_to.to_string(),
            }),
            Note::Degraded { part, degraded } => {
                let reason = if degraded {
                    "does not work as it should"
                } else {
                    "works again"
                };
                let part = part.as_str().to_owned();
                let reason = format!("{part} {reason} in this region");
                Kind::Degraded(chat::Degraded {
                    part,
                    degraded,
                    reason,
                })
            }
            Note::GoAway { reconnect_after } => Kind::GoAway(chat::GoAway {
                reconnect_after_ms: u32::try_from(reconnect_after.as_millis()).unwrap_or(u32::MAX),
                reason: "the shard stops: connect to another".to_owned(),
                resume_endpoint: String::new(),
            }),
            Note::Slow(number) => return self.slow(number).await,
            Note::Moved(number) => return self.moved(number),
            Note::Replay(number) => return self.replaying.push_back(number),
            Note::Close(code, reason) => return self.close((code, reason.to_owned())),
        };
        self.say(kind);
    }
}
