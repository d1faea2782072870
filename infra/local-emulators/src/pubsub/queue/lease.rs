//! Handing out, and what ends a lease.

use std::sync::Arc;

use super::{ConsumerId, DeadLetter, Delivery, Lease, Queue, Room, State};
use crate::clock::Moment;

/// How far ahead a message may be to go before one that is due.
const REORDER_REACH: usize = 8;

impl Queue {
    /// Leases what is due to a consumer, as much as it has room for. `skip` says how many due
    /// messages to let pass before one is taken: 0 for the order of publishing.
    pub(crate) fn take(
        &mut self,
        consumer: ConsumerId,
        room: Room,
        now: Moment,
        until: Moment,
        mut skip: impl FnMut(usize) -> usize,
    ) -> Vec<Delivery> {
        self.tick(now);
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < room.messages && bytes < room.bytes {
            let Some((at, seq)) = self.next_for(consumer, now, &mut skip) else {
                break;
            };
            self.due.remove(&(at, seq));
            if let Some(consumer) = self.consumers.get_mut(&consumer) {
                consumer.due.remove(&(at, seq));
            }
            let Some(delivery) = self.lease(seq, consumer, until) else {
                continue;
            };
            bytes += delivery.message.bytes;
            taken.push(delivery);
        }
        taken
    }

    fn next_for(
        &self,
        consumer: ConsumerId,
        now: Moment,
        skip: &mut impl FnMut(usize) -> usize,
    ) -> Option<(Moment, u64)> {
        let own = self.consumers.get(&consumer).map(|consumer| &consumer.due);
        let own = own.and_then(|due| due.first()).copied();
        let common = self.due.first().copied();
        let first = own.into_iter().chain(common).min();
        let first = first.filter(|&(at, _)| at <= now)?;
        let passed = skip(REORDER_REACH);
        if passed == 0 || Some(first) != common {
            return Some(first);
        }
        let due = self.due.iter().copied().take_while(|&(at, _)| at <= now);
        due.take(passed + 1).last()
    }

    fn lease(&mut self, seq: u64, consumer: ConsumerId, until: Moment) -> Option<Delivery> {
        let entry = self.entries.get_mut(&seq)?;
        self.next_lease += 1;
        let number = self.next_lease;
        entry.state = State::Leased {
            lease: number,
            until,
            consumer,
        };
        let message = Arc::clone(&entry.message);
        let attempt = entry.failures + 1;
        self.leases.insert((until, seq));
        if let Some(counted) = self.consumers.get_mut(&consumer) {
            counted.messages += 1;
            counted.bytes += message.bytes;
        }
        if let Some(name) = self.key_of(&message).map(str::to_owned) {
            self.advance(&name, consumer);
        }
        Some(Delivery {
            message,
            lease: Lease { seq, number },
            attempt,
        })
    }

    pub(super) fn is_current(&self, lease: Lease) -> bool {
        self.entries.get(&lease.seq).is_some_and(
            |entry| matches!(entry.state, State::Leased { lease: current, .. } if current == lease.number),
        )
    }

    /// Ends a lease, if there is one, and says nothing about the message. The cursor of the
    /// message's key must be out of sight.
    pub(super) fn release(&mut self, seq: u64) {
        let Some(entry) = self.entries.get_mut(&seq) else {
            return;
        };
        let State::Leased {
            until, consumer, ..
        } = entry.state
        else {
            return;
        };
        entry.state = State::Waiting;
        let message = Arc::clone(&entry.message);
        self.leases.remove(&(until, seq));
        if let Some(counted) = self.consumers.get_mut(&consumer) {
            counted.messages = counted.messages.saturating_sub(1);
            counted.bytes = counted.bytes.saturating_sub(message.bytes);
        }
        if let Some(name) = self.key_of(&message).map(str::to_owned) {
            self.returned(&name);
        }
    }

    /// A leased message is acknowledged.
    pub(super) fn settle(&mut self, seq: u64) {
        let Some(entry) = self.entries.get(&seq) else {
            return;
        };
        let message = Arc::clone(&entry.message);
        let Some(name) = self.key_of(&message).map(str::to_owned) else {
            self.release(seq);
            self.remove(seq, true);
            return;
        };
        self.withdraw(&name);
        self.release(seq);
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.state = State::Acked;
        }
        if self.rules.retain_acked {
            self.retained.insert(seq, message);
        }
        self.trim(&name);
        self.offer(&name);
    }

    /// A leased message was delivered in vain: it comes again, or is a dead letter.
    pub(super) fn fail(&mut self, seq: u64, now: Moment, overdue: bool) {
        let retry = self.rules.retry;
        let Some(entry) = self.entries.get_mut(&seq) else {
            return;
        };
        let State::Leased { lease, .. } = entry.state else {
            return;
        };
        entry.failures = entry.failures.saturating_add(1);
        let failures = entry.failures;
        let message = Arc::clone(&entry.message);
        if self.rules.max_attempts.is_some_and(|most| failures >= most) {
            self.dead.push(DeadLetter {
                message,
                attempts: failures,
            });
            self.settle(seq);
            return;
        }
        let wait = retry.map(|backoff| backoff.after(failures));
        let available_at = now + wait.unwrap_or_default();
        let Some(name) = self.key_of(&message).map(str::to_owned) else {
            self.release(seq);
            if let Some(entry) = self.entries.get_mut(&seq) {
                entry.available_at = available_at;
                if overdue {
                    entry.state = State::Late { lease };
                }
            }
            self.due.insert((available_at, seq));
            return;
        };
        self.withdraw(&name);
        self.rewind(&name, seq);
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.available_at = available_at;
        }
        self.offer(&name);
    }

    /// Takes a message out entirely; an acknowledged one is retained where the rules say so.
    pub(super) fn remove(&mut self, seq: u64, acked: bool) {
        let Some(entry) = self.entries.get(&seq) else {
            return;
        };
        let (at, message) = (entry.available_at, Arc::clone(&entry.message));
        let name = self.key_of(&message).map(str::to_owned);
        if let Some(name) = &name {
            self.withdraw(name);
        }
        self.release(seq);
        self.due.remove(&(at, seq));
        self.entries.remove(&seq);
        if acked && self.rules.retain_acked {
            self.retained.insert(seq, message);
        }
        let Some(name) = name else {
            return;
        };
        if let Some(key) = self.keys.get_mut(&name) {
            key.line.remove(&seq);
            if key.cursor == Some(seq) {
                key.cursor = key.line.range(seq + 1..).next().copied();
            }
        }
        self.trim(&name);
        self.offer(&name);
    }
}
