//! A refusal as both ends see it: a code, a text, and whether to try again.

use std::time::Duration;

use infrachat_types::ErrorCode;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::chat::v1 as chat;

const CODE: &str = "infrachat-code";
const RETRYABLE: &str = "infrachat-retryable";
const RETRY_AFTER_MS: &str = "infrachat-retry-after-ms";

/// Why something was refused, and whether to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// The stable code.
    pub code: ErrorCode,
    /// What was wrong and what to do, for people.
    pub message: String,
    /// How long to wait before trying again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal that says what was wrong.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Adds how long to wait.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// As an event on the stream, about a channel or a message or neither.
    #[must_use]
    pub fn into_event(
        self,
        channel: &str,
        client_message_id: bytes::Bytes,
    ) -> chat::server_event::Kind {
        chat::server_event::Kind::Error(chat::Error {
            code: self.code.as_str().to_owned(),
            retryable: self.code.retryable(),
            retry_after_ms: self.retry_after.map_or(0, millis),
            message: self.message,
            client_message_id,
            channel: channel.to_owned(),
        })
    }

    /// What the other side refused. A status without a code is the transport's own.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let text = |key| {
            status
                .metadata()
                .get(key)
                .and_then(|value| value.to_str().ok())
        };
        let code = text(CODE)
            .and_then(ErrorCode::from_text)
            .unwrap_or(match status.code() {
                Code::Unauthenticated => ErrorCode::Unauthenticated,
                Code::ResourceExhausted => ErrorCode::Overloaded,
                Code::InvalidArgument => ErrorCode::BadRequest,
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                    ErrorCode::Unavailable
                }
                _ => ErrorCode::Internal,
            });
        let retry_after = text(RETRY_AFTER_MS)
            .and_then(|ms| ms.parse().ok())
            .map(Duration::from_millis);
        Self {
            code,
            message: status.message().to_owned(),
            retry_after,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Self::new(grpc_code(refusal.code), refusal.message);
        let metadata = status.metadata_mut();
        metadata.insert(CODE, MetadataValue::from_static(refusal.code.as_str()));
        let retryable = if refusal.code.retryable() {
            "true"
        } else {
            "false"
        };
        metadata.insert(RETRYABLE, MetadataValue::from_static(retryable));
        if let Some(wait) = refusal.retry_after {
            metadata.insert(RETRY_AFTER_MS, MetadataValue::from(u64::from(millis(wait))));
        }
        status
    }
}

fn millis(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
}

fn grpc_code(code: ErrorCode) -> Code {
    use ErrorCode as E;
    match code {
        E::Unauthenticated
        | E::TokenExpired
        | E::TokenRevoked
        | E::BadCredentials
        | E::BadRefreshToken => Code::Unauthenticated,
        E::UserExists | E::ChannelExists => Code::AlreadyExists,
        E::ChannelNotFound => Code::NotFound,
        E::NotMember | E::WrongSubject => Code::PermissionDenied,
        E::NotJoined | E::OutOfOrder | E::AlreadyOpen => Code::FailedPrecondition,
        E::TooManyChannels | E::TooManyInFlight | E::RateLimited | E::Overloaded => {
            Code::ResourceExhausted
        }
        E::NoOwner | E::Unavailable => Code::Unavailable,
        E::Internal => Code::Internal,
        E::BadPassword
        | E::BadUserName
        | E::BadChannelName
        | E::BodyTooLarge
        | E::BodyNotUtf8
        | E::BodyEmpty
        | E::BadClientMessageId
        | E::ClientMessageIdReused
        | E::ClockTooFarAhead
        | E::UnknownFrame
        | E::BadRequest => Code::InvalidArgument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_the_wire() {
        for code in ErrorCode::ALL {
            let refusal = Refusal::new(*code, "why").retry_after(Duration::from_millis(1_500));
            assert_eq!(
                Refusal::from_status(&Status::from(refusal.clone())),
                refusal
            );
        }
    }
}
