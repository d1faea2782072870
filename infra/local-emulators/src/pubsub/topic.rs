//! One topic: its settings, the order of its messages, and the log it keeps for seeks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{message::Message, settings, subscription::Subscription};
use crate::{
    clock::Clock,
    proto::{self, PubsubMessage},
};

#[derive(Debug)]
pub(crate) struct Topic {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: proto::Topic,
    next_seq: u64,
    /// What the retention, or a snapshot, wants kept.
    log: VecDeque<Arc<Message>>,
    subscriptions: BTreeMap<String, Arc<Subscription>>,
    /// From where on each snapshot wants the log.
    snapshots: BTreeMap<String, u64>,
}

/// What a snapshot of a subscription holds.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    /// Unacknowledged when it was made.
    pub(crate) unacked: BTreeMap<u64, Arc<Message>>,
    /// The first message published afterwards.
    pub(crate) next: u64,
}

impl Topic {
    /// Settings must have been checked.
    pub(crate) fn new(settings: proto::Topic, clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                settings,
                next_seq: 1,
                log: VecDeque::new(),
                subscriptions: BTreeMap::new(),
                snapshots: BTreeMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn settings(&self) -> proto::Topic {
        self.state().settings.clone()
    }

    /// Takes new settings, which must have been checked.
    pub(crate) fn set(&self, new: proto::Topic) {
        self.state().settings = new;
    }

    /// Takes messages in order, and offers them to all subscriptions in that order. `name` gives each
    /// its id.
    pub(crate) fn publish(
        &self,
        messages: Vec<PubsubMessage>,
        mut name: impl FnMut() -> String,
    ) -> Vec<String> {
        let mut state = self.state();
        let published = self.clock.now();
        let publish_time = self.clock.timestamp(published);
        let mut ids = Vec::with_capacity(messages.len());
        for body in messages {
            let id = name();
            ids.push(id.clone());
            let message = Message::new(state.next_seq, id, published, publish_time, body);
            let message = Arc::new(message);
            state.next_seq += 1;
            for subscription in state.subscriptions.values() {
                subscription.offer(&message);
            }
            state.log.push_back(message);
        }
        state.trim(&self.clock);
        ids
    }

    pub(crate) fn attach(&self, subscription: Arc<Subscription>) {
        let name = subscription.name.clone();
        self.state().subscriptions.insert(name, subscription);
    }

    pub(crate) fn detach(&self, subscription: &str) {
        self.state().subscriptions.remove(subscription);
    }

    pub(crate) fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        self.state().subscriptions.values().cloned().collect()
    }

    pub(crate) fn snapshots(&self) -> Vec<String> {
        self.state().snapshots.keys().cloned().collect()
    }

    /// Captures a subscription's state: no message is published meanwhile.
    pub(crate) fn capture(&self, snapshot: &str, subscription: &Subscription) -> Captured {
        let mut state = self.state();
        let next = state.next_seq;
        state.snapshots.insert(snapshot.to_owned(), next);
        Captured {
            unacked: subscription.unacked(),
            next,
        }
    }

    /// A snapshot no longer wants the log.
    pub(crate) fn forget(&self, snapshot: &str) {
        let mut state = self.state();
        state.snapshots.remove(snapshot);
        state.trim(&self.clock);
    }

    /// Moves a subscription to where a snapshot was made.
    pub(crate) fn seek_to(&self, captured: &Captured, subscription: &Subscription) {
        let state = self.state();
        let after = state
            .log
            .iter()
            .filter(|message| message.seq >= captured.next);
        let log = captured.unacked.values().chain(after).cloned();
        subscription.seek(log, |message| {
            message.seq >= captured.next || captured.unacked.contains_key(&message.seq)
        });
    }

    /// Makes unacknowledged what `choose` leaves of what the subscription and the log hold.
    pub(crate) fn seek(&self, subscription: &Subscription, choose: impl Fn(&Message) -> bool) {
        let mut state = self.state();
        state.trim(&self.clock);
        // Only what the topic retains by its own setting can be had back by a time.
        let oldest = state.oldest_kept(&self.clock);
        let kept = state
            .log
            .iter()
            .filter(|message| oldest.is_some_and(|oldest| message.published >= oldest));
        subscription.seek(kept.cloned(), choose);
    }
}

impl State {
    fn oldest_kept(&self, clock: &Clock) -> Option<crate::clock::Moment> {
        let kept = settings::topic_retention(&self.settings).ok().flatten()?;
        Some(clock.now() - kept)
    }

    fn trim(&mut self, clock: &Clock) {
        let oldest = self.oldest_kept(clock);
        let wanted = self.snapshots.values().min().copied();
        while let Some(first) = self.log.front() {
            let retained = oldest.is_some_and(|oldest| first.published >= oldest);
            let captured = wanted.is_some_and(|wanted| first.seq >= wanted);
            if retained || captured {
                break;
            }
            self.log.pop_front();
        }
    }
}
