//! What happens, as the application is told.

use std::time::Duration;

use bytes::Bytes;
use infrachat_types::{ChannelName, Message, MessageId, Region};

/// What happened, in the order it did. Events of one channel keep the order the shard sent them in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A stream to a shard is open.
    Connected {
        /// The shard's region.
        region: String,
        /// The shard.
        shard: String,
    },
    /// A stream to a shard ended; its channels are joined again by themselves.
    Disconnected {
        /// Why.
        reason: String,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// A channel is joined, for the first time or again.
    Joined {
        /// Which.
        channel: ChannelName,
        /// Who is there; of large channels, only the first ones.
        present: Vec<String>,
        /// How many are there.
        present_count: u32,
        /// Nothing was missed since it was joined before. When false, a [`Event::Gap`] follows.
        recovered: bool,
    },
    /// Somebody said something. Never twice for one message, and never the client's own.
    Message(Message),
    /// Who came and who went.
    Presence {
        /// Where.
        channel: ChannelName,
        /// Users who came.
        came: Vec<String>,
        /// Users who went.
        went: Vec<String>,
        /// How many are there now.
        count: u32,
        /// `came` is everybody: forget what was known before.
        snapshot: bool,
    },
    /// Somebody is typing.
    Typing {
        /// Where.
        channel: ChannelName,
        /// Who.
        user: String,
    },
    /// Messages that will not come by themselves; history has them unless it says otherwise.
    Gap {
        /// Where.
        channel: ChannelName,
        /// The last message before, as an opaque position; empty when it is not known.
        from: Bytes,
        /// The last message of the gap, as an opaque position.
        to: Bytes,
        /// How many messages; 0 when it is not known.
        missed: u64,
        /// A stable code.
        code: String,
        /// For people.
        reason: String,
    },
    /// A channel is no longer joined.
    Left {
        /// Which.
        channel: ChannelName,
        /// Empty when the application left it; else a stable code.
        code: String,
        /// For people.
        reason: String,
    },
    /// The region works with less than its full promises, or fully again.
    Degraded {
        /// Which part: `history`, `presence` or `bus`.
        part: String,
        /// False: it works fully again.
        degraded: bool,
        /// For people.
        reason: String,
    },
    /// A request was refused that nobody waits for.
    Error {
        /// The channel it was about, if any.
        channel: Option<ChannelName>,
        /// A stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// The client is closed and will not connect again. The last event.
    Closed {
        /// A stable code; `closed` when the application closed it.
        code: String,
        /// For people.
        reason: String,
    },
}

/// The bus has the message: it will reach every member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its place in the channel's order.
    pub message_id: MessageId,
    /// The sender's own id of it.
    pub client_message_id: infrachat_types::ClientMessageId,
    /// An earlier attempt had been accepted already.
    pub duplicate: bool,
}

/// A region of the deployment, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionAddress {
    /// Its name.
    pub region: Region,
    /// "host:port" of its Gatekeeper.
    pub gatekeeper: String,
    /// "host:port" of its Switchboard.
    pub switchboard: String,
}
