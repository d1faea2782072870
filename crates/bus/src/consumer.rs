//! The receiving end, the same for every backend.

use std::{fmt, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Event, counted::Taken};

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
    taken: Option<Arc<Taken>>,
}

impl Delivery {
    /// For backends.
    pub fn new(event: Event, attempt: u32, acker: Box<dyn Acker>) -> Self {
        Self {
            event,
            attempt,
            acker: Some(acker),
            taken: None,
        }
    }

    /// Handled: what the event asked for is durable elsewhere.
    pub fn ack(mut self) {
        if let Some(acker) = self.acker.take() {
            if let Some(taken) = &self.taken {
                taken.unacknowledged.decrement(1);
            }
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
            if let Some(taken) = &self.taken {
                taken.unacknowledged.decrement(1);
                taken.refused.increment(1);
            }
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
pub struct Consumer {
    deliveries: mpsc::Receiver<Delivery>,
    taken: Option<Arc<Taken>>,
    _stop: DropGuard,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
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
            taken: None,
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
        let mut delivery = self.deliveries.recv().await;
        if let Some(taken) = &self.taken {
            match &mut delivery {
                Some(delivery) => {
                    taken.delivered.increment(1);
                    taken.unacknowledged.increment(1);
                    delivery.taken = Some(Arc::clone(taken));
                }
                None => taken.ended.increment(1),
            }
        }
        delivery
    }

    /// The same, counted.
    pub(crate) fn counted(self, taken: Taken) -> Self {
        Self {
            taken: Some(Arc::new(taken)),
            ..self
        }
    }
}
