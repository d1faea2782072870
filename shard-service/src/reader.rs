//! Who reads a channel, and how the sleeping are woken.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// A session's ear: which of its channels have something to read.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    ready: Mutex<VecDeque<u64>>,
    notify: Notify,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.ready
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The next channel to read, by the session's own number for it.
    pub(crate) fn take(&self) -> Option<u64> {
        self.lock().pop_front()
    }

    /// Whether anything is ready.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Waits until something may be ready.
    pub(crate) async fn heard(&self) {
        self.notify.notified().await;
    }
}

/// One session reading one channel.
#[derive(Debug)]
pub(crate) struct Reader {
    ear: Arc<Ear>,
    number: u64,
    queued: AtomicBool,
    /// Messages of the log that are behind it.
    read: AtomicU64,
}

impl Reader {
    pub(crate) fn new(ear: Arc<Ear>, number: u64) -> Arc<Self> {
        Arc::new(Self {
            ear,
            number,
            queued: AtomicBool::new(false),
            // Nobody knows yet where it starts.
            read: AtomicU64::new(u64::MAX),
        })
    }

    /// Only the sleeping are woken: one that is queued will look anyway.
    pub(crate) fn wake(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ear.lock().push_back(self.number);
            self.ear.notify.notify_one();
        }
    }

    /// Says how many messages of the log are behind it.
    pub(crate) fn has_read(&self, messages: u64) {
        self.read.store(messages, Ordering::Relaxed);
    }

    /// How many of so many messages are before it.
    pub(crate) fn lag(&self, messages: u64) -> u64 {
        messages.saturating_sub(self.read.load(Ordering::Relaxed))
    }

    /// To be called before reading, so that what is appended meanwhile queues it again.
    pub(crate) fn about_to_read(&self) {
        self.queued.store(false, Ordering::Release);
    }
}
