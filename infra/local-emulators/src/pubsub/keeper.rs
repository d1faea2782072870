//! What goes on in a subscription without anybody asking: leases end, dead letters move, messages
//! are pushed.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::{broker::Broker, oidc::Signer, push::Pusher, subscription::Subscription};

/// Keeps subscriptions: one task each, until the subscription or the emulator ends.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    broker: Arc<Broker>,
    signer: Arc<Signer>,
    http: reqwest::Client,
    tasks: TaskTracker,
}

impl Keeper {
    pub(crate) fn new(broker: Arc<Broker>, signer: Arc<Signer>) -> Self {
        Self {
            broker,
            signer,
            http: reqwest::Client::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Starts keeping a subscription.
    pub(crate) fn keep(&self, subscription: Arc<Subscription>) {
        let pusher = Pusher::new(
            &subscription,
            self.broker.clock.clone(),
            Arc::clone(&self.signer),
            self.http.clone(),
        );
        self.tasks
            .spawn(keep(Arc::clone(&self.broker), subscription, pusher));
    }

    /// Resolves once the emulator's stop has ended all tasks.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn keep(broker: Arc<Broker>, subscription: Arc<Subscription>, mut pusher: Pusher) {
    let mut changes = subscription.changes();
    let mut faults = broker.faults.changes();
    loop {
        let (dead, next_tick) = subscription.tick();
        for letter in dead {
            broker.bury(&subscription, letter);
        }
        let next_push = pusher.push();
        let wake = next_tick.into_iter().chain(next_push).min();
        tokio::select! {
            () = subscription.closed().cancelled() => return,
            () = broker.stop.cancelled() => return,
            _ = changes.changed() => {}
            _ = faults.changed() => {}
            () = pusher.answered() => {}
            () = broker.clock.sleep_until(wake) => {}
        }
    }
}
