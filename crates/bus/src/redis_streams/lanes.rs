//! What the active consumer of a group has read and not acknowledged: what was handed out, and what
//! waits for it.
//!
//! Events stand in lanes: one for each ordering key, and one for each event without a key. A lane
//! whose next event waits has a ticket among the waiting ones.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    mem,
    sync::Arc,
};

use tokio::time::Instant;

use super::entry::StreamId;
use crate::{ConsumeLimits, Event};

/// At most so many events wait to be handed out, however high the limits.
const READ_AHEAD: usize = 1_000;
/// At most so many are read at once.
const BATCH: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum LaneKey {
    Key(Arc<str>),
    Alone(StreamId),
}

/// When a lane's next event is due, and that event's id.
type Ticket = (Instant, StreamId);

#[derive(Debug)]
pub(super) struct Lanes {
    limits: ConsumeLimits,
    lanes: HashMap<LaneKey, Lane>,
    waiting: BTreeMap<Ticket, LaneKey>,
    /// How many events are not handed out.
    unhanded: usize,
    /// The bytes of all that is not acknowledged.
    held_bytes: usize,
    /// How many deliveries are out, those included that have become stale, and their bytes.
    out: usize,
    out_bytes: usize,
    leases: u64,
    /// Acknowledged by the consumer, and not yet in Redis.
    acked: Vec<StreamId>,
    /// All that was read and is, as far as is known, still pending in Redis.
    known: HashSet<StreamId>,
}

#[derive(Debug, Default)]
struct Lane {
    /// The first is never acknowledged.
    entries: VecDeque<Entry>,
    /// How many of the entries were handed out.
    handed_out: usize,
    ticket: Option<Ticket>,
}

#[derive(Debug)]
struct Entry {
    id: StreamId,
    due: Instant,
    /// `None` once acknowledged.
    event: Option<Event>,
    attempts: u32,
    /// Which delivery may settle it.
    lease: Option<u64>,
}

/// What a delivery holds.
#[derive(Debug)]
pub(super) struct Grip {
    lane: LaneKey,
    id: StreamId,
    lease: u64,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Taken {
    pub(super) event: Event,
    pub(super) attempt: u32,
    pub(super) grip: Grip,
}

impl Lane {
    /// The ticket of the next event to hand out, passing over the acknowledged.
    fn next_ticket(&mut self) -> Option<Ticket> {
        while let Some(entry) = self.entries.get(self.handed_out) {
            if entry.event.is_some() {
                return Some((entry.due, entry.id));
            }
            self.handed_out += 1;
        }
        None
    }

    /// Takes back what was handed out from an index on, and answers how many these are.
    fn take_back(&mut self, index: usize, due: Instant) -> usize {
        let mut taken_back = 0;
        for entry in self.entries.range_mut(index..self.handed_out) {
            entry.lease = None;
            taken_back += usize::from(entry.event.is_some());
        }
        self.handed_out = index;
        if let Some(entry) = self.entries.get_mut(index) {
            entry.due = due;
        }
        taken_back
    }

    fn drop_acknowledged(&mut self) {
        while self
            .entries
            .pop_front_if(|entry| entry.event.is_none())
            .is_some()
        {
            self.handed_out = self.handed_out.saturating_sub(1);
        }
    }
}

impl Lanes {
    pub(super) fn new(limits: ConsumeLimits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            waiting: BTreeMap::new(),
            unhanded: 0,
            held_bytes: 0,
            out: 0,
            out_bytes: 0,
            leases: 0,
            acked: Vec::new(),
            known: HashSet::new(),
        }
    }

    /// How many more to read now.
    pub(super) fn room(&self) -> usize {
        if self.held_bytes >= self.limits.bytes && self.held_bytes > 0 {
            return 0;
        }
        let ahead = self.limits.events.clamp(1, READ_AHEAD);
        ahead.saturating_sub(self.unhanded).min(BATCH)
    }

    /// Whether this id was read before and has not been acknowledged in Redis since.
    pub(super) fn knows(&self, id: StreamId) -> bool {
        self.known.contains(&id)
    }

    /// Takes an event that comes after all of its key that are here; one that is here already, it
    /// leaves as it is.
    pub(super) fn push(&mut self, id: StreamId, event: Event, attempts: u32, now: Instant) {
        if !self.known.insert(id) {
            return;
        }
        let key = if event.ordering_key.is_empty() {
            LaneKey::Alone(id)
        } else {
            LaneKey::Key(event.ordering_key.as_str().into())
        };
        self.unhanded += 1;
        self.held_bytes += event.payload.len();
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.entries.push_back(Entry {
            id,
            due: now,
            event: Some(event),
            attempts,
            lease: None,
        });
        if lane.ticket.is_none() {
            self.place(&key);
        }
    }

    /// Acknowledges in Redis what can't be delivered.
    pub(super) fn discard(&mut self, id: StreamId) {
        self.known.insert(id);
        self.acked.push(id);
    }

    /// When the next event is due, if the limits allow it.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let ((due, id), key) = self.waiting.first_key_value()?;
        let lane = self.lanes.get(key)?;
        let index = lane.entries.binary_search_by_key(id, |entry| entry.id);
        let event = lane.entries.get(index.ok()?)?.event.as_ref()?;
        self.allows(event.payload.len()).then_some(*due)
    }

    fn allows(&self, bytes: usize) -> bool {
        self.out < self.limits.events
            && (self.out == 0 || self.out_bytes.saturating_add(bytes) <= self.limits.bytes)
    }

    /// Hands out the next event that is due, within the limits.
    pub(super) fn take(&mut self, now: Instant) -> Option<Taken> {
        if self.next_due()? > now {
            return None;
        }
        let key = self.waiting.first_key_value()?.1.clone();
        let lane = self.lanes.get_mut(&key)?;
        let entry = lane.entries.get_mut(lane.handed_out)?;
        let event = entry.event.clone()?;
        self.leases += 1;
        entry.lease = Some(self.leases);
        entry.attempts += 1;
        let bytes = event.payload.len();
        let taken = Taken {
            event,
            attempt: entry.attempts,
            grip: Grip {
                lane: key.clone(),
                id: entry.id,
                lease: self.leases,
                bytes,
            },
        };
        lane.handed_out += 1;
        self.unhanded -= 1;
        self.out += 1;
        self.out_bytes += bytes;
        self.place(&key);
        Some(taken)
    }

    /// Ends a delivery: the event is done with, or it and the later ones of its lane come again.
    pub(super) fn settle(&mut self, grip: &Grip, done: bool, again_at: Instant) {
        self.out -= 1;
        self.out_bytes -= grip.bytes;
        let Some(lane) = self.lanes.get_mut(&grip.lane) else {
            return;
        };
        let index = lane
            .entries
            .binary_search_by_key(&grip.id, |entry| entry.id);
        let Ok(index) = index else { return };
        let entry = &mut lane.entries[index];
        if entry.lease != Some(grip.lease) {
            return;
        }
        if done {
            entry.event = None;
            entry.lease = None;
            lane.drop_acknowledged();
            self.held_bytes -= grip.bytes;
            self.acked.push(grip.id);
        } else {
            self.unhanded += lane.take_back(index, again_at);
        }
        self.place(&grip.lane);
    }

    /// Forgets all events, after which the deliveries that are out settle nothing.
    pub(super) fn forget(&mut self) {
        self.lanes.clear();
        self.waiting.clear();
        self.unhanded = 0;
        self.held_bytes = 0;
        self.known = self.acked.iter().copied().collect();
    }

    /// What to acknowledge in Redis.
    pub(super) fn take_acked(&mut self) -> Vec<StreamId> {
        mem::take(&mut self.acked)
    }

    /// Redis knows that they are acknowledged.
    pub(super) fn confirm_acked(&mut self, ids: &[StreamId]) {
        for id in ids {
            self.known.remove(id);
        }
    }

    /// Redis may not know it.
    pub(super) fn retry_acked(&mut self, ids: Vec<StreamId>) {
        self.acked.extend(ids);
    }

    /// Puts a lane where its next event waits, and forgets a lane in which nothing is left.
    fn place(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        if let Some(ticket) = lane.ticket.take() {
            self.waiting.remove(&ticket);
        }
        lane.ticket = lane.next_ticket();
        if let Some(ticket) = lane.ticket {
            self.waiting.insert(ticket, key.clone());
        } else if lane.entries.is_empty() {
            self.lanes.remove(key);
        }
    }
}
