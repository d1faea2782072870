//! One subscription: its settings, its queue, and whoever waits on it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    ack_id::AckId,
    filter::Filter,
    message::Message,
    names::DELETED_TOPIC,
    queue::{ConsumerId, DeadLetter, Queue, Room},
    regions, settings,
};
use crate::{
    clock::{Clock, Moment},
    faults::{Faults, Service},
    proto::{self, ReceivedMessage},
};

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) name: String,
    /// Tells this subscription from an earlier one of the same name.
    incarnation: u64,
    clock: Clock,
    faults: Faults,
    state: Mutex<State>,
    changes: watch::Sender<()>,
    /// Cancelled when the subscription is deleted.
    closed: CancellationToken,
}

#[derive(Debug)]
struct State {
    settings: Arc<proto::Subscription>,
    filter: Option<Filter>,
    queue: Queue,
    /// Its dead-letter topic exists.
    dead_letters: bool,
}

impl Subscription {
    /// Settings must have been checked.
    pub(crate) fn new(
        settings: proto::Subscription,
        incarnation: u64,
        dead_letters: bool,
        clock: Clock,
        faults: Faults,
    ) -> Result<Self, Status> {
        Ok(Self {
            name: settings.name.clone(),
            incarnation,
            clock,
            faults,
            state: Mutex::new(State {
                filter: settings::filter(&settings)?,
                queue: Queue::new(settings::rules(&settings, dead_letters)),
                settings: Arc::new(settings),
                dead_letters,
            }),
            changes: watch::Sender::new(()),
            closed: CancellationToken::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes whoever waits on it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changes.send_replace(());
        changed
    }

    pub(crate) fn settings(&self) -> Arc<proto::Subscription> {
        Arc::clone(&self.state().settings)
    }

    /// Takes new settings, which must have been checked.
    pub(crate) fn set(&self, new: proto::Subscription) {
        self.change(|state| {
            state.settings = Arc::new(new);
            state.apply_rules();
        });
    }

    /// Takes another place to push to, which must have been checked.
    pub(crate) fn set_push(&self, push: proto::PushConfig) {
        self.change(|state| {
            Arc::make_mut(&mut state.settings).push_config = Some(push);
            state.apply_rules();
        });
    }

    /// Says whether its dead-letter topic exists.
    pub(crate) fn set_dead_letters(&self, exist: bool) {
        self.change(|state| {
            state.dead_letters = exist;
            state.apply_rules();
        });
    }

    /// Its topic is gone; the backlog stays.
    pub(crate) fn orphan(&self) {
        self.change(|state| {
            Arc::make_mut(&mut state.settings).topic = DELETED_TOPIC.to_owned();
        });
    }

    /// Cuts it off its topic for ever; the backlog is dropped.
    pub(crate) fn detach(&self) {
        let now = self.clock.now();
        self.change(|state| {
            Arc::make_mut(&mut state.settings).detached = true;
            state.queue.reset(BTreeMap::new(), now);
        });
    }

    /// Ends it: whoever waits on it is told.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Tells of every change that may concern a consumer.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// A message was published to its topic, after all others offered before.
    pub(crate) fn offer(&self, message: &Arc<Message>) {
        let mut state = self.state();
        if !state.passes(message) {
            return;
        }
        let late = self.lateness(&state.settings);
        state
            .queue
            .push(Arc::clone(message), message.published + late);
        drop(state);
        self.changes.send_replace(());
    }

    /// How much later faults make a message come.
    fn lateness(&self, subscription: &proto::Subscription) -> Duration {
        let (link, rate, most) = self.faults.read(|settings| {
            let link = regions::link(subscription, settings);
            (
                link.map_or(0, |link| link.latency_ms),
                settings.delivery.delay,
                settings.delivery.delay_ms,
            )
        });
        let held_back = if self.faults.hit(rate) {
            self.faults.upto(most)
        } else {
            0
        };
        Duration::from_millis(link + held_back)
    }

    /// Whether faults keep it from delivering anything now.
    fn is_stopped(&self, subscription: &proto::Subscription) -> bool {
        self.faults.read(|settings| {
            let link = regions::link(subscription, settings);
            settings.calls(Service::Pubsub).paused || link.is_some_and(|link| link.cut)
        })
    }

    /// A new consumer.
    pub(crate) fn join(self: &Arc<Self>) -> Consumer {
        Consumer {
            id: self.state().queue.join(),
            subscription: Arc::clone(self),
        }
    }

    fn take(
        &self,
        consumer: ConsumerId,
        room: Room,
        ack_deadline: Option<Duration>,
    ) -> Vec<ReceivedMessage> {
        let now = self.clock.now();
        let mut state = self.state();
        if state.settings.detached || self.is_stopped(&state.settings) {
            return Vec::new();
        }
        let own = u64::try_from(state.settings.ack_deadline_seconds).unwrap_or_default();
        let until = now + ack_deadline.unwrap_or(Duration::from_secs(own));
        let (reorder, duplicate) = self
            .faults
            .read(|settings| (settings.delivery.reorder, settings.delivery.duplicate));
        let skip = |reach| {
            if self.faults.hit(reorder) {
                usize::try_from(self.faults.upto(reach as u64)).unwrap_or_default()
            } else {
                0
            }
        };
        let taken = state.queue.take(consumer, room, now, until, skip);
        let counted = state.settings.dead_letter_policy.is_some();
        drop(state);
        let mut handed = Vec::with_capacity(taken.len());
        for delivery in taken {
            let copies = if self.faults.hit(duplicate) { 2 } else { 1 };
            for copy in 0..copies {
                let id = AckId {
                    incarnation: self.incarnation,
                    lease: delivery.lease,
                    copy,
                };
                let attempt = i32::try_from(delivery.attempt).unwrap_or(i32::MAX);
                handed.push(ReceivedMessage {
                    ack_id: id.to_string(),
                    message: Some(delivery.message.body.clone()),
                    delivery_attempt: if counted { attempt } else { 0 },
                });
            }
        }
        handed
    }

    /// Acknowledges. Ids that aren't current are ignored, as Google does.
    pub(crate) fn ack(&self, ids: &[String]) -> Result<(), Status> {
        let leases = self.read_ids(ids)?;
        let lost = self.faults.read(|settings| settings.delivery.redeliver);
        self.change(|state| {
            for id in leases.into_iter().filter(|_| !self.faults.hit(lost)) {
                state.queue.ack(id.lease);
            }
        });
        Ok(())
    }

    /// Moves deadlines to `seconds` from now; 0 gives messages back.
    pub(crate) fn modify_deadline(&self, ids: &[(String, i32)]) -> Result<(), Status> {
        let mut changes = Vec::with_capacity(ids.len());
        for (id, seconds) in ids {
            let seconds = u64::try_from(*seconds)
                .ok()
                .filter(|seconds| *seconds <= 600);
            let seconds = seconds.ok_or_else(|| {
                Status::invalid_argument(
                    "Invalid ack deadline given. The value must be between 0 and 600.",
                )
            })?;
            changes.push((self.read_id(id)?, seconds));
        }
        let now = self.clock.now();
        self.change(|state| {
            for (id, seconds) in changes {
                let Some(id) = id else {
                    continue;
                };
                match seconds {
                    0 => state.queue.nack(id.lease, now),
                    _ => state
                        .queue
                        .extend(id.lease, now + Duration::from_secs(seconds)),
                }
            }
        });
        Ok(())
    }

    fn read_ids(&self, ids: &[String]) -> Result<Vec<AckId>, Status> {
        ids.iter()
            .filter_map(|id| self.read_id(id).transpose())
            .collect()
    }

    /// `None` for one of an earlier subscription of the same name.
    fn read_id(&self, id: &str) -> Result<Option<AckId>, Status> {
        let parsed: AckId = id.parse().map_err(|()| {
            Status::invalid_argument(format!(
                "You have passed an invalid ack ID to the service (ack_id={id})."
            ))
        })?;
        Ok((parsed.incarnation == self.incarnation).then_some(parsed))
    }

    /// Ends overdue leases, drops what is too old, and answers what became a dead letter and when to
    /// come again.
    pub(crate) fn tick(&self) -> (Vec<DeadLetter>, Option<Moment>) {
        let now = self.clock.now();
        let mut state = self.state();
        let due = state.queue.next_tick().is_some_and(|next| next <= now);
        if due {
            state.queue.tick(now);
        }
        let answer = (state.queue.take_dead(), state.queue.next_tick());
        drop(state);
        if due {
            self.changes.send_replace(());
        }
        answer
    }

    /// All that isn't acknowledged.
    pub(crate) fn unacked(&self) -> BTreeMap<u64, Arc<Message>> {
        self.state().queue.unacked()
    }

    /// Makes unacknowledged exactly what `choose` leaves of what the subscription and its topic's log
    /// hold and its filter passes.
    pub(crate) fn seek(
        &self,
        log: impl Iterator<Item = Arc<Message>>,
        choose: impl Fn(&Message) -> bool,
    ) {
        let now = self.clock.now();
        self.change(|state| {
            let mut all = state.queue.held();
            all.extend(log.map(|message| (message.seq, message)));
            all.retain(|_, message| choose(message) && state.passes(message));
            state.queue.reset(all, now);
        });
    }
}

/// Whoever takes a subscription's messages: a stream, one pull, or the pusher. When it goes, what it
/// has out stays leased.
#[derive(Debug)]
pub(crate) struct Consumer {
    id: ConsumerId,
    pub(crate) subscription: Arc<Subscription>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.subscription.state().queue.leave(self.id);
    }
}

impl Consumer {
    /// What it has out: messages and bytes.
    pub(crate) fn outstanding(&self) -> (usize, usize) {
        self.subscription.state().queue.outstanding(self.id)
    }

    /// Leases what is due to it, with its own ack deadline or else the subscription's.
    pub(crate) fn take(&self, room: Room, ack_deadline: Option<Duration>) -> Vec<ReceivedMessage> {
        self.subscription.take(self.id, room, ack_deadline)
    }

    /// When there is something to take next, if nothing changes until then; `None` also while faults
    /// keep the subscription from delivering.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        let state = self.subscription.state();
        if self.subscription.is_stopped(&state.settings) {
            return None;
        }
        state.queue.next_due(self.id)
    }
}

impl State {
    fn passes(&self, message: &Message) -> bool {
        let filter = self.filter.as_ref();
        !self.settings.detached
            && filter.is_none_or(|filter| filter.passes(&message.body.attributes))
    }

    fn apply_rules(&mut self) {
        let rules = settings::rules(&self.settings, self.dead_letters);
        self.queue.set_rules(rules);
    }
}
