//! How the rest of the shard reaches a session.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use infrachat_proto::Refusal;
use infrachat_types::{ChannelName, ClientMessageId, CloseCode, Message, MessageId};
use tokio::sync::Notify;

use crate::counted::Part;

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
    Degraded { part: Part, degraded: bool },
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
///
/// A channel of tokio's would take some kilobytes even when it is empty.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox(Arc<Shared>);

/// What came to a session's mailbox, for the session.
#[derive(Debug)]
pub(crate) struct Notes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None: the session has ended.
    waiting: Mutex<Option<VecDeque<Note>>>,
    came: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Note>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    /// The next one. Nothing is lost when this is dropped before it is done.
    pub(crate) async fn next(&mut self) -> Note {
        loop {
            let next = self.0.lock().as_mut().and_then(VecDeque::pop_front);
            match next {
                Some(note) => return note,
                None => self.0.came.notified().await,
            }
        }
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let left = self.0.lock().take();
        // Not under the lock.
        drop(left);
    }
}

impl Mailbox {
    pub(crate) fn new() -> (Self, Notes) {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(VecDeque::new())),
            came: Notify::new(),
        });
        (Self(Arc::clone(&shared)), Notes(shared))
    }

    /// A session that has ended gets no notes.
    pub(crate) fn send(&self, note: Note) {
        if let Some(waiting) = self.0.lock().as_mut() {
            waiting.push_back(note);
        }
        self.0.came.notify_one();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is sent once the one before it was heard, so that one that is missed stops everything.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_note_is_missed() {
        const NOTES: u64 = 50_000;
        let (mailbox, mut notes) = Mailbox::new();
        let (heard, mut hearing) = tokio::sync::watch::channel(0);
        let sending = tokio::spawn(async move {
            for number in 1..=NOTES {
                mailbox.send(Note::Slow(number));
                let all = hearing.wait_for(|heard| *heard == number);
                drop(all.await.expect("the session goes on"));
            }
        });
        let hearing = async {
            for expected in 1..=NOTES {
                assert!(matches!(notes.next().await, Note::Slow(number) if number == expected));
                heard.send_replace(expected);
            }
        };
        let hearing = tokio::time::timeout(Duration::from_secs(30), hearing).await;
        hearing.expect("hears every note");
        sending.await.expect("runs to its end");
    }

    #[test]
    fn who_has_ended_keeps_nothing() {
        let (mailbox, notes) = Mailbox::new();
        mailbox.send(Note::Slow(1));
        drop(notes);
        mailbox.send(Note::Slow(2));
        assert!(mailbox.0.lock().is_none());
    }
}
