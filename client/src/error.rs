//! What can go wrong, and what to do then.

use std::time::Duration;

use infrachat_proto::Refusal;
use infrachat_types::{ChannelName, ErrorCode};

/// Why something did not work. The text says what to do next.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A server could not be reached, or did not answer.
    #[error("can't reach {address} ({reason}){}", hint(address))]
    Unreachable {
        /// The "host:port" that was tried.
        address: String,
        /// What the transport said.
        reason: String,
    },
    /// An address can't be used as one.
    #[error("{address:?} is not an address: use host:port, such as localhost:8001")]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// A server refused.
    #[error("{0}")]
    Refused(Refusal),
    /// It was not done in time. Of a message, the outcome is unknown: it may still arrive.
    #[error("{what} was not done within {after:?}: {last}")]
    TimedOut {
        /// What was tried.
        what: &'static str,
        /// For how long.
        after: Duration,
        /// What stood in the way last.
        last: String,
    },
    /// Publishing needs a joined channel.
    #[error("{0} is not joined: join it first")]
    NotJoined(ChannelName),
    /// Too many messages wait for their acknowledgement.
    #[error("{waiting} messages wait for their acknowledgement: wait for some of them first")]
    TooManyWaiting {
        /// How many.
        waiting: usize,
    },
    /// The client was closed, here or by the servers.
    #[error("the client is closed: {reason} ({code})")]
    Closed {
        /// A stable code; `closed` when it was closed here.
        code: String,
        /// For people.
        reason: String,
    },
    /// A region to fall back to is none of the deployment's.
    #[error("there is no region {region:?} to fall back to: there are {regions}")]
    NoSuchRegion {
        /// What was asked for.
        region: String,
        /// What there is.
        regions: String,
    },
    /// A server answered with something that can't be understood.
    #[error("{address} answered with something unexpected: {what}; are both of one version?")]
    Unexpected {
        /// Who answered.
        address: String,
        /// What was wrong.
        what: String,
    },
}

/// What sort of failure it is, for a program to decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The user has to sign in, or sign in differently.
    NotSignedIn,
    /// The request was refused, and would be again.
    Refused,
    /// Something is away or too busy: later it may work.
    Unavailable,
    /// Anything else.
    Other,
}

impl ClientError {
    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::TooManyWaiting { .. } => {
                ErrorKind::Unavailable
            }
            Self::Refused(refusal) => kind_of_code(refusal.code.as_str()),
            Self::Closed { code, .. } => kind_of_code(code),
            Self::NotJoined(_) => ErrorKind::Refused,
            Self::BadAddress { .. } | Self::NoSuchRegion { .. } | Self::Unexpected { .. } => {
                ErrorKind::Other
            }
        }
    }

    /// The refusal's code, when a server refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// Whether the same may work later, and how long to wait at least.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) if refusal.code.retryable() => {
                Some(refusal.retry_after.unwrap_or_default())
            }
            Self::Unreachable { .. } => Some(Duration::ZERO),
            _ => None,
        }
    }

    pub(crate) fn closed() -> Self {
        Self::Closed {
            code: "closed".to_owned(),
            reason: "closed by this program".to_owned(),
        }
    }
}

fn kind_of_code(code: &str) -> ErrorKind {
    use ErrorCode as E;
    match ErrorCode::from_text(code) {
        Some(
            E::Unauthenticated
            | E::TokenExpired
            | E::TokenRevoked
            | E::BadCredentials
            | E::BadPassword
            | E::BadUserName
            | E::UserExists
            | E::BadRefreshToken,
        ) => ErrorKind::NotSignedIn,
        Some(code) if code.retryable() => ErrorKind::Unavailable,
        Some(_) => ErrorKind::Refused,
        None => ErrorKind::Other,
    }
}

fn hint(address: &str) -> &'static str {
    if crate::transport::is_loopback(address) {
        ": is `make run` running?"
    } else {
        ": is the address right, and the network up?"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_local_server_asks_for_make_run() {
        let err = ClientError::Unreachable {
            address: "localhost:8001".to_owned(),
            reason: "connection refused".to_owned(),
        };
        let text = err.to_string();
        assert!(
            text.contains("can't reach localhost:8001") && text.contains("make run"),
            "{text}"
        );
    }

    #[test]
    fn kinds_follow_the_codes() {
        let refused = |code| ClientError::Refused(Refusal::new(code, "")).kind();
        assert_eq!(refused(ErrorCode::BadCredentials), ErrorKind::NotSignedIn);
        assert_eq!(refused(ErrorCode::ChannelNotFound), ErrorKind::Refused);
        assert_eq!(refused(ErrorCode::NoOwner), ErrorKind::Unavailable);
        assert_eq!(ClientError::closed().kind(), ErrorKind::Other);
    }
}
