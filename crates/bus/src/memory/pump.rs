//! Moves a queue's events to one consumer, for as long as the consumer lives.

use std::sync::Arc;

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::queue::{MemberId, Next, Queue, Taken};
use crate::{Acker, ConsumeLimits, Delivery, DeliverySink};

/// The regions of the topic and of the consumer.
pub(super) struct Route {
    pub(super) from: String,
    pub(super) to: String,
}

/// A consumer's place in its group, given up when this is dropped.
struct Membership {
    queue: Arc<Queue>,
    id: MemberId,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.queue.leave(self.id);
    }
}

/// Ends when the consumer is dropped.
pub(super) fn start(queue: Arc<Queue>, limits: ConsumeLimits, route: Route, sink: DeliverySink) {
    let wake = Arc::new(Notify::new());
    let id = queue.join(limits, Arc::clone(&wake));
    let membership = Membership { queue, id };
    tokio::spawn(async move {
        while let Ok(permit) = sink.deliveries.reserve().await {
            let next = tokio::select! {
                biased;
                () = sink.stopped.cancelled() => break,
                taken = membership.take(&route, &wake) => taken,
            };
            permit.send(next);
        }
    });
}

impl Membership {
    /// The next delivery, once there is one that is due, within the limits and can get here.
    async fn take(&self, route: &Route, wake: &Notify) -> Delivery {
        let mut links = self.queue.network().watch();
        loop {
            let reach = links.borrow_and_update().reach(&route.from, &route.to);
            let due = match reach.map(|delay| self.queue.take(self.id, delay)) {
                Some(Next::Taken(taken)) => return self.deliver(taken),
                Some(Next::At(due)) => Some(due),
                Some(Next::Nothing) | None => None,
            };
            tokio::select! {
                biased;
                () = wake.notified() => {}
                _ = links.changed() => {}
                () = until(due) => {}
            }
        }
    }

    fn deliver(&self, taken: Taken) -> Delivery {
        let Taken {
            event,
            attempt,
            grip,
        } = taken;
        let queue = Arc::clone(&self.queue);
        Delivery::new(event, attempt, Box::new(Held { queue, grip }))
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A delivery's way back to its queue.
struct Held {
    queue: Arc<Queue>,
    grip: super::queue::Grip,
}

impl Acker for Held {
    fn ack(self: Box<Self>) {
        let arrived = !self.queue.network().loses_ack();
        self.queue.settle(&self.grip, arrived);
    }

    fn nack(self: Box<Self>) {
        self.queue.settle(&self.grip, false);
    }
}
