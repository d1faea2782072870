//! Writes the log to history, in log order and in batches, and only then lets the bus forget.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use infrachat_bus::Delivery;
use infrachat_metadata::{HistoryEntry, Metadata, MetadataError};
use infrachat_types::{ChannelName, Epoch, MessageId, SessionId};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    channel::Channel,
    counted::{COUNTED, Part},
    log::Place,
    memory::{MESSAGE, Memory},
    partition::Stop,
    parts::in_time,
    registry::Sessions,
};

/// Most messages written in one transaction.
const BATCH: usize = 200;
/// Wait between attempts while the store is away.
const RETRY: Duration = Duration::from_millis(200);

/// A message on its way to history, with the delivery that brought it.
#[derive(Debug)]
struct Queued {
    channel: Arc<Channel>,
    entry: HistoryEntry,
    delivery: Option<Delivery>,
    appended: Instant,
}

/// Bytes of bodies that wait for history, in all partitions of a shard.
#[derive(Debug)]
pub(crate) struct HistoryBudget {
    waiting: AtomicUsize,
    /// Their messages.
    messages: AtomicUsize,
    limit: usize,
    /// The shard's, which they are part of.
    memory: Arc<Memory>,
}

impl HistoryBudget {
    pub(crate) fn new(limit: usize, memory: Arc<Memory>) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
            limit,
            memory,
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn bytes(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }
}

/// A partition's way to its history writer. Sending never waits: the backlog is bounded by asking
/// [`HistoryQueue::has_room`] before taking anything new in.
#[derive(Debug, Clone)]
pub(crate) struct HistoryQueue {
    sender: mpsc::UnboundedSender<Queued>,
    backlog: Arc<Backlog>,
}

#[derive(Debug)]
struct Backlog {
    waiting: AtomicUsize,
    limit: usize,
    budget: Arc<HistoryBudget>,
    drained: Notify,
}

impl Backlog {
    fn add(&self, entry: &HistoryEntry) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.budget.messages.fetch_add(1, Ordering::Relaxed);
        let bytes = entry.message.body.len();
        self.budget.waiting.fetch_add(bytes, Ordering::AcqRel);
        self.budget.memory.add(bytes + MESSAGE);
    }

    fn remove<'a>(&self, entries: impl IntoIterator<Item = &'a HistoryEntry>) {
        for entry in entries {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.budget.messages.fetch_sub(1, Ordering::Relaxed);
            let bytes = entry.message.body.len();
            self.budget.waiting.fetch_sub(bytes, Ordering::AcqRel);
            self.budget.memory.remove(bytes + MESSAGE);
        }
        self.drained.notify_waiters();
    }
}

impl HistoryQueue {
    /// Hands over an appended message. Called under the channel's lock, so that the order is the
    /// log's.
    pub(crate) fn push(
        &self,
        channel: Arc<Channel>,
        entry: HistoryEntry,
        delivery: Option<Delivery>,
    ) {
        self.backlog.add(&entry);
        if let Err(returned) = self.sender.send(Queued {
            channel,
            entry,
            delivery,
            appended: Instant::now(),
        }) {
            // The partition is no longer served; the bus delivers it to the next owner.
            self.backlog.remove([&returned.0.entry]);
        }
    }

    /// Whether more may be taken in.
    pub(crate) fn has_room(&self) -> bool {
        let backlog = &self.backlog;
        backlog.waiting.load(Ordering::Acquire) < backlog.limit
            && backlog.budget.waiting.load(Ordering::Acquire) < backlog.budget.limit
    }

    /// Waits until more may be taken in.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.backlog.drained.notified();
            if self.has_room() {
                return;
            }
            // Other partitions share the budget, and don't notify this one.
            drop(tokio::time::timeout(RETRY, drained).await);
        }
    }

    /// Waits until everything is written.
    pub(crate) async fn empty(&self) {
        loop {
            let drained = self.backlog.drained.notified();
            if self.backlog.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            drained.await;
        }
    }
}

/// The writer of one partition under one epoch.
#[derive(Debug)]
pub(crate) struct HistoryWriter {
    pub(crate) partition: u32,
    pub(crate) epoch: Epoch,
    pub(crate) store: Arc<dyn Metadata>,
    pub(crate) sessions: Arc<Sessions>,
    /// Cancelled by the writer when the partition turns out to be somebody else's.
    pub(crate) stop: Stop,
    receiver: mpsc::UnboundedReceiver<Queued>,
    backlog: Arc<Backlog>,
}

impl HistoryWriter {
    /// A writer, and the way to it.
    pub(crate) fn new(
        (partition, epoch): (u32, Epoch),
        (limit, budget): (usize, Arc<HistoryBudget>),
        store: Arc<dyn Metadata>,
        sessions: Arc<Sessions>,
        stop: Stop,
    ) -> (HistoryQueue, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog {
            waiting: AtomicUsize::new(0),
            limit,
            budget,
            drained: Notify::new(),
        });
        let queue = HistoryQueue {
            sender,
            backlog: Arc::clone(&backlog),
        };
        (
            queue,
            Self {
                partition,
                epoch,
                store,
                sessions,
                stop,
                receiver,
                backlog,
            },
        )
    }

    /// Writes until stopped. What is left goes back to the bus.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.token().clone();
        stop.run_until_cancelled(self.write_all()).await;
        self.receiver.close();
        while let Ok(left) = self.receiver.try_recv() {
            self.backlog.remove([&left.entry]);
        }
    }

    async fn write_all(&mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.receiver.recv_many(&mut batch, BATCH).await > 0 {
            let oldest = batch.first().map(|queued| queued.appended);
            let mut channels = Vec::with_capacity(batch.len());
            let mut entries = Vec::with_capacity(batch.len());
            for queued in batch.drain(..) {
                channels.push((queued.channel, queued.delivery));
                entries.push(queued.entry);
            }
            // Also when this is cancelled in the middle of a write.
            let entries = Waiting {
                entries,
                backlog: Arc::clone(&self.backlog),
            };
            if !self.write(&entries.entries).await {
                return;
            }
            if let Some(oldest) = oldest {
                COUNTED.stable.record(oldest.elapsed());
            }
            self.report(channels, &entries.entries);
        }
    }

    /// Answers whether the partition is still ours.
    async fn write(&self, entries: &[HistoryEntry]) -> bool {
        let mut degraded = None;
        loop {
            let written = self
                .store
                .append_history(self.partition, self.epoch, entries);
            let began = Instant::now();
            let written = in_time(written).await;
            let took = began.elapsed();
            match written {
                Ok(()) => {
                    COUNTED.written.ok.record(took);
                    COUNTED.written.messages.increment(entries.len() as u64);
                    return true;
                }
                Err(err @ MetadataError::Fenced { .. }) => {
                    COUNTED.written.fenced.record(took);
                    tracing::warn!(partition = self.partition, epoch = %self.epoch, %err, "lost a partition");
                    self.stop.cancel();
                    return false;
                }
                Err(err) => {
                    COUNTED.written.unavailable.record(took);
                    tracing::warn!(partition = self.partition, %err, waiting = entries.len(), "history waits");
                    degraded
                        .get_or_insert_with(|| Sessions::degrade(&self.sessions, Part::History));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Acknowledges to the bus what history has, and tells senders.
    fn report(&self, channels: Vec<(Arc<Channel>, Option<Delivery>)>, entries: &[HistoryEntry]) {
        // A channel that history does not have all of is not forgotten: a name is one of them.
        let mut newest: HashMap<&ChannelName, (Arc<Channel>, Place)> = HashMap::new();
        let mut stable: HashMap<(&SessionId, &ChannelName), MessageId> = HashMap::new();
        for ((channel, delivery), entry) in channels.into_iter().zip(entries) {
            let place = (entry.epoch, entry.offset);
            let found = newest
                .entry(&entry.message.channel)
                .or_insert((channel, place));
            found.1 = found.1.max(place);
            let message = &entry.message;
            stable.insert((&message.session_id, &message.channel), message.message_id);
            if let Some(delivery) = delivery {
                delivery.ack();
            }
        }
        for (channel, place) in newest.into_values() {
            channel
                .history_has(place)
                .into_iter()
                .for_each(Delivery::ack);
        }
        for ((session, channel), up_to) in stable {
            self.sessions.stable(session, channel, up_to);
        }
    }
}

/// Entries that count as waiting until they are written or given up.
struct Waiting {
    entries: Vec<HistoryEntry>,
    backlog: Arc<Backlog>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.remove(&self.entries);
    }
}
