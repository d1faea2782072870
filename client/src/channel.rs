//! What the client knows of one channel.

use bytes::Bytes;
use infrachat_proto::chat::v1 as chat;
use infrachat_types::{ChannelName, SlowReaderPolicy};
use tokio::{sync::oneshot, time::Instant};

use crate::{ClientError, JoinOptions, outgoing::Outgoing, seen::Seen};

pub(crate) type JoinReply = oneshot::Sender<Result<(), ClientError>>;

/// Where a channel is, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not known, or known by a hint; looked for again at a time.
    Nowhere {
        endpoint: Option<String>,
        not_before: Instant,
    },
    /// Switchboard is being asked.
    Asking,
    /// On a connection, joined or about to be.
    On { connection: u64, joined: bool },
}

/// The application wants to leave.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    pub(crate) sent: bool,
    pub(crate) replies: Vec<oneshot::Sender<()>>,
    /// Joins asked for since.
    pub(crate) joins: Vec<(JoinOptions, JoinReply)>,
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: ChannelName,
    pub(crate) options: JoinOptions,
    pub(crate) place: Place,
    /// Attempts that failed since it was joined.
    pub(crate) failures: u32,
    /// The newest position seen; empty before the first.
    pub(crate) position: Bytes,
    pub(crate) outgoing: Outgoing,
    pub(crate) seen: Seen,
    /// Who waits for the first join, and until when.
    pub(crate) joins: Vec<JoinReply>,
    pub(crate) give_up_at: Option<Instant>,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) last_trouble: String,
}

impl Channel {
    pub(crate) fn new(
        name: ChannelName,
        options: JoinOptions,
        now: Instant,
        give_up_at: Instant,
    ) -> Self {
        Self {
            name,
            options,
            place: Place::Nowhere {
                endpoint: None,
                not_before: now,
            },
            failures: 0,
            position: Bytes::new(),
            outgoing: Outgoing::default(),
            seen: Seen::default(),
            joins: Vec::new(),
            give_up_at: Some(give_up_at),
            leaving: None,
            last_trouble: "no answer came".to_owned(),
        }
    }

    pub(crate) fn is_on(&self, connection: u64) -> bool {
        matches!(self.place, Place::On { connection: on, .. } if on == connection)
    }

    pub(crate) fn joined_on(&self) -> Option<u64> {
        match self.place {
            Place::On {
                connection,
                joined: true,
            } => Some(connection),
            _ => None,
        }
    }

    /// Whether it was joined at least once.
    pub(crate) fn was_joined(&self) -> bool {
        self.give_up_at.is_none()
    }

    pub(crate) fn join_frame(&self) -> chat::Join {
        let slow_reader = match self.options.slow_reader {
            None => chat::SlowReaderPolicy::Unspecified,
            Some(SlowReaderPolicy::DropOldest) => chat::SlowReaderPolicy::DropOldest,
            Some(SlowReaderPolicy::Disconnect) => chat::SlowReaderPolicy::Disconnect,
        };
        chat::Join {
            channel: self.name.to_string(),
            position: self.position.clone(),
            recent: self.options.recent,
            slow_reader: slow_reader.into(),
        }
    }

    /// When there is something to do for it.
    pub(crate) fn next_time(&mut self, now: Instant) -> Option<Instant> {
        let place = match &self.place {
            Place::Nowhere { not_before, .. } => Some(*not_before).filter(|at| *at > now),
            _ => None,
        };
        let outgoing = self.outgoing.next_time(now);
        [place, outgoing, self.give_up_at]
            .into_iter()
            .flatten()
            .min()
    }
}
