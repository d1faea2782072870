//! Writes the log to history, in log order and in batches, and only then lets the bus forget.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use infrachat_metadata::{HistoryEntry, Metadata, MetadataError};
use infrachat_types::{ChannelName, Epoch, MessageId, SessionId};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{channel::Channel, log::Place, registry::Sessions};

/// Most messages written in one transaction.
const BATCH: usize = 200;
/// Wait between attempts while the store is away.
const RETRY: Duration = Duration::from_millis(200);

/// A partition's way to its history writer. Sending never waits: the backlog is bounded by asking
/// [`HistoryQueue::has_room`] before taking anything new in.
#[derive(Debug, Clone)]
pub(crate) struct HistoryQueue {
    sender: mpsc::UnboundedSender<(Arc<Channel>, HistoryEntry)>,
    backlog: Arc<Backlog>,
}

#[derive(Debug)]
struct Backlog {
    waiting: AtomicUsize,
    limit: usize,
    drained: Notify,
}

impl HistoryQueue {
    /// Hands over an appended message. Called under the channel's lock, so that the order is the
    /// log's.
    pub(crate) fn push(&self, channel: Arc<Channel>, entry: HistoryEntry) {
        self.backlog.waiting.fetch_add(1, Ordering::AcqRel);
        // The writer outlives the partition's use; after that, nobody waits for history here.
        drop(self.sender.send((channel, entry)));
    }

    /// Whether more may be taken in.
    pub(crate) fn has_room(&self) -> bool {
        self.backlog.waiting.load(Ordering::Acquire) < self.backlog.limit
    }

    /// Waits until more may be taken in.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.backlog.drained.notified();
            if self.has_room() {
                return;
            }
            drained.await;
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
    pub(crate) stop: CancellationToken,
    receiver: mpsc::UnboundedReceiver<(Arc<Channel>, HistoryEntry)>,
    backlog: Arc<Backlog>,
}

impl HistoryWriter {
    /// A writer, and the way to it.
    pub(crate) fn new(
        (partition, epoch): (u32, Epoch),
        limit: usize,
        store: Arc<dyn Metadata>,
        sessions: Arc<Sessions>,
        stop: CancellationToken,
    ) -> (HistoryQueue, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog {
            waiting: AtomicUsize::new(0),
            limit,
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

    /// Writes until stopped.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.write_all() => {}
        }
    }

    async fn write_all(&mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.receiver.recv_many(&mut batch, BATCH).await > 0 {
            let (channels, entries): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            if !self.write(&entries).await {
                return;
            }
            self.report(&channels, entries);
            self.backlog
                .waiting
                .fetch_sub(channels.len(), Ordering::AcqRel);
            self.backlog.drained.notify_waiters();
        }
    }

    /// Answers whether the partition is still ours.
    async fn write(&self, entries: &[HistoryEntry]) -> bool {
        let mut degraded = false;
        loop {
            match self
                .store
                .append_history(self.partition, self.epoch, entries)
                .await
            {
                Ok(()) => {
                    if degraded {
                        self.sessions
                            .degraded("history", false, "history is written again");
                    }
                    return true;
                }
                Err(err @ MetadataError::Fenced { .. }) => {
                    tracing::warn!(partition = self.partition, epoch = %self.epoch, %err, "lost a partition");
                    self.stop.cancel();
                    return false;
                }
                Err(err) => {
                    tracing::warn!(partition = self.partition, %err, waiting = entries.len(), "history waits");
                    if !std::mem::replace(&mut degraded, true) {
                        self.sessions.degraded(
                            "history",
                            true,
                            "history can't be written at the moment",
                        );
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Acknowledges to the bus what history has, and tells senders.
    fn report(&self, channels: &[Arc<Channel>], entries: Vec<HistoryEntry>) {
        let mut newest: HashMap<*const Channel, (&Arc<Channel>, Place)> = HashMap::new();
        let mut stable: HashMap<(SessionId, ChannelName), MessageId> = HashMap::new();
        for (channel, entry) in channels.iter().zip(entries) {
            newest.insert(Arc::as_ptr(channel), (channel, (entry.epoch, entry.offset)));
            let message = entry.message;
            stable.insert((message.session_id, message.channel), message.message_id);
        }
        for (channel, place) in newest.into_values() {
            channel
                .history_has(place)
                .into_iter()
                .for_each(infrachat_bus::Delivery::ack);
        }
        for ((session, channel), up_to) in stable {
            self.sessions.stable(&session, &channel, up_to);
        }
    }
}
