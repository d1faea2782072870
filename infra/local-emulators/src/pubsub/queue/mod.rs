//! One subscription's backlog: what is due, what is leased to whom, and what comes again. Pure: time
//! and chance come from outside.
//!
//! Without an ordering key a message stands alone: it is due, then leased, then acknowledged, or due
//! again when its lease ends or is given back. With one (in a subscription with ordering), its key is
//! a line: only the first message that isn't out, the key's *cursor*, can be delivered, and only to
//! the consumer that has the ones before it. When a message of the line comes again, so do all after
//! it, acknowledged ones included; those are therefore kept until nothing before them is open.

mod keys;
mod lease;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use self::keys::Key;
use super::message::Message;
use crate::clock::Moment;

/// Whoever takes messages: a stream, one pull, or the pusher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConsumerId(pub(crate) u64);

/// One delivery of one message: what an acknowledgement must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) seq: u64,
    /// Rises with every delivery in the queue.
    pub(crate) number: u64,
}

/// A message on its way to a consumer.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    pub(crate) lease: Lease,
    /// One, and one more for each time it was given back or its lease ended.
    pub(crate) attempt: u32,
}

/// A message that was delivered in vain as often as the subscription allows.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) message: Arc<Message>,
    pub(crate) attempts: u32,
}

/// The settings of a subscription that its queue obeys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Ordering keys count.
    pub(crate) ordering: bool,
    /// At most one message of a key is out at a time.
    pub(crate) one_per_key: bool,
    pub(crate) retry: Option<Backoff>,
    /// Deliveries in vain until a message is a dead letter.
    pub(crate) max_attempts: Option<u32>,
    pub(crate) retention: Duration,
    pub(crate) retain_acked: bool,
}

/// How long a message waits before it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.min.saturating_mul(1 << doublings).min(self.max)
    }
}

/// What a consumer can still take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) messages: usize,
    /// A message is taken as long as fewer bytes than this were.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    available_at: Moment,
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be delivered, when its turn and its time come.
    Waiting,
    /// As waiting, but the lease that ended may still be acknowledged.
    Late { lease: u64 },
    Leased {
        lease: u64,
        until: Moment,
        consumer: ConsumerId,
    },
    /// Only in a key's line, behind a message that is open.
    Acked,
}

#[derive(Debug, Default)]
struct Consumer {
    /// What only this consumer can be given: cursors of keys of which it has messages out.
    due: BTreeSet<(Moment, u64)>,
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Queue {
    rules: Rules,
    entries: BTreeMap<u64, Entry>,
    /// Acknowledged and kept, for a seek back.
    retained: BTreeMap<u64, Arc<Message>>,
    keys: HashMap<String, Key>,
    /// What any consumer can be given: messages without key, and cursors of keys that nobody has.
    due: BTreeSet<(Moment, u64)>,
    leases: BTreeSet<(Moment, u64)>,
    consumers: HashMap<ConsumerId, Consumer>,
    next_consumer: u64,
    next_lease: u64,
    dead: Vec<DeadLetter>,
}

impl Queue {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            entries: BTreeMap::new(),
            retained: BTreeMap::new(),
            keys: HashMap::new(),
            due: BTreeSet::new(),
            leases: BTreeSet::new(),
            consumers: HashMap::new(),
            next_consumer: 0,
            next_lease: 0,
            dead: Vec::new(),
        }
    }

    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        if !rules.retain_acked {
            self.retained.clear();
        }
    }

    /// Adds a message that was published after all others here.
    pub(crate) fn push(&mut self, message: Arc<Message>, available_at: Moment) {
        let seq = message.seq;
        let key = self.key_of(&message).map(str::to_owned);
        let entry = Entry {
            message,
            available_at,
            failures: 0,
            state: State::Waiting,
        };
        self.entries.insert(seq, entry);
        match key {
            None => {
                self.due.insert((available_at, seq));
            }
            Some(name) => {
                let key = self.keys.entry(name.clone()).or_default();
                key.line.insert(seq);
                if key.cursor.is_none() {
                    key.cursor = Some(seq);
                    self.offer(&name);
                }
            }
        }
    }

    /// A new consumer; only one that has joined and not left may take.
    pub(crate) fn join(&mut self) -> ConsumerId {
        self.next_consumer += 1;
        let id = ConsumerId(self.next_consumer);
        self.consumers.insert(id, Consumer::default());
        id
    }

    /// Forgets a consumer. What it has stays leased until acknowledged, given back or overdue.
    pub(crate) fn leave(&mut self, id: ConsumerId) {
        self.consumers.remove(&id);
    }

    /// What a consumer has out: messages and bytes.
    pub(crate) fn outstanding(&self, id: ConsumerId) -> (usize, usize) {
        self.consumers
            .get(&id)
            .map_or((0, 0), |consumer| (consumer.messages, consumer.bytes))
    }

    /// Acknowledges a delivery. A lease that ended counts as long as the message has not been
    /// delivered again (and has no key); any other that isn't current is ignored.
    pub(crate) fn ack(&mut self, lease: Lease) {
        let Some(entry) = self.entries.get(&lease.seq) else {
            return;
        };
        match entry.state {
            State::Leased { lease: current, .. } if current == lease.number => {
                self.settle(lease.seq);
            }
            State::Late { lease: current } if current == lease.number => {
                self.due.remove(&(entry.available_at, lease.seq));
                self.remove(lease.seq, true);
            }
            _ => {}
        }
    }

    /// Ends the lease of a delivery now: the message comes again, after the backoff.
    pub(crate) fn nack(&mut self, lease: Lease, now: Moment) {
        if self.is_current(lease) {
            self.fail(lease.seq, now, false);
        }
    }

    /// Makes the lease of a delivery end then.
    pub(crate) fn extend(&mut self, lease: Lease, end: Moment) {
        if let Some(entry) = self.entries.get_mut(&lease.seq)
            && let State::Leased {
                lease: current,
                until,
                ..
            } = &mut entry.state
            && *current == lease.number
        {
            self.leases.remove(&(*until, lease.seq));
            self.leases.insert((end, lease.seq));
            *until = end;
        }
    }

    /// Ends leases that are overdue and drops what is older than the retention.
    pub(crate) fn tick(&mut self, now: Moment) {
        while let Some(&(until, seq)) = self.leases.first()
            && until <= now
        {
            self.fail(seq, now, true);
        }
        let oldest = now - self.rules.retention;
        while let Some((&seq, entry)) = self.entries.first_key_value()
            && entry.message.published < oldest
        {
            self.remove(seq, false);
        }
        while let Some((&seq, message)) = self.retained.first_key_value()
            && message.published < oldest
        {
            self.retained.remove(&seq);
        }
    }

    /// What became a dead letter since the last call.
    pub(crate) fn take_dead(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.dead)
    }

    /// When `tick` has something to do next.
    pub(crate) fn next_tick(&self) -> Option<Moment> {
        let lease = self.leases.first().map(|&(until, _)| until);
        let past = Duration::from_micros(1);
        let oldest = self.entries.first_key_value().map(|(_, e)| &e.message);
        let kept = self.retained.first_key_value().map(|(_, message)| message);
        let drop = oldest.into_iter().chain(kept);
        let drop = drop.map(|message| message.published + self.rules.retention + past);
        lease.into_iter().chain(drop).min()
    }

    /// When there is something to take next, if nothing changes until then.
    pub(crate) fn next_due(&self, id: ConsumerId) -> Option<Moment> {
        let own = self.consumers.get(&id).and_then(|c| c.due.first());
        own.into_iter()
            .chain(self.due.first())
            .map(|&(at, _)| at)
            .min()
    }

    /// All that isn't acknowledged, in the order it was published.
    pub(crate) fn unacked(&self) -> BTreeMap<u64, Arc<Message>> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.state != State::Acked)
            .map(|(&seq, entry)| (seq, Arc::clone(&entry.message)))
            .collect()
    }

    /// All that is held, acknowledged or not.
    pub(crate) fn held(&self) -> BTreeMap<u64, Arc<Message>> {
        let entries = self
            .entries
            .iter()
            .map(|(&seq, entry)| (seq, &entry.message));
        let retained = self.retained.iter().map(|(&seq, message)| (seq, message));
        retained
            .chain(entries)
            .map(|(seq, message)| (seq, Arc::clone(message)))
            .collect()
    }

    /// Makes exactly these unacknowledged and undelivered. All leases are void.
    pub(crate) fn reset(&mut self, unacked: BTreeMap<u64, Arc<Message>>, now: Moment) {
        let held = self.held();
        self.entries.clear();
        self.retained.clear();
        self.keys.clear();
        self.due.clear();
        self.leases.clear();
        for consumer in self.consumers.values_mut() {
            *consumer = Consumer::default();
        }
        if self.rules.retain_acked {
            self.retained = held;
            self.retained.retain(|seq, _| !unacked.contains_key(seq));
        }
        for message in unacked.into_values() {
            self.push(message, now);
        }
    }

    fn key_of<'a>(&self, message: &'a Message) -> Option<&'a str> {
        let key = message.ordering_key();
        (self.rules.ordering && !key.is_empty()).then_some(key)
    }
}
