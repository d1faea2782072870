//! The lines of ordering keys.

use std::collections::BTreeSet;

use super::{ConsumerId, Queue, State};

/// One key's line.
#[derive(Debug, Default)]
pub(super) struct Key {
    /// All its messages, acknowledged ones behind an open one included.
    pub(super) line: BTreeSet<u64>,
    /// The first that is waiting: all before it are out or acknowledged, all after it waiting.
    pub(super) cursor: Option<u64>,
    /// How many are leased.
    pub(super) out: usize,
    /// Who has those.
    pub(super) holder: Option<ConsumerId>,
}

impl Queue {
    /// Puts a key's cursor where the consumer that may have it looks.
    pub(super) fn offer(&mut self, name: &str) {
        let Some((place, holder)) = self.cursor_place(name) else {
            return;
        };
        match holder {
            None => {
                self.due.insert(place);
            }
            // Nobody gets it until what is out is settled.
            Some(_) if self.rules.one_per_key => {}
            Some(holder) => {
                if let Some(consumer) = self.consumers.get_mut(&holder) {
                    consumer.due.insert(place);
                }
            }
        }
    }

    /// Takes a key's cursor out of sight.
    pub(super) fn withdraw(&mut self, name: &str) {
        let Some((place, holder)) = self.cursor_place(name) else {
            return;
        };
        self.due.remove(&place);
        if let Some(consumer) = holder.and_then(|holder| self.consumers.get_mut(&holder)) {
            consumer.due.remove(&place);
        }
    }

    /// The cursor was leased to `consumer`: moves on.
    pub(super) fn advance(&mut self, name: &str, consumer: ConsumerId) {
        if let Some(key) = self.keys.get_mut(name) {
            key.cursor = key
                .cursor
                .and_then(|seq| key.line.range(seq + 1..).next().copied());
            key.out += 1;
            key.holder = Some(consumer);
        }
        self.offer(name);
    }

    /// One of the key's messages is no longer leased. The cursor must be out of sight.
    pub(super) fn returned(&mut self, name: &str) {
        if let Some(key) = self.keys.get_mut(name) {
            key.out = key.out.saturating_sub(1);
            if key.out == 0 {
                key.holder = None;
            }
        }
    }

    /// Drops the acknowledged head of the line: nothing before it can come again.
    pub(super) fn trim(&mut self, name: &str) {
        let mut done = Vec::new();
        if let Some(key) = self.keys.get(name) {
            let acked = |seq: &u64| {
                self.entries
                    .get(seq)
                    .is_none_or(|entry| entry.state == State::Acked)
            };
            done.extend(key.line.iter().copied().take_while(acked));
        }
        for seq in done {
            if let Some(key) = self.keys.get_mut(name) {
                key.line.remove(&seq);
            }
            self.entries.remove(&seq);
        }
        if self.keys.get(name).is_some_and(|key| key.line.is_empty()) {
            self.keys.remove(name);
        }
    }

    /// Makes the line wait again from `seq` on: what is out is called back, what was acknowledged
    /// comes again. The cursor must be out of sight.
    pub(super) fn rewind(&mut self, name: &str, seq: u64) {
        let Some(key) = self.keys.get_mut(name) else {
            return;
        };
        let delivered: Vec<u64> = match key.cursor {
            Some(cursor) => key.line.range(seq..cursor.max(seq)).copied().collect(),
            None => key.line.range(seq..).copied().collect(),
        };
        key.cursor = Some(seq);
        for seq in delivered {
            self.release(seq);
            self.retained.remove(&seq);
            if let Some(entry) = self.entries.get_mut(&seq) {
                entry.state = State::Waiting;
            }
        }
    }

    fn cursor_place(
        &self,
        name: &str,
    ) -> Option<((crate::clock::Moment, u64), Option<ConsumerId>)> {
        let key = self.keys.get(name)?;
        let seq = key.cursor?;
        let entry = self.entries.get(&seq)?;
        Some(((entry.available_at, seq), key.holder))
    }
}
