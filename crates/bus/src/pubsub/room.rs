//! A bound on events and bytes that are somewhere at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for so many events and bytes. One larger event fits alone.
#[derive(Debug)]
pub(super) struct Room {
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    most_bytes: u32,
}

/// What an event takes up, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _event: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(events: usize, bytes: usize) -> Self {
        let most_bytes = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        Self {
            events: Arc::new(Semaphore::new(events.clamp(1, Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(most_bytes as usize)),
            most_bytes,
        }
    }

    /// At once, if there is room.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Held> {
        let event = Arc::clone(&self.events).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(self.share(bytes))
            .ok()?;
        Some(Held {
            _event: event,
            _bytes: bytes,
        })
    }

    /// As soon as there is room, in the order of the calls. It never says `None`.
    pub(super) async fn take(&self, bytes: usize) -> Option<Held> {
        let event = Arc::clone(&self.events).acquire_owned().await.ok()?;
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(self.share(bytes))
            .await
            .ok()?;
        Some(Held {
            _event: event,
            _bytes: bytes,
        })
    }

    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).map_or(self.most_bytes, |bytes| bytes.min(self.most_bytes))
    }
}
