//! The channel log: a bounded ring of encoded events, and the only fan-out structure there is.
//!
//! Publishing appends once. Each reader keeps a [`Cursor`] and copies nothing: an event is encoded
//! once, as bytes that all readers share. The ring serves live delivery, catch-up, recent messages at
//! join, and the slow reader alike.

use std::collections::VecDeque;

use bytes::Bytes;
use infrachat_proto::{FRAME_HEADER, Frame};
use infrachat_types::{Epoch, Offset};

use crate::{
    memory::MESSAGE,
    run::{self, Author, Run},
    tally::{Facts, Tally},
};

/// Where a message is in the order in which its region's owners appended.
pub(crate) type Place = (Epoch, Offset);

/// One event in the log.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// A whole frame, for readers that are sent nothing else.
    pub(crate) frame: Bytes,
    /// The session that caused it and does not get it back.
    pub(crate) author: Option<Author>,
    /// Of a message: its place, and the position that says so on the wire. Presence and typing have
    /// none: they are not replayed.
    pub(crate) message: Option<(Place, Bytes)>,
    /// Of a message: what is counted when it is sent.
    pub(crate) facts: Option<Facts>,
}

impl Entry {
    /// It alone, as a frame has it.
    pub(crate) fn event(&self) -> &[u8] {
        &self.frame[FRAME_HEADER..]
    }

    /// Whether it is a message that history lacks, if that has everything up to a place.
    fn is_after(&self, history_has: Place) -> bool {
        let place = self.message.as_ref().map(|(place, _)| place);
        place.is_some_and(|place| *place > history_has)
    }
}

/// How much a ring may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingLimits {
    /// Entries.
    pub(crate) entries: usize,
    /// Bytes of encoded events.
    pub(crate) bytes: usize,
}

/// A reader's place in the ring.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    /// The next entry to read.
    pub(crate) next: u64,
    /// Messages appended before that entry.
    pub(crate) messages_before: u64,
    /// The first entry that was appended after the cursor was made: presence and typing before it are
    /// over.
    live_from: u64,
    /// Position of the last message read or skipped.
    pub(crate) position: Bytes,
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// There is nothing that the reader is to be sent.
    Nothing,
    /// What to send; whether more is there to be read.
    Frame(Bytes, bool),
    /// The reader is too far behind.
    Slow,
}

/// What a reader that skipped ahead has missed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Messages.
    pub(crate) missed: u64,
    /// The last one before.
    pub(crate) from: Bytes,
    /// The last one missed.
    pub(crate) to: Bytes,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    entries: VecDeque<Entry>,
    /// Number of the oldest entry.
    first: u64,
    /// Messages that were appended before the oldest entry.
    messages_before_first: u64,
    messages: u64,
    bytes: usize,
    limits: RingLimits,
    /// The place of the newest message that left the ring: everything after it is here.
    complete_after: Place,
    position_before_first: Bytes,
    /// What was joined last, since readers come in crowds.
    run: Option<Run>,
}

impl Ring {
    /// An empty ring that has everything after a place.
    pub(crate) fn new(limits: RingLimits, complete_after: Place, position: Bytes) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            messages_before_first: 0,
            messages: 0,
            bytes: 0,
            limits,
            complete_after,
            position_before_first: position,
            run: None,
        }
    }

    /// Appends. The oldest entries leave for it, unless `keep_after` says that history doesn't have
    /// them yet; then presence and typing are dropped instead.
    pub(crate) fn append(&mut self, entry: Entry, keep_after: Place) {
        let kept = |entry: &Entry| entry.is_after(keep_after);
        let full = self.entries.len() >= self.limits.entries || self.bytes >= self.limits.bytes;
        if full && entry.message.is_none() && self.entries.front().is_some_and(kept) {
            return;
        }
        self.run = None;
        self.bytes += entry.frame.len();
        self.messages += u64::from(entry.message.is_some());
        self.entries.push_back(entry);
        while self.entries.len() > self.limits.entries || self.bytes > self.limits.bytes {
            if self.entries.len() <= 1 || self.entries.front().is_some_and(kept) {
                break;
            }
            self.drop_oldest();
        }
    }

    /// Gives up the oldest entries, as far as history has them: all but the newest `messages`, and all
    /// but the newest `entries`.
    pub(crate) fn trim(&mut self, messages: u64, entries: usize, history_has: Place) {
        let before = self.entries.len();
        while self.messages - self.messages_before_first > messages || self.entries.len() > entries
        {
            let front = self.entries.front();
            if front.is_none_or(|entry| entry.is_after(history_has)) {
                break;
            }
            self.drop_oldest();
        }
        if self.entries.len() < before {
            self.run = None;
            self.entries.shrink_to_fit();
        }
    }

    /// About the bytes that it takes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes + self.entries.len() * MESSAGE
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.first += 1;
            self.bytes -= oldest.frame.len();
            if let Some((place, position)) = oldest.message {
                self.messages_before_first += 1;
                self.complete_after = place;
                self.position_before_first = position;
            }
        }
    }

    /// A cursor behind the newest entry.
    pub(crate) fn tail(&self) -> Cursor {
        Cursor {
            next: self.end(),
            live_from: self.end(),
            messages_before: self.messages,
            position: self.last_position(),
        }
    }

    /// A cursor before the newest `count` messages.
    pub(crate) fn recent(&self, count: usize) -> Cursor {
        let mut left = count;
        let skip = self.entries.iter().rposition(|entry| {
            if entry.message.is_some() {
                if left == 0 {
                    return true;
                }
                left -= 1;
            }
            false
        });
        self.cursor_at(skip.map_or(0, |index| index + 1))
    }

    /// A cursor behind a place, if the ring still has everything after it.
    pub(crate) fn after(&self, place: Place) -> Option<Cursor> {
        if place < self.complete_after {
            return None;
        }
        let index = self
            .entries
            .iter()
            .rposition(|entry| entry.message.as_ref().is_some_and(|(at, _)| *at <= place))
            .map_or(0, |index| index + 1);
        Some(self.cursor_at(index))
    }

    /// A cursor before everything that the ring has.
    pub(crate) fn oldest(&self) -> Cursor {
        self.cursor_at(0)
    }

    /// The number of the next entry.
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Messages that were appended.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Messages after a cursor.
    pub(crate) fn pending(&self, cursor: &Cursor) -> u64 {
        self.messages - cursor.messages_before
    }

    fn cursor_at(&self, index: usize) -> Cursor {
        let before = self
            .entries
            .range(..index)
            .filter_map(|entry| entry.message.as_ref());
        let messages = before.clone().count() as u64;
        let position = before
            .last()
            .map_or(&self.position_before_first, |(_, position)| position);
        Cursor {
            next: self.first + index as u64,
            live_from: self.end(),
            messages_before: self.messages_before_first + messages,
            position: position.clone(),
        }
    }

    fn last_position(&self) -> Bytes {
        let newest = self
            .entries
            .iter()
            .rev()
            .find_map(|entry| entry.message.as_ref());
        newest
            .map_or(&self.position_before_first, |(_, position)| position)
            .clone()
    }

    /// Answers what comes after the cursor, about `budget` bytes of it, and moves the cursor. Nothing
    /// is read when more than `threshold` messages are pending.
    pub(crate) fn read(
        &mut self,
        cursor: &mut Cursor,
        reader: &Author,
        (threshold, budget): (u64, usize),
        tally: &mut Tally,
    ) -> Read {
        if cursor.next < self.first || self.pending(cursor) > threshold {
            return Read::Slow;
        }
        let end = self.end();
        if cursor.next >= cursor.live_from && end - cursor.next > 1 {
            let run = match self.run.take().filter(|run| run.fits(cursor, end, budget)) {
                Some(run) => run,
                None => Run::join(cursor.next, self.from(cursor.next), budget),
            };
            let shared = run.read(cursor, reader, tally);
            self.run = Some(run);
            if let Some(frame) = shared {
                return Read::Frame(frame, cursor.next < end);
            }
        }
        self.read_alone(cursor, reader, budget, tally)
    }

    fn from(&self, next: u64) -> impl Iterator<Item = &Entry> + Clone {
        let start = usize::try_from(next - self.first).unwrap_or(usize::MAX);
        self.entries.iter().skip(start)
    }

    /// Without what is the reader's own, or over.
    fn read_alone(
        &self,
        cursor: &mut Cursor,
        reader: &Author,
        budget: usize,
        tally: &mut Tally,
    ) -> Read {
        let start = cursor.next;
        let mut only = None;
        let mut joined: Option<Frame> = None;
        for entry in self.from(start) {
            if joined.as_ref().is_some_and(|joined| joined.len() >= budget) {
                break;
            }
            let over = entry.message.is_none() && cursor.next < cursor.live_from;
            cursor.next += 1;
            if let Some((_, position)) = &entry.message {
                cursor.messages_before += 1;
                cursor.position = position.clone();
            }
            if over || entry.author.as_ref() == Some(reader) {
                continue;
            }
            if let Some(facts) = &entry.facts {
                tally.add(facts, cursor.next > cursor.live_from);
            }
            if cursor.next - start == 1 && cursor.next == self.end() {
                only = Some(entry.frame.clone());
            } else {
                joined
                    .get_or_insert_with(|| Frame::with_room(run::length(self.from(start), budget)))
                    .push(entry.event());
            }
        }
        let more = cursor.next < self.end();
        match only.or_else(|| joined.map(Frame::finish)) {
            Some(frame) => Read::Frame(frame, more),
            None => Read::Nothing,
        }
    }

    /// Moves a slow reader ahead, to `keep` messages before the newest.
    pub(crate) fn skip_ahead(&self, cursor: &mut Cursor, keep: usize) -> Skipped {
        let ahead = self.recent(keep);
        let skipped = Skipped {
            missed: ahead.messages_before.saturating_sub(cursor.messages_before),
            from: cursor.position.clone(),
            to: ahead.position.clone(),
        };
        *cursor = Cursor {
            live_from: cursor.live_from,
            ..ahead
        };
        skipped
    }
}

#[cfg(test)]
mod tests;
