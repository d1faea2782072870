//! How the rest of the shard reaches a session.

use std::time::Duration;

use infrachat_proto::Refusal;
use infrachat_types::{ChannelName, ClientMessageId, CloseCode, Message, MessageId};
use tokio::sync::mpsc;

/// Something a session should know.
#[derive(Debug)]
pub(crate) enum Note {
    /// The bus has its message.
    Acked {
        channel: ChannelName,
        client_message_id: ClientMessageId,
        message_id: MessageId,
        duplicate: bool,
    },
    /// Its message was given up.
    Refused {
        channel: ChannelName,
        client_message_id: ClientMessageId,
        refusal: Refusal,
    },
    /// History has its messages.
    Stable {
        channel: ChannelName,
        up_to: MessageId,
    },
    /// The region works with less than its promises, or fully again.
    Degraded { part: &'static str, degraded: bool },
    /// The shard stops soon.
    GoAway { reconnect_after: Duration },
    /// A reader fell too far behind.
    Slow(u64),
    /// A reader's partition is another shard's now.
    Moved(u64),
    /// Look again for what a channel that is replayed has.
    Replay(u64),
    /// Close now.
    Close(CloseCode, &'static str),
}

/// A session's mailbox. Unbounded, since what is sent to it is bounded by what the session has in
/// flight, and by the few events that concern every session.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox(mpsc::UnboundedSender<Note>);

impl Mailbox {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Note>) {
        let (sender, notes) = mpsc::unbounded_channel();
        (Self(sender), notes)
    }

    /// A session that has ended gets no notes.
    pub(crate) fn send(&self, note: Note) {
        drop(self.0.send(note));
    }

    pub(crate) fn acked(&self, message: &Message, message_id: MessageId, duplicate: bool) {
        self.send(Note::Acked {
            channel: message.channel.clone(),
            client_message_id: message.client_message_id,
            message_id,
            duplicate,
        });
    }

    pub(crate) fn refused(&self, message: &Message, refusal: Refusal) {
        self.send(Note::Refused {
            channel: message.channel.clone(),
            client_message_id: message.client_message_id,
            refusal,
        });
    }

    pub(crate) fn stable(&self, channel: &ChannelName, up_to: MessageId) {
        self.send(Note::Stable {
            channel: channel.clone(),
            up_to,
        });
    }
}
