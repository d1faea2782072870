//! Consecutive events of a log, joined into one frame for all readers that are at the same place.

use bytes::Bytes;
use infrachat_types::SessionId;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    log::{Cursor, Entry},
    tally::Tally,
};

/// Who is not sent an event, because it is their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Author {
    /// Tells most others apart quickly.
    hash: u64,
    session: SessionId,
}

impl Author {
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            hash: xxh3_64(session.as_str().as_bytes()),
            session,
        }
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }
}

/// The bytes of the entries that come first, of which the last reaches the budget.
pub(crate) fn length<'a>(entries: impl Iterator<Item = &'a Entry>, budget: usize) -> usize {
    let mut length = 0;
    for entry in entries {
        if length >= budget {
            break;
        }
        length += entry.event().len();
    }
    length
}

/// A frame, and what there is to know of the events in it.
#[derive(Debug)]
pub(crate) struct Run {
    from: u64,
    to: u64,
    frame: Bytes,
    messages: u64,
    /// Of the last message.
    position: Option<Bytes>,
    tally: Tally,
    /// Hashes.
    authors: Vec<u64>,
}

impl Run {
    /// The events from a number on, up to about `budget` bytes of them.
    pub(crate) fn join<'a>(
        from: u64,
        entries: impl Iterator<Item = &'a Entry> + Clone,
        budget: usize,
    ) -> Self {
        let mut run = Self {
            from,
            to: from,
            frame: Bytes::new(),
            messages: 0,
            position: None,
            tally: Tally::default(),
            authors: Vec::new(),
        };
        let mut joined = infrachat_proto::Frame::with_room(length(entries.clone(), budget));
        for entry in entries {
            if joined.len() >= budget {
                break;
            }
            joined.push(entry.event());
            run.to += 1;
            if let Some((_, position)) = &entry.message {
                run.messages += 1;
                run.position = Some(position.clone());
            }
            if let Some(facts) = &entry.facts {
                run.tally.add(facts, true);
            }
            if let Some(author) = &entry.author {
                run.authors.push(author.hash);
            }
        }
        run.frame = joined.finish();
        run
    }

    /// Whether it is what a reader at this place is sent, when the log ends at `end`.
    pub(crate) fn fits(&self, cursor: &Cursor, end: u64, budget: usize) -> bool {
        let whole = self.to == end || self.frame.len() >= budget;
        self.from == cursor.next && whole
    }

    /// Moves a reader past it; `None` if something in it may be the reader's own.
    pub(crate) fn read(
        &self,
        cursor: &mut Cursor,
        reader: &Author,
        tally: &mut Tally,
    ) -> Option<Bytes> {
        if self.authors.contains(&reader.hash) {
            return None;
        }
        cursor.next = self.to;
        cursor.messages_before += self.messages;
        if let Some(position) = &self.position {
            cursor.position = position.clone();
        }
        tally.add_all(&self.tally);
        Some(self.frame.clone())
    }
}
