//! What a shard holds for others, in bytes, and what it does when that is more than it may.
//!
//! It gives up in this order: what everybody has read and history has; then what slow readers have not
//! read, who are told; then new sessions; and at last it takes nothing new in, neither from its sessions
//! nor from the bus, which keeps it and delivers it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::{counted::Part, parts::Parts, registry::Sessions};

/// About what an idle session takes, all in all: docs/performance.md has the figures.
pub(crate) const SESSION: usize = 24 * 1024;
/// What a message takes beside its text, wherever it is held.
pub(crate) const MESSAGE: usize = 256;
/// How often a shard that is short of memory looks for some,
const EVERY: Duration = Duration::from_millis(100);
/// and the least time between two looks.
const PAUSE: Duration = Duration::from_millis(10);
/// Unread messages that readers keep until nothing new is taken in.
const KEPT: u64 = 64;

/// The memory of a shard.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    limit: usize,
    /// Nothing new is taken in.
    full: watch::Sender<bool>,
    /// It has become scarcer.
    scarcer: Notify,
}

/// How scarce memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Enough,
    /// From three quarters on.
    Scarce,
    /// From nine tenths on.
    Short,
    Full,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            limit,
            full: watch::Sender::new(false),
            scarcer: Notify::new(),
        })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Something that weighs nothing yet.
    pub(crate) fn weightless(self: &Arc<Self>) -> Weight {
        Weight {
            memory: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Something of so many bytes.
    pub(crate) fn weigh(self: &Arc<Self>, bytes: usize) -> Weight {
        let mut weight = self.weightless();
        weight.set(bytes);
        weight
    }

    /// So many bytes more; they count until [`Self::remove`]: a [`Weight`] forgets neither.
    pub(crate) fn add(&self, bytes: usize) {
        let before = self.used.fetch_add(bytes, Ordering::AcqRel);
        let level = self.level(before + bytes);
        if level == Level::Full {
            self.full
                .send_if_modified(|full| !std::mem::replace(full, true));
        }
        if level > self.level(before) {
            self.scarcer.notify_one();
        }
    }

    /// So many bytes less.
    pub(crate) fn remove(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn level(&self, used: usize) -> Level {
        match used {
            used if used >= self.limit => Level::Full,
            used if used >= self.limit / 10 * 9 => Level::Short,
            used if used >= self.limit / 4 * 3 => Level::Scarce,
            _ => Level::Enough,
        }
    }

    /// Whether there is room for another session.
    pub(crate) fn admits(&self) -> bool {
        self.level(self.used()) < Level::Short
    }

    /// Whether nothing new is taken in.
    pub(crate) fn is_full(&self) -> bool {
        *self.full.borrow()
    }

    /// Waits until nothing new is taken in.
    pub(crate) async fn full(&self) {
        // The sender lives as long as this.
        drop(self.full.subscribe().wait_for(|full| *full).await);
    }

    /// Waits until something new is taken in.
    pub(crate) async fn room(&self) {
        drop(self.full.subscribe().wait_for(|full| !*full).await);
    }

    /// Takes in again what is new, if there is room for it.
    fn open(&self) {
        if self.admits() {
            self.full.send_if_modified(std::mem::take);
        }
    }
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub(crate) struct Weight {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Weight {
    /// So many from now on.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        match bytes.checked_sub(before) {
            Some(0) => {}
            Some(more) => self.memory.add(more),
            None => self.memory.remove(before - bytes),
        }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Keeps a shard within its memory, for ever.
pub(crate) async fn keep(parts: &Parts) {
    let memory = &parts.memory;
    let mut degraded = None;
    let mut unread = KEPT;
    loop {
        let enough = memory.level(memory.used()) == Level::Enough && !memory.is_full();
        tokio::select! {
            () = memory.scarcer.notified() => {}
            () = tokio::time::sleep(EVERY), if !enough => {}
        }
        trim(parts, u64::MAX).await;
        if !memory.admits() {
            trim(parts, unread).await;
        }
        memory.open();
        if memory.is_full() {
            unread /= 2;
            degraded.get_or_insert_with(|| {
                let (used, limit) = (memory.used(), memory.limit());
                tracing::warn!(used, limit, "short of memory: nothing new is taken in, and the bus has back what it delivered");
                Sessions::degrade(&parts.sessions, Part::Memory)
            });
        } else {
            unread = KEPT;
            degraded = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Gives up what can be read again; of what readers have not read, all but so many messages.
async fn trim(parts: &Parts, unread: u64) {
    for partition in parts.partitions.all() {
        for channel in partition.loaded() {
            channel.trim(unread);
        }
        // Others have their turn in between.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn what_is_dropped_weighs_nothing_any_more() {
        let memory = Memory::new(1_000);
        let mut one = memory.weigh(300);
        let other = memory.weigh(200);
        assert_eq!(memory.used(), 500);
        one.set(100);
        assert_eq!(memory.used(), 300);
        drop(other);
        drop(one);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_full_shard_takes_in_again_only_when_there_is_some_room() {
        let memory = Memory::new(1_000);
        let mut weight = memory.weigh(899);
        assert!(memory.admits() && !memory.is_full());
        assert!(memory.full().now_or_never().is_none());
        weight.set(999);
        assert!(!memory.admits() && !memory.is_full());
        weight.set(1_000);
        assert!(memory.is_full());
        assert!(memory.full().now_or_never().is_some());
        weight.set(900);
        memory.open();
        assert!(
            memory.room().now_or_never().is_none(),
            "it would be full again at once"
        );
        weight.set(899);
        assert!(memory.is_full(), "until somebody looks");
        memory.open();
        assert!(memory.room().now_or_never().is_some());
    }
}
