//! Channels and messages, as the services handle them.

use bytes::Bytes;

use crate::{ChannelName, ClientMessageId, MessageId, Region, SessionId, UnixMillis, UserName};

/// What makes two copies the same message, whatever shard or region they came through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The channel.
    pub channel: ChannelName,
    /// Who said it.
    pub sender: UserName,
    /// The sender's own id.
    pub client_message_id: ClientMessageId,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The channel it was said in.
    pub channel: ChannelName,
    /// Its place in the order of the channel.
    pub message_id: MessageId,
    /// Who said it.
    pub sender: UserName,
    /// The sender's own id.
    pub client_message_id: ClientMessageId,
    /// What was said, UTF-8.
    pub body: Bytes,
    /// When its shard took it.
    pub published_at: UnixMillis,
    /// The region it was said in.
    pub region: Region,
    /// The session that said it.
    pub session_id: SessionId,
}

impl Message {
    /// What makes it the same as another copy.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            channel: self.channel.clone(),
            sender: self.sender.clone(),
            client_message_id: self.client_message_id,
        }
    }
}

/// Who may read and write a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// Everyone who is signed in.
    #[default]
    Public,
    /// Its members.
    Private,
}

/// What happens to a session that falls too far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowReaderPolicy {
    /// Skip ahead, and say what was missed.
    #[default]
    DropOldest,
    /// Close the session, to resume from its position.
    Disconnect,
}

/// A channel's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// Where this record is decided.
    pub home_region: Region,
    /// Who created it; its first member.
    pub created_by: UserName,
    /// When.
    pub created_at: UnixMillis,
    /// Who may read and write it.
    pub visibility: Visibility,
    /// What it is about.
    pub topic: String,
    /// What happens to its slow readers.
    pub slow_reader: SlowReaderPolicy,
    /// Rises with every change.
    pub version: u64,
}
