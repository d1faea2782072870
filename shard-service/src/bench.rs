//! Pieces of the message path, each by itself, for the benches that measure them.

use bytes::Bytes;
use infrachat_proto::chat::v1::server_event::Kind;
use infrachat_types::{Epoch, Message, Offset, SessionId};
use tokio::time::Instant;

use crate::{
    config::Tuning,
    dedupe::DuplicateWindow,
    log::{Cursor, Entry, Read, Ring},
    outlet::FRAME,
    run::Author,
    tally::{Facts, Tally},
};

/// Everything is in history, so that nothing is kept for it.
const STABLE: (Epoch, Offset) = (Epoch(u64::MAX), Offset(u64::MAX));

/// The log of a channel, as large as shards have it.
#[derive(Debug)]
pub struct Log(Ring);

/// A message, encoded.
#[derive(Debug, Clone)]
pub struct Event(Entry);

/// Somebody who reads a log.
#[derive(Debug, Clone)]
pub struct Reader {
    cursor: Cursor,
    author: Author,
}

/// The messages that a channel has seen.
#[derive(Debug)]
pub struct Window(DuplicateWindow);

impl Event {
    /// Encodes a message.
    #[must_use]
    pub fn new(message: &Message) -> Self {
        let position = Bytes::from_static(&[1; 40]);
        let wire = infrachat_proto::message_to_wire(message, position.clone());
        Self(Entry {
            frame: infrachat_proto::event_frame(Kind::Message(wire)),
            author: Some(Author::new(message.session_id.clone())),
            message: Some(((Epoch(1), Offset(1)), position)),
            facts: Some(Facts {
                source: (&message.region).into(),
                published_at: message.published_at,
                appended: Instant::now(),
                trace: None,
            }),
        })
    }
}

impl Default for Log {
    fn default() -> Self {
        let limits = Tuning::default().channel.ring;
        Self(Ring::new(limits, (Epoch(0), Offset(0)), Bytes::new()))
    }
}

impl Log {
    /// Appends an event.
    pub fn append(&mut self, event: Event) {
        self.0.append(event.0, STABLE);
    }

    /// Somebody who has read everything.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            cursor: self.0.tail(),
            author: Author::new(SessionId::random()),
        }
    }

    /// Reads all that a reader has not read.
    pub fn read(&mut self, reader: &mut Reader) {
        let Reader { cursor, author } = reader;
        let mut tally = Tally::default();
        while let Read::Frame(_, true) = self.0.read(cursor, author, (u64::MAX, FRAME), &mut tally)
        {
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self(DuplicateWindow::new(
            Tuning::default().channel.duplicate_window,
        ))
    }
}

impl Window {
    /// Whether a message is known.
    #[must_use]
    pub fn knows(&self, message: &Message) -> bool {
        self.0
            .get(&message.sender, message.client_message_id)
            .is_some()
    }

    /// Takes a message in; for it, the oldest is forgotten when the window is full.
    pub fn insert(&mut self, message: &Message) {
        self.0.insert(message, (Epoch(1), Offset(1)));
    }
}
