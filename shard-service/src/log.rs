//! The channel log: a bounded ring of encoded events, and the only fan-out structure there is.
//!
//! Publishing appends once. Each reader keeps a [`Cursor`] and copies nothing: an event is encoded
//! once, as bytes that all readers share. The ring serves live delivery, catch-up, recent messages at
//! join, and the slow reader alike.

use std::collections::VecDeque;

use bytes::Bytes;
use infrachat_types::{Epoch, Offset, SessionId};

use crate::tally::{Facts, Tally};

/// Where a message is in the order in which its region's owners appended.
pub(crate) type Place = (Epoch, Offset);

/// One event in the log.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// An entry of a `ServerBatch`.
    pub(crate) encoded: Bytes,
    /// The session that caused it and does not get it back.
    pub(crate) author: Option<SessionId>,
    /// Of a message: its place, and the position that says so on the wire. Presence and typing have
    /// none: they are not replayed.
    pub(crate) message: Option<(Place, Bytes)>,
    /// Of a message: what is counted when it is sent.
    pub(crate) facts: Option<Facts>,
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
    next: u64,
    /// Messages appended before that entry.
    messages_before: u64,
    /// The first entry that was appended after the cursor was made: presence and typing before it are
    /// over.
    live_from: u64,
    /// Position of the last message read or skipped.
    pub(crate) position: Bytes,
}

impl Cursor {
    /// Messages that it is behind of.
    pub(crate) fn messages_before(&self) -> u64 {
        self.messages_before
    }
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Everything was read.
    Drained,
    /// The budget was used up.
    More,
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
        }
    }

    /// Appends. The oldest entries leave for it, unless `keep_after` says that history doesn't have
    /// them yet; then presence and typing are dropped instead.
    pub(crate) fn append(&mut self, entry: Entry, keep_after: Place) {
        let kept = |entry: &Entry| {
            entry
                .message
                .as_ref()
                .is_some_and(|(place, _)| *place > keep_after)
        };
        let full = self.entries.len() >= self.limits.entries || self.bytes >= self.limits.bytes;
        if full && entry.message.is_none() && self.entries.front().is_some_and(kept) {
            return;
        }
        self.bytes += entry.encoded.len();
        self.messages += u64::from(entry.message.is_some());
        self.entries.push_back(entry);
        while self.entries.len() > self.limits.entries || self.bytes > self.limits.bytes {
            if self.entries.len() <= 1 || self.entries.front().is_some_and(kept) {
                break;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.first += 1;
            self.bytes -= oldest.encoded.len();
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

    /// Copies what comes after the cursor to `out`, at most about `budget` bytes, and moves the
    /// cursor. Nothing is copied when more than `threshold` messages are pending.
    pub(crate) fn read(
        &self,
        cursor: &mut Cursor,
        reader: &SessionId,
        threshold: u64,
        budget: usize,
        out: &mut Vec<Bytes>,
        tally: &mut Tally,
    ) -> Read {
        if cursor.next < self.first || self.pending(cursor) > threshold {
            return Read::Slow;
        }
        let mut left = budget;
        let start = usize::try_from(cursor.next - self.first).unwrap_or(usize::MAX);
        for entry in self.entries.iter().skip(start) {
            if left == 0 {
                return Read::More;
            }
            let over = entry.message.is_none() && cursor.next < cursor.live_from;
            cursor.next += 1;
            if let Some((_, position)) = &entry.message {
                cursor.messages_before += 1;
                cursor.position = position.clone();
            }
            if !over && entry.author.as_ref() != Some(reader) {
                left = left.saturating_sub(entry.encoded.len());
                out.push(entry.encoded.clone());
                if let Some(facts) = &entry.facts {
                    tally.add(facts, cursor.next > cursor.live_from);
                }
            }
        }
        Read::Drained
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Epoch = Epoch(1);

    fn ring(entries: usize) -> Ring {
        Ring::new(
            RingLimits {
                entries,
                bytes: usize::MAX,
            },
            (EPOCH, Offset(0)),
            Bytes::from_static(b"0"),
        )
    }

    fn position(offset: u64) -> Bytes {
        Bytes::from(offset.to_string())
    }

    fn message(offset: u64, author: Option<&SessionId>) -> Entry {
        Entry {
            encoded: position(offset),
            author: author.cloned(),
            message: Some(((EPOCH, Offset(offset)), position(offset))),
            facts: None,
        }
    }

    fn presence() -> Entry {
        Entry {
            encoded: Bytes::from_static(b"p"),
            author: None,
            message: None,
            facts: None,
        }
    }

    fn everything_stable() -> Place {
        (Epoch(u64::MAX), Offset(u64::MAX))
    }

    fn read_all(ring: &Ring, cursor: &mut Cursor, reader: &SessionId) -> Vec<Bytes> {
        let mut out = Vec::new();
        assert_eq!(
            ring.read(
                cursor,
                reader,
                u64::MAX,
                usize::MAX,
                &mut out,
                &mut Tally::default()
            ),
            Read::Drained
        );
        out
    }

    #[test]
    fn the_author_gets_no_echo_and_others_do() {
        let (me, other) = (SessionId::from_text("me"), SessionId::from_text("other"));
        let mut ring = ring(10);
        let mut cursor = ring.tail();
        ring.append(message(1, Some(&me)), everything_stable());
        assert!(read_all(&ring, &mut cursor.clone(), &me).is_empty());
        assert_eq!(read_all(&ring, &mut cursor, &other), [position(1)]);
    }

    #[test]
    fn a_slow_reader_learns_exactly_what_it_missed() {
        let me = SessionId::from_text("me");
        let mut ring = ring(100);
        let mut cursor = ring.tail();
        (1..=20).for_each(|offset| ring.append(message(offset, None), everything_stable()));
        let mut out = Vec::new();
        assert_eq!(
            ring.read(
                &mut cursor,
                &me,
                10,
                usize::MAX,
                &mut out,
                &mut Tally::default()
            ),
            Read::Slow
        );
        assert!(out.is_empty());
        let skipped = ring.skip_ahead(&mut cursor, 5);
        assert_eq!(
            skipped,
            Skipped {
                missed: 15,
                from: position(0),
                to: position(15)
            }
        );
        assert_eq!(
            read_all(&ring, &mut cursor, &me),
            (16..=20).map(position).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_reader_that_the_ring_overtook_is_slow() {
        let me = SessionId::from_text("me");
        let mut ring = ring(3);
        let mut cursor = ring.tail();
        (1..=5).for_each(|offset| ring.append(message(offset, None), everything_stable()));
        assert_eq!(
            ring.read(
                &mut cursor,
                &me,
                1_000,
                usize::MAX,
                &mut Vec::new(),
                &mut Tally::default()
            ),
            Read::Slow
        );
        assert_eq!(ring.skip_ahead(&mut cursor, 100).missed, 2);
    }

    #[test]
    fn what_history_lacks_stays_in_the_ring() {
        let mut ring = ring(2);
        for offset in 1..=5 {
            ring.append(message(offset, None), (EPOCH, Offset(1)));
        }
        assert!(
            ring.after((EPOCH, Offset(1))).is_some(),
            "2 to 5 are still there"
        );
        assert!(ring.after((EPOCH, Offset(0))).is_none(), "1 is gone");
    }

    #[test]
    fn a_place_in_an_older_epoch_is_behind_everything_newer() {
        let mut ring = Ring::new(
            RingLimits {
                entries: 10,
                bytes: usize::MAX,
            },
            (Epoch(1), Offset(4)),
            Bytes::from_static(b"x"),
        );
        ring.append(
            Entry {
                message: Some(((Epoch(2), Offset(1)), position(1))),
                ..message(1, None)
            },
            everything_stable(),
        );
        assert!(ring.after((Epoch(1), Offset(3))).is_none());
        let mut cursor = ring
            .after((Epoch(1), Offset(9)))
            .expect("nothing after it is missing");
        assert_eq!(
            read_all(&ring, &mut cursor, &SessionId::from_text("r")).len(),
            1
        );
    }

    proptest! {
        /// Whatever is appended, and wherever a reader starts, it reads every message after its place
        /// once and in order, or learns how many it missed.
        #[test]
        fn read_and_missed_add_up(
            capacity in 1_usize..20, start in 0_u64..30, kinds in prop::collection::vec(any::<bool>(), 1..60),
            budget in 1_usize..20, threshold in 1_u64..30,
        ) {
            let me = SessionId::from_text("me");
            let mut ring = ring(capacity);
            let mut offset = 0;
            for is_message in kinds {
                if is_message {
                    offset += 1;
                    ring.append(message(offset, None), everything_stable());
                } else {
                    ring.append(presence(), everything_stable());
                }
            }
            let start = start.min(offset);
            let Some(mut cursor) = ring.after((EPOCH, Offset(start))) else { return Ok(()) };
            let mut out = Vec::new();
            let mut missed = 0;
            loop {
                match ring.read(&mut cursor, &me, threshold, budget, &mut out, &mut Tally::default()) {
                    Read::Drained => break,
                    Read::More => {}
                    Read::Slow => missed += ring.skip_ahead(&mut cursor, usize::try_from(threshold / 2).expect("small")).missed,
                }
            }
            let read: Vec<u64> = out.iter().filter_map(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok()).collect();
            prop_assert_eq!(read.len() as u64 + missed, offset - start);
            prop_assert!(read.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            prop_assert_eq!(cursor.position, position(offset));
        }
    }
}
