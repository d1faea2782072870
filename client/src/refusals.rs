//! What a shard refuses, and whether to try again.

use std::time::Duration;

use infrachat_proto::{Refusal, chat::v1 as chat};
use infrachat_types::{ChannelName, ClientMessageId, ErrorCode};
use tokio::time::Instant;

use crate::{ClientError, Event, channel::Place, driver::Driver};

impl Driver {
    pub(crate) fn refused(&mut self, id: u64, error: chat::Error) {
        self.dirty = true;
        let code = ErrorCode::from_text(&error.code);
        let refusal = Refusal {
            // A newer server may have codes that are not known here; it says what they mean.
            code: code.unwrap_or(if error.retryable {
                ErrorCode::Unavailable
            } else {
                ErrorCode::BadRequest
            }),
            message: error.message.clone(),
            retry_after: (error.retry_after_ms > 0)
                .then(|| Duration::from_millis(error.retry_after_ms.into())),
        };
        let name = ChannelName::new(&error.channel).ok();
        if let Ok(message) = ClientMessageId::from_bytes(&error.client_message_id) {
            return self.publish_refused(id, name, message, refusal);
        }
        let joining = name.filter(|name| {
            let place = self.channels.get(name).map(|channel| &channel.place);
            place
                == Some(&Place::On {
                    connection: id,
                    joined: false,
                })
        });
        match joining {
            Some(name) if refusal.code.retryable() => {
                let told = refusal.retry_after.unwrap_or_default();
                self.not_placed(&[name], told, &refusal.to_string());
            }
            Some(name) => self.refuse(&name, &ClientError::Refused(refusal)),
            None => self.emit(Event::Error {
                channel: ChannelName::new(&error.channel).ok(),
                code: error.code,
                message: error.message,
            }),
        }
    }

    fn publish_refused(
        &mut self,
        id: u64,
        name: Option<ChannelName>,
        message: ClientMessageId,
        refusal: Refusal,
    ) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.in_flight.remove(&message);
        }
        let Some(channel) = name.and_then(|name| self.channels.get_mut(&name)) else {
            return;
        };
        if refusal.code == ErrorCode::NotJoined && channel.joined_on() == Some(id) {
            // The shard has let go of the channel: joined again, all is sent again.
            let name = channel.name.clone();
            self.let_go(id, &name);
            self.not_placed(&[name], Duration::ZERO, &refusal.to_string());
            return;
        }
        let failures = channel.outgoing.attempts(message).max(1);
        let pause = self.options.backoff.wait(failures, &mut self.rng);
        let wait = refusal.retry_after.unwrap_or_default() + pause;
        channel
            .outgoing
            .refused(message, refusal, wait, Instant::now());
    }
}
