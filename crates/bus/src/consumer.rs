//! The receiving end, the same for every backend.

use std::fmt;

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Event;

/// How much a consumer takes at once, delivered and not yet acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumeLimits {
    /// Events.
    pub events: usize,
    /// Bytes of payload. One larger event is still delivered, alone.
    pub bytes: usize,
}

impl Default for ConsumeLimits {
    fn default() -> Self {
        Self {
            events: 1_000,
            bytes: 16 * 1024 * 1024,
        }
    }
}

/// How a backend learns what became of a delivery.
pub trait Acker: Send + Sync {
    /// Handled: never deliver it again (a redelivery may still be under way).
    fn ack(self: Box<Self>);
    /// Not handled: deliver it again, and the later ones of its key after it.
    fn nack(self: Box<Self>);
}

/// An event in somebody's hands. Dropping it refuses it.
#[must_use = "a delivery that is dropped is delivered again"]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// 1 at first; backends that don't count say 1 always.
    pub attempt: u32,
    acker: Option<Box<dyn Acker>>,
}

impl Delivery {
    /// For backends.
    pub fn new(event: Event, attempt: u32, acker: Box<dyn Acker>) -> Self {
        Self {
            event,
            attempt,
            acker: Some(acker),
        }
    }

    /// Handled: what the event asked for is durable elsewhere.
    pub fn ack(mut self) {
        if let Some(acker) = self.acker.take() {
            acker.ack();
        }
    }

    /// Not handled: deliver it again.
    pub fn nack(self) {
        drop(self);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            acker.nack();
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("event", &self.event)
            .field("attempt", &self.attempt)
            .finish()
    }
}

/// A member of a group, receiving. Dropping it hands back what was not acknowledged.
#[derive(Debug)]
pub struct Consumer {
    deliveries: mpsc::Receiver<Delivery>,
    _stop: DropGuard,
}

/// Where a backend puts what it received.
#[derive(Debug)]
pub struct DeliverySink {
    /// Waits while the consumer is busy.
    pub deliveries: mpsc::Sender<Delivery>,
    /// Cancelled when the consumer is dropped.
    pub stopped: CancellationToken,
}

impl Consumer {
    /// For backends: a consumer, and where its deliveries go.
    #[must_use]
    pub fn channel() -> (DeliverySink, Self) {
        // The limits are the backend's to keep; this only decouples the two tasks.
        let (sender, deliveries) = mpsc::channel(16);
        let stopped = CancellationToken::new();
        let consumer = Self {
            deliveries,
            _stop: stopped.clone().drop_guard(),
        };
        (
            DeliverySink {
                deliveries: sender,
                stopped,
            },
            consumer,
        )
    }

    /// The next delivery; `None` when the backend ended for good: consume again.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }
}
