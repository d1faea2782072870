//! A partition that this shard owns: its channels, and the tasks that serve them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infrachat_bus::{ConsumeLimits, Subscription, Topic};
use infrachat_metadata::MetadataError;
use infrachat_types::{ChannelName, Epoch, Region};
use tokio::{
    sync::{OnceCell, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    channel::{Channel, Tail},
    counted::redeliveries,
    history::{HistoryQueue, HistoryWriter},
    parts::Parts,
    presence::{self, Heard},
    publish::{LaneFull, Lanes, Outgoing},
    relay::Relay,
};

/// Events about seats that may wait for presence.
const HEARD: usize = 1_024;
/// How long a channel that nobody reads is kept.
const KEPT_IDLE: Duration = Duration::from_secs(120);
/// Newest entries of history that a channel starts with.
const TAIL: usize = 500;

type Slot = Arc<OnceCell<Arc<Channel>>>;

/// Tells everything that serves a partition to end. Whether it did is asked before each delivery, which
/// the token alone would answer under a lock.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    token: CancellationToken,
    /// The partition is being closed, or over.
    shut: Arc<AtomicBool>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            shut: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Ends everything.
    pub(crate) fn cancel(&self) {
        self.shut.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

/// A partition under one epoch.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) number: u32,
    pub(crate) epoch: Epoch,
    pub(crate) history: HistoryQueue,
    parts: Arc<Parts>,
    channels: Mutex<HashMap<ChannelName, Slot>>,
    lanes: Lanes,
    /// What the bus tells of seats, on its way to presence.
    heard: mpsc::Sender<Heard>,
    /// Ends everything: the partition is somebody else's.
    stop: Stop,
    /// Ends taking in, first step of giving the partition back.
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Partition {
    /// Starts serving.
    pub(crate) fn start(number: u32, epoch: Epoch, parts: &Arc<Parts>) -> Arc<Self> {
        let stop = Stop::new();
        let closing = stop.token().child_token();
        let tasks = TaskTracker::new();
        let (history, writer) = HistoryWriter::new(
            (number, epoch),
            (
                parts.tuning.history_backlog,
                Arc::clone(&parts.history_budget),
            ),
            Arc::clone(&parts.store),
            Arc::clone(&parts.sessions),
            stop.clone(),
        );
        tasks.spawn(writer.run());
        let topic = Topic {
            region: parts.region.to_string(),
            name: infrachat_routing::messages_topic(number),
        };
        let lanes = Lanes::start(&topic, parts, stop.token(), &tasks);
        let (heard, hearing) = mpsc::channel(HEARD);
        let partition = Arc::new(Self {
            number,
            epoch,
            history,
            parts: Arc::clone(parts),
            channels: Mutex::new(HashMap::new()),
            lanes,
            heard,
            stop,
            closing,
            tasks,
        });
        let listening = presence::listen(Arc::clone(parts), Arc::downgrade(&partition), hearing);
        partition.tasks.spawn(
            partition
                .closing
                .clone()
                .run_until_cancelled_owned(listening),
        );
        for source in parts.stores.keys() {
            let relay = Relay {
                partition: Arc::clone(&partition),
                parts: Arc::clone(parts),
                subscription: partition.subscription(source),
                limits: ConsumeLimits {
                    events: parts.tuning.consume_events,
                    ..ConsumeLimits::default()
                },
                stop: partition.closing.clone(),
                redelivered: redeliveries(source.as_str()),
            };
            partition.tasks.spawn(relay.run());
        }
        tracing::debug!(partition = number, %epoch, "serving a partition");
        partition
    }

    fn subscription(&self, source: &Region) -> Subscription {
        Subscription {
            topic: Topic {
                region: source.to_string(),
                name: infrachat_routing::messages_topic(self.number),
            },
            group: self.parts.region.to_string(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelName, Slot>> {
        self.channels
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The channel, loaded from history if it is not here yet.
    pub(crate) async fn channel(&self, name: &ChannelName) -> Result<Arc<Channel>, MetadataError> {
        let slot = Arc::clone(self.lock().entry(name.clone()).or_default());
        let load = || async {
            let entries = self.parts.store.history_tail(name, TAIL).await?;
            let complete = entries.len() < TAIL;
            Ok(Arc::new(Channel::load(
                name.clone(),
                &self.parts.regions,
                self.epoch,
                Tail { entries, complete },
                (self.parts.tuning.channel, self.parts.memory.weightless()),
                self.history.clone(),
                Arc::clone(&self.parts.lag),
            )))
        };
        slot.get_or_try_init(load).await.cloned()
    }

    /// The channel, if it is loaded.
    pub(crate) fn loaded_channel(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.lock().get(name).and_then(|slot| slot.get().cloned())
    }

    /// The channels that are loaded.
    pub(crate) fn loaded(&self) -> Vec<Arc<Channel>> {
        let slots = self.lock();
        let channels = slots.values().filter_map(|slot| slot.get());
        channels.cloned().collect()
    }

    /// Forgets channels that nobody has read for a while and that have nothing left to write, and those
    /// that could not be loaded.
    pub(crate) fn forget_idle(&self) {
        self.lock().retain(|_, slot| {
            let being_loaded = Arc::strong_count(slot) > 1;
            let in_use = slot.get().is_some_and(|channel| {
                let used = Arc::strong_count(channel) > 1;
                used || channel.idle_for().is_none_or(|idle| idle < KEPT_IDLE)
            });
            being_loaded || in_use
        });
    }

    /// Hands on what the bus tells of seats. It is dropped when too much of it waits: it will be
    /// repeated, or runs out.
    pub(crate) fn heard(&self, heard: Heard) {
        if self.heard.try_send(heard).is_err() {
            tracing::debug!(
                partition = self.number,
                "presence is behind; a seat was passed over"
            );
        }
    }

    /// Puts something on the bus, in the order of its channel.
    pub(crate) fn publish(&self, outgoing: Outgoing) -> Result<(), LaneFull> {
        if !self.is_open() {
            return Err(LaneFull);
        }
        self.lanes.push(outgoing)
    }

    /// Whether this shard still serves it, and may: one that was frozen looks before it does anything.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open_at(Instant::now())
    }

    /// [`Self::is_open`] for who has just looked at the clock.
    pub(crate) fn is_open_at(&self, now: Instant) -> bool {
        !self.stop.shut.load(Ordering::Acquire) && self.parts.partitions.may_serve_at(now)
    }

    /// Sessions look, and find that the partition is closed.
    fn wake_readers(&self) {
        self.lock()
            .values()
            .filter_map(|slot| slot.get())
            .for_each(|channel| channel.readers.wake());
    }

    /// Stops at once, without waiting for its tasks to end.
    pub(crate) fn halt(&self) {
        self.stop.cancel();
        self.wake_readers();
    }

    /// Stops at once: somebody else may own it by now.
    pub(crate) async fn abandon(&self) {
        self.halt();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Gives it back in order: takes nothing more in, lets what is under way reach the bus and
    /// history, then stops. What can't be written within `grace` the bus will deliver again.
    pub(crate) async fn close(&self, grace: Duration) {
        self.stop.shut.store(true, Ordering::Release);
        self.closing.cancel();
        self.wake_readers();
        let settled = async {
            self.lanes.empty().await;
            self.history.empty().await;
        };
        if tokio::time::timeout(grace, settled).await.is_err() {
            tracing::warn!(
                partition = self.number,
                ?grace,
                "gave a partition back with work left"
            );
        }
        self.abandon().await;
    }
}
