//! One group's place in one topic: what it has not acknowledged, and who holds what.
//!
//! Events stand in lanes: one for each ordering key, and one for each event without a key. A lane
//! with a waiting event has a ticket in one of the waiting lists: its owner's when a consumer holds
//! events of it, else the common one. So each operation touches one lane and one list.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::network::Network;
use crate::{ConsumeLimits, Event};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberId(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LaneId(u64);

/// A lane's place in a waiting list: when its next event is due, and that event's number.
type Ticket = (Instant, u64);

pub(super) struct Queue {
    state: Mutex<State>,
    network: Arc<Network>,
    nack_backoff: Duration,
}

#[derive(Default)]
struct State {
    lanes: HashMap<LaneId, Lane>,
    by_key: HashMap<String, LaneId>,
    unowned: BTreeMap<Ticket, LaneId>,
    members: BTreeMap<MemberId, Member>,
    unacknowledged: usize,
    numbers: u64,
}

#[derive(Default)]
struct Lane {
    key: Option<String>,
    /// The position of the first entry.
    base: u64,
    /// The first is never acknowledged.
    entries: VecDeque<Entry>,
    /// How many of the entries were handed out.
    handed_out: usize,
    ticket: Option<Ticket>,
    owner: Option<MemberId>,
    /// How many deliveries the owner holds, those included that have become stale.
    held: usize,
}

struct Entry {
    number: u64,
    due: Instant,
    /// `None` once acknowledged.
    event: Option<Event>,
    attempts: u32,
    /// Which delivery may settle it.
    lease: Option<u64>,
}

struct Member {
    limits: ConsumeLimits,
    wake: Arc<Notify>,
    events: usize,
    bytes: usize,
    waiting: BTreeMap<Ticket, LaneId>,
    lanes: BTreeSet<LaneId>,
}

/// What a delivery holds.
pub(super) struct Grip {
    member: MemberId,
    lane: LaneId,
    position: u64,
    lease: u64,
    bytes: usize,
}

pub(super) struct Taken {
    pub(super) event: Event,
    pub(super) attempt: u32,
    pub(super) grip: Grip,
}

pub(super) enum Next {
    Taken(Taken),
    /// Not before then, unless the member is woken.
    At(Instant),
    /// Not before the member is woken.
    Nothing,
}

impl Queue {
    pub(super) fn new(network: Arc<Network>, nack_backoff: Duration) -> Self {
        Self {
            state: Mutex::default(),
            network,
            nack_backoff,
        }
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.state.lock().unacknowledged
    }

    pub(super) fn push(&self, event: Event, delay: Duration) {
        self.state.lock().push(event, Instant::now() + delay);
    }

    pub(super) fn join(&self, limits: ConsumeLimits, wake: Arc<Notify>) -> MemberId {
        let mut state = self.state.lock();
        let id = MemberId(state.number());
        let member = Member {
            limits,
            wake,
            events: 0,
            bytes: 0,
            waiting: BTreeMap::new(),
            lanes: BTreeSet::new(),
        };
        state.members.insert(id, member);
        id
    }

    /// Hands back at once what the member held. Its deliveries settle nothing any more.
    pub(super) fn leave(&self, member: MemberId) {
        self.state.lock().leave(member, Instant::now());
    }

    /// The next event for a member to which events take `transit`.
    pub(super) fn take(&self, member: MemberId, transit: Duration) -> Next {
        self.state.lock().take(member, transit, Instant::now())
    }

    /// Ends a delivery: the event is done with, or it and the later ones of its lane come again.
    pub(super) fn settle(&self, grip: &Grip, done: bool) {
        let again_at = Instant::now() + self.nack_backoff;
        self.state.lock().settle(grip, done, again_at);
    }
}

impl Member {
    fn has_room(&self, bytes: usize) -> bool {
        self.events < self.limits.events
            && (self.events == 0 || self.bytes.saturating_add(bytes) <= self.limits.bytes)
    }
}

impl Lane {
    /// The ticket of the next event to hand out, passing over the acknowledged.
    fn next_ticket(&mut self) -> Option<Ticket> {
        while let Some(entry) = self.entries.get(self.handed_out) {
            if entry.event.is_some() {
                return Some((entry.due, entry.number));
            }
            self.handed_out += 1;
        }
        None
    }

    /// Takes back what was handed out from an index on.
    fn take_back(&mut self, index: usize, due: Instant) {
        for entry in self.entries.range_mut(index..self.handed_out) {
            entry.lease = None;
        }
        self.handed_out = index;
        if let Some(entry) = self.entries.get_mut(index) {
            entry.due = due;
        }
    }

    fn drop_acknowledged(&mut self) {
        while self
            .entries
            .pop_front_if(|entry| entry.event.is_none())
            .is_some()
        {
            self.base += 1;
            self.handed_out = self.handed_out.saturating_sub(1);
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn push(&mut self, event: Event, due: Instant) {
        let number = self.number();
        let id = self.lane_of(&event.ordering_key, number);
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        lane.entries.push_back(Entry {
            number,
            due,
            event: Some(event),
            attempts: 0,
            lease: None,
        });
        self.unacknowledged += 1;
        if lane.ticket.is_none() {
            self.place(id);
        }
    }

    fn lane_of(&mut self, key: &str, number: u64) -> LaneId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let id = LaneId(number);
        let mut lane = Lane::default();
        if !key.is_empty() {
            lane.key = Some(key.to_owned());
            self.by_key.insert(key.to_owned(), id);
        }
        self.lanes.insert(id, lane);
        id
    }

    /// Puts a lane where its next event waits, wakes who may take it, and forgets a lane in which
    /// nothing is left.
    fn place(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let mut owner = lane.owner.and_then(|owner| self.members.get_mut(&owner));
        let waiting = match &mut owner {
            Some(owner) => &mut owner.waiting,
            None => &mut self.unowned,
        };
        if let Some(ticket) = lane.ticket.take() {
            waiting.remove(&ticket);
        }
        lane.ticket = lane.next_ticket();
        match (lane.ticket, owner) {
            (Some(ticket), Some(owner)) => {
                owner.waiting.insert(ticket, id);
                owner.wake.notify_one();
            }
            (Some(ticket), None) => {
                self.unowned.insert(ticket, id);
                for member in self.members.values() {
                    member.wake.notify_one();
                }
            }
            (None, _) if lane.entries.is_empty() && lane.held == 0 => {
                if let Some(key) = lane.key.take() {
                    self.by_key.remove(&key);
                }
                self.lanes.remove(&id);
            }
            (None, _) => {}
        }
    }

    fn take(&mut self, member_id: MemberId, transit: Duration, now: Instant) -> Next {
        let Some(member) = self.members.get_mut(&member_id) else {
            return Next::Nothing;
        };
        let own = member.waiting.first_key_value();
        let common = self.unowned.first_key_value();
        let Some((&(due, _), &id)) = own.into_iter().chain(common).min() else {
            return Next::Nothing;
        };
        let due = due + transit;
        if due > now {
            return Next::At(due);
        }
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Next::Nothing;
        };
        let index = lane.handed_out;
        let Some(entry) = lane.entries.get_mut(index) else {
            return Next::Nothing;
        };
        let Some(event) = &entry.event else {
            return Next::Nothing;
        };
        let bytes = event.payload.len();
        if !member.has_room(bytes) {
            return Next::Nothing;
        }

        self.numbers += 1;
        let lease = self.numbers;
        entry.lease = Some(lease);
        entry.attempts += 1;
        let taken = Taken {
            event: event.clone(),
            attempt: entry.attempts,
            grip: Grip {
                member: member_id,
                lane: id,
                position: lane.base + index as u64,
                lease,
                bytes,
            },
        };
        member.events += 1;
        member.bytes += bytes;
        lane.handed_out += 1;
        lane.held += 1;
        if lane.owner.is_none() {
            if let Some(ticket) = lane.ticket.take() {
                self.unowned.remove(&ticket);
            }
            lane.owner = Some(member_id);
            member.lanes.insert(id);
        }
        self.place(id);
        Next::Taken(taken)
    }

    fn settle(&mut self, grip: &Grip, done: bool, again_at: Instant) {
        let Some(member) = self.members.get_mut(&grip.member) else {
            return;
        };
        member.events -= 1;
        member.bytes -= grip.bytes;
        member.wake.notify_one();
        let Some(lane) = self.lanes.get_mut(&grip.lane) else {
            return;
        };
        lane.held -= 1;
        let index = grip.position.checked_sub(lane.base);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let current = index.filter(|&index| {
            let entry = lane.entries.get(index);
            entry.is_some_and(|entry| entry.lease == Some(grip.lease))
        });
        if let Some(index) = current {
            if done {
                let entry = &mut lane.entries[index];
                entry.event = None;
                entry.lease = None;
                lane.drop_acknowledged();
                self.unacknowledged -= 1;
            } else {
                lane.take_back(index, again_at);
            }
        }
        if lane.held == 0 {
            if let Some(ticket) = lane.ticket.take() {
                member.waiting.remove(&ticket);
            }
            member.lanes.remove(&grip.lane);
            lane.owner = None;
        }
        self.place(grip.lane);
    }

    fn leave(&mut self, member: MemberId, now: Instant) {
        let Some(member) = self.members.remove(&member) else {
            return;
        };
        for id in member.lanes {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.owner = None;
                lane.held = 0;
                lane.ticket = None;
                if lane.entries.front().is_some_and(|first| first.attempts > 0) {
                    lane.take_back(0, now);
                }
            }
            self.place(id);
        }
    }
}

#[cfg(test)]
mod tests;
