//! Hears the control events of all regions, for one service of one region.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use infrachat_bus::{
    BusError, ConsumeLimits, Consumer, Delivery, Event, EventBus, PushTarget, Subscription,
};
use infrachat_types::Region;

use crate::{
    Apply, ApplyError, DeadLetters, PUSH_PATH, PushTokens, counted::EVENTS_HEARD, decode, push,
    topic,
};

/// Handled at once from one region: those that wait for one region's store don't stop the others.
const LIMITS: ConsumeLimits = ConsumeLimits {
    events: 64,
    bytes: 1024 * 1024,
};
/// Between a failure and the next attempt.
const RETRY: Duration = Duration::from_millis(500);
/// A bus that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How a service hears control events.
#[derive(Debug, Clone)]
pub enum Hearing {
    /// It consumes from the bus.
    Pull,
    /// Pub/Sub posts to it.
    Push {
        /// Tells whose pushes to take.
        tokens: Arc<dyn PushTokens>,
        /// Has the subscriptions set up by this process, as on a laptop; in production the
        /// infrastructure does it.
        set_up: Option<PushSetUp>,
    },
}

/// What subscriptions are set up with that push to this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushSetUp {
    /// Where Pub/Sub reaches this process, `http://host:port`; by default at the address it listens on.
    pub url: Option<String>,
    /// The service account of the pushes' tokens.
    pub service_account: String,
    /// Their audience.
    pub audience: String,
}

impl PushSetUp {
    fn target(&self, listening: SocketAddr) -> PushTarget {
        let url = self.url.clone();
        let url = url.unwrap_or_else(|| format!("http://{listening}"));
        PushTarget {
            endpoint: format!("{}{PUSH_PATH}", url.trim_end_matches('/')),
            service_account: self.service_account.clone(),
            audience: self.audience.clone(),
        }
    }
}

/// One group's ear on the control topics of all regions. Clones are the same group.
#[derive(Debug, Clone)]
pub struct Follower {
    bus: Arc<dyn EventBus>,
    sources: Vec<Region>,
    group: String,
    apply: Arc<dyn Apply>,
    dead_letters: DeadLetters,
}

impl Follower {
    /// Hears what the `sources` announce, as the consumer group `group`, which no other service and no
    /// other region has. Nothing is heard yet.
    #[must_use]
    pub fn new(
        bus: Arc<dyn EventBus>,
        sources: Vec<Region>,
        group: String,
        apply: Arc<dyn Apply>,
        dead_letters: DeadLetters,
    ) -> Self {
        Self {
            bus,
            sources,
            group,
            apply,
            dead_letters,
        }
    }

    fn subscriptions(&self) -> impl Iterator<Item = Subscription> {
        self.sources.iter().map(|source| Subscription {
            topic: topic(source),
            group: self.group.clone(),
        })
    }

    /// Makes the group exist everywhere: what is announced from then on is heard. A region that is away
    /// is no error: [`Follower::run`] tries again.
    ///
    /// # Errors
    /// When a subscription is missing or can't be used as it is.
    pub async fn prepare(&self, hearing: &Hearing) -> Result<(), BusError> {
        // Seen from the start on, at 0.
        EVENTS_HEARD.set_aside.increment(0);
        let pulled = match hearing {
            Hearing::Pull => self.subscriptions().collect(),
            Hearing::Push { .. } => Vec::new(),
        };
        let all = pulled.into_iter().chain([self.dead_letters.subscription()]);
        let ensuring = all.map(|subscription| async move {
            match self.ensure(&subscription).await {
                Err(BusError::Unavailable(err)) => {
                    tracing::warn!(%subscription, err, "the subscription can't be made sure of now");
                    Ok(())
                }
                ensured => ensured,
            }
        });
        // Of all that are refused the first of the list is named, whichever answers first.
        join_all(ensuring).await.into_iter().collect()
    }

    /// Hears, and never ends. Dropping it hands back what is not done. A region that can't be followed
    /// is tried again, and delays no other.
    pub async fn run(&self, hearing: &Hearing, listening: SocketAddr) {
        match hearing {
            Hearing::Pull => {
                join_all(self.subscriptions().map(|place| self.follow(place))).await;
            }
            Hearing::Push { set_up, .. } => {
                if let Some(set_up) = set_up {
                    self.set_up(&set_up.target(listening)).await;
                }
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes pushes at [`PUSH_PATH`], if that is how events are heard.
    pub fn routes(&self, hearing: &Hearing) -> Router {
        match hearing {
            Hearing::Pull => Router::new(),
            Hearing::Push { tokens, .. } => push::routes(self.clone(), Arc::clone(tokens)),
        }
    }

    /// Has Pub/Sub push every region's events; resolves once all regions do.
    async fn set_up(&self, target: &PushTarget) {
        let setting_up = self.subscriptions().map(|subscription| async move {
            while let Err(err) = within(self.bus.ensure_pushed(&subscription, target)).await {
                tracing::warn!(%subscription, %err, "control events can't be pushed here; trying again");
                tokio::time::sleep(RETRY).await;
            }
        });
        join_all(setting_up).await;
    }

    /// Applies an event, or sets it aside. Whether it is done with; otherwise it has to come again.
    pub(crate) async fn handle(&self, event: &Event, from: &str) -> bool {
        let decoded = decode(&event.payload);
        let handled = EVENTS_HEARD.of(decoded.as_ref().ok().and_then(Option::as_ref));
        let applied = match decoded {
            Ok(Some(kind)) => self.apply.apply(kind).await,
            // From a newer version.
            Ok(None) => Ok(()),
            Err(err) => Err(err),
        };
        match applied {
            Ok(()) => {
                handled.applied.increment(1);
                true
            }
            Err(ApplyError::Unavailable(err)) => {
                handled.failed.increment(1);
                tracing::warn!(from, %err, "a control event has to wait");
                false
            }
            Err(ApplyError::Unreadable(why)) => {
                handled.unreadable.increment(1);
                let put = self.dead_letters.put(event, from, why).await.is_ok();
                EVENTS_HEARD.set_aside.increment(u64::from(put));
                put
            }
        }
    }

    async fn follow(&self, subscription: Subscription) {
        loop {
            match self.consume(&subscription).await {
                Ok(consumer) => {
                    self.handle_all(consumer, &subscription).await;
                    tracing::warn!(%subscription, "consuming ended; trying again");
                }
                Err(err) => {
                    tracing::warn!(%subscription, %err, "control events can't be consumed; trying again");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn consume(&self, subscription: &Subscription) -> Result<Consumer, BusError> {
        self.ensure(subscription).await?;
        self.bus.consume(subscription, LIMITS).await
    }

    async fn handle_all(&self, mut consumer: Consumer, subscription: &Subscription) {
        let mut handling = FuturesUnordered::new();
        loop {
            tokio::select! {
                delivery = consumer.next() => match delivery {
                    Some(delivery) => handling.push(self.settle(delivery, subscription)),
                    None => return,
                },
                Some(()) = handling.next() => {}
            }
        }
    }

    async fn settle(&self, delivery: Delivery, subscription: &Subscription) {
        if self
            .handle(&delivery.event, &subscription.to_string())
            .await
        {
            delivery.ack();
        } else {
            tokio::time::sleep(RETRY).await;
            delivery.nack();
        }
    }

    async fn ensure(&self, subscription: &Subscription) -> Result<(), BusError> {
        within(self.bus.ensure(subscription)).await
    }
}

async fn within(call: impl Future<Output = Result<(), BusError>>) -> Result<(), BusError> {
    tokio::time::timeout(TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(BusError::Unavailable(format!("no answer in {TIMEOUT:?}"))))
}
