//! A region's bus, as a shard reaches it: through its life, and with losses.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use infrachat_bus::{
    Acker, BusError, ConsumeLimits, Consumer, Delivery, Event, EventBus, Subscription, Topic,
};
use infrachat_e2e::Ledger;
use tokio_util::sync::CancellationToken;

use crate::{dice::Dice, life::Life};

/// While events get lost, one of so many does.
const ONE_OF: usize = 5;

/// Who consumes what, in all regions: of one subscription to messages, at most one shard at a time.
#[derive(Debug)]
pub(crate) struct Owners {
    pub(crate) ledger: Arc<Ledger>,
    consuming: Mutex<Vec<(Subscription, Life, CancellationToken)>>,
    known: Mutex<BTreeSet<Subscription>>,
}

impl Owners {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            consuming: Mutex::default(),
            known: Mutex::default(),
        }
    }

    fn begins(&self, subscription: &Subscription, life: &Life, stopped: &CancellationToken) {
        let mut consuming = self.consuming.lock().expect("whole");
        consuming.retain(|(_, life, stopped)| !stopped.is_cancelled() && !life.is_over());
        let at_once = consuming
            .iter()
            .filter(|(other, ..)| other == subscription && is_messages(other));
        for (_, other, _) in at_once {
            let (one, two) = (&other.name, &life.name);
            self.ledger
                .wrong(format!("{one} and {two} serve {subscription} at once"));
        }
        let entry = (subscription.clone(), life.clone(), stopped.clone());
        consuming.push(entry);
        if is_messages(subscription) {
            let mut known = self.known.lock().expect("whole");
            known.insert(subscription.clone());
        }
    }

    /// Everything to do with messages that was ever consumed.
    pub(crate) fn known(&self) -> BTreeSet<Subscription> {
        self.known.lock().expect("whole").clone()
    }
}

fn is_messages(subscription: &Subscription) -> bool {
    subscription.topic.name.contains("messages")
}

/// Events that the bus says were delivered, and were not.
#[derive(Debug)]
pub(crate) struct Losses {
    dice: Mutex<Dice>,
    /// Whether any get lost.
    pub(crate) on: AtomicBool,
    pub(crate) count: AtomicUsize,
}

impl Losses {
    pub(crate) fn new(dice: Dice) -> Self {
        Self {
            dice: Mutex::new(dice),
            on: AtomicBool::default(),
            count: AtomicUsize::default(),
        }
    }

    fn takes_one(&self) -> bool {
        let lost =
            self.on.load(Ordering::Relaxed) && self.dice.lock().expect("whole").of(ONE_OF) == 0;
        if lost {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        lost
    }
}

/// A region's bus, as a shard reaches it.
#[derive(Debug)]
pub(crate) struct FaultyBus {
    pub(crate) life: Life,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) owners: Arc<Owners>,
    /// What gets lost on the way from other regions.
    pub(crate) losses: Arc<Losses>,
    /// Keys of which something did not get through.
    pub(crate) halted: Mutex<HashSet<(Topic, String)>>,
}

#[async_trait]
impl EventBus for FaultyBus {
    async fn ensure(&self, subscription: &Subscription) -> Result<(), BusError> {
        self.life.through(self.bus.ensure(subscription)).await
    }

    fn publish(&self, topic: &Topic, event: Event) -> BoxFuture<'static, Result<(), BusError>> {
        let key = (topic.clone(), event.ordering_key.clone());
        let mut halted = self.halted.lock().expect("whole");
        if halted.contains(&key) {
            return Box::pin(async { Err(BusError::Halted) });
        }
        let life = self.life.clone();
        life.note(format_args!("publishes {event:?} to {topic}"));
        if life.is_well() {
            let publishing = self.bus.publish(topic, event);
            return Box::pin(async move {
                let answer = publishing.await;
                life.pass().await;
                life.note(format_args!("has published: {}", answer.is_ok()));
                answer
            });
        }
        halted.insert(key);
        Box::pin(async move {
            life.pass().await;
            Err(BusError::Unavailable("cut off".to_owned()))
        })
    }

    fn resume(&self, topic: &Topic, ordering_key: &str) {
        let key = (topic.clone(), ordering_key.to_owned());
        self.halted.lock().expect("whole").remove(&key);
        self.bus.resume(topic, ordering_key);
    }

    async fn consume(
        &self,
        subscription: &Subscription,
        limits: ConsumeLimits,
    ) -> Result<Consumer, BusError> {
        self.life.pass().await;
        let mut inner = self.bus.consume(subscription, limits).await?;
        let (sink, consumer) = Consumer::channel();
        self.owners.begins(subscription, &self.life, &sink.stopped);
        let (life, topic) = (self.life.clone(), subscription.topic.clone());
        let losses = Arc::clone(&self.losses);
        let foreign = is_messages(subscription) && topic.region != subscription.group;
        tokio::spawn(async move {
            let pumping = async {
                while let Some(delivery) = inner.next().await {
                    life.pass().await;
                    let event = delivery.event.clone();
                    let attempt = delivery.attempt;
                    if foreign && attempt == 1 && losses.takes_one() {
                        life.note(format_args!("never hears of {event:?}"));
                        delivery.ack();
                        continue;
                    }
                    life.note(format_args!("takes {event:?} from {topic}: {attempt}"));
                    let acker = Box::new(FaultyAcker {
                        life: life.clone(),
                        delivery,
                    });
                    let wrapped = Delivery::new(event, attempt, acker);
                    if sink.deliveries.send(wrapped).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = pumping => {}
                () = sink.stopped.cancelled() => {}
                () = life.ended() => {}
            }
            // With it goes what was not acknowledged.
            drop(inner);
        });
        Ok(consumer)
    }
}

/// An acknowledgement that does not get through is none.
struct FaultyAcker {
    life: Life,
    delivery: Delivery,
}

impl Acker for FaultyAcker {
    fn ack(self: Box<Self>) {
        self.life.note(format_args!("acknowledges"));
        if self.life.is_well() {
            self.delivery.ack();
        } else {
            self.delivery.nack();
        }
    }

    fn nack(self: Box<Self>) {
        self.delivery.nack();
    }
}
