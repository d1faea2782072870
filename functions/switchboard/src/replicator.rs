//! Copies what other regions decide into the own region's store, led by control events.
//!
//! An event only says that a record has changed; the record is read from its home region. So events
//! may repeat and overtake each other: the store never goes back to an older version.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use infrachat_bus::{
    BusError, ConsumeLimits, Consumer, Delivery, Event, EventBus, Subscription, Topic,
};
use infrachat_metadata::{Metadata, MetadataError};
use infrachat_proto::bus::v1::{ChannelChanged, ControlEvent, UserChanged, control_event::Kind};
use infrachat_routing::{CONTROL_TOPIC, DEAD_LETTER_TOPIC};
use infrachat_types::{BadName, ChannelName, Region, UserName};
use prost::Message as _;

/// Handled at once from one region: those that wait for one region's store don't stop the others.
const LIMITS: ConsumeLimits = ConsumeLimits {
    events: 64,
    bytes: 1024 * 1024,
};
/// Between a failure and the next attempt.
const RETRY: Duration = Duration::from_millis(500);
/// A store or a bus that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Who reads what was set aside.
const DEAD_LETTER_GROUP: &str = "operators";

/// Follows the control topics of all regions.
#[derive(Debug)]
pub(crate) struct Replicator {
    region: Region,
    store: Arc<dyn Metadata>,
    stores: BTreeMap<Region, Arc<dyn Metadata>>,
    bus: Arc<dyn EventBus>,
}

/// Why a control event was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// It never will be.
    #[error("the control event can't be read: {0}")]
    Unreadable(String),
    /// It may be later.
    #[error(transparent)]
    Unavailable(#[from] MetadataError),
}

impl From<BadName> for ApplyError {
    fn from(err: BadName) -> Self {
        Self::Unreadable(err.to_string())
    }
}

impl Replicator {
    pub(crate) fn new(
        region: Region,
        store: Arc<dyn Metadata>,
        stores: BTreeMap<Region, Arc<dyn Metadata>>,
        bus: Arc<dyn EventBus>,
    ) -> Self {
        Self {
            region,
            store,
            stores,
            bus,
        }
    }

    /// Tries once to make the subscriptions exist, so that nothing published from now on is missed.
    pub(crate) async fn subscribe(&self) {
        let dead_letters = Subscription {
            topic: self.dead_letter_topic(),
            group: DEAD_LETTER_GROUP.to_owned(),
        };
        let subscriptions = self.stores.keys().map(|source| self.subscription(source));
        let ensuring = subscriptions.chain([dead_letters]).map(|subscription| async move {
            if let Err(err) = self.ensure(&subscription).await {
                tracing::warn!(%subscription, %err, "the subscription can't be made sure of now");
            }
        });
        join_all(ensuring).await;
    }

    /// Follows every region's events, and never ends. Dropping it hands back what is not done.
    pub(crate) async fn run(&self) {
        join_all(self.stores.keys().map(|source| self.follow(source))).await;
    }

    /// Does what one control event asks for. May be called for the same event any number of times.
    ///
    /// # Errors
    /// When the event can't be read, or a store is away.
    pub(crate) async fn apply(&self, payload: &[u8]) -> Result<(), ApplyError> {
        let event =
            ControlEvent::decode(payload).map_err(|err| ApplyError::Unreadable(err.to_string()))?;
        match event.kind {
            Some(Kind::ChannelChanged(change)) => self.copy_channel(change).await,
            Some(Kind::UserChanged(change)) => self.copy_user(change).await,
            // Revocations are not a matter of this store; other kinds are from a newer version.
            Some(Kind::Revoked(_)) | None => Ok(()),
        }
    }

    async fn copy_channel(&self, change: ChannelChanged) -> Result<(), ApplyError> {
        let name = ChannelName::new(&change.channel)?;
        let Some(home) = self.other_home(&change.home_region)? else {
            return Ok(());
        };
        match bounded(home.channel(&name)).await? {
            Some(record) => {
                let version = record.channel.version;
                let taken = bounded(self.store.copy_channel(record)).await?;
                tracing::debug!(channel = %name, version, taken, "copied a channel");
            }
            None => {
                tracing::warn!(channel = %name, home = change.home_region, "a channel changed that its home does not know")
            }
        }
        Ok(())
    }

    async fn copy_user(&self, change: UserChanged) -> Result<(), ApplyError> {
        let name = UserName::new(&change.user)?;
        let Some(home) = self.other_home(&change.home_region)? else {
            return Ok(());
        };
        match bounded(home.user(&name)).await? {
            Some(record) => {
                let version = record.version;
                let taken = bounded(self.store.copy_user(record)).await?;
                tracing::debug!(user = %name, version, taken, "copied a user");
            }
            None => {
                tracing::warn!(user = %name, home = change.home_region, "a user changed that their home does not know")
            }
        }
        Ok(())
    }

    /// The store of the home region; none when that is this region.
    fn other_home(&self, home: &str) -> Result<Option<&Arc<dyn Metadata>>, ApplyError> {
        let home = Region::new(home)?;
        if home == self.region {
            return Ok(None);
        }
        match self.stores.get(&home) {
            Some(store) => Ok(Some(store)),
            None => Err(ApplyError::Unreadable(format!(
                "{home} is not a region of this deployment"
            ))),
        }
    }

    async fn follow(&self, source: &Region) {
        let subscription = self.subscription(source);
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
                    Some(delivery) => handling.push(self.handle(delivery, subscription)),
                    None => return,
                },
                Some(()) = handling.next() => {}
            }
        }
    }

    async fn handle(&self, delivery: Delivery, subscription: &Subscription) {
        let done = match self.apply(&delivery.event.payload).await {
            Ok(()) => true,
            Err(ApplyError::Unavailable(err)) => {
                tracing::warn!(%subscription, %err, "a control event has to wait");
                false
            }
            Err(ApplyError::Unreadable(why)) => {
                self.set_aside(&delivery.event, subscription, &why).await
            }
        };
        if done {
            delivery.ack();
        } else {
            tokio::time::sleep(RETRY).await;
            delivery.nack();
        }
    }

    /// What can't be read must not come for ever: the dead-letter topic keeps it. Answers whether it
    /// does.
    async fn set_aside(&self, event: &Event, subscription: &Subscription, why: &str) -> bool {
        tracing::warn!(%subscription, why, "an unreadable control event goes to the dead-letter topic");
        let mut event = Event {
            ordering_key: String::new(),
            ..event.clone()
        };
        event
            .attributes
            .insert("infrachat-from".to_owned(), subscription.to_string());
        event
            .attributes
            .insert("infrachat-error".to_owned(), why.to_owned());
        let publishing = self.bus.publish(&self.dead_letter_topic(), event);
        match within(publishing).await {
            Ok(()) => true,
            Err(err) => {
                tracing::warn!(%err, "the dead-letter topic can't be reached");
                false
            }
        }
    }

    fn subscription(&self, source: &Region) -> Subscription {
        Subscription {
            topic: Topic {
                region: source.to_string(),
                name: CONTROL_TOPIC.to_owned(),
            },
            group: format!("switchboard-{}", self.region),
        }
    }

    fn dead_letter_topic(&self) -> Topic {
        Topic {
            region: self.region.to_string(),
            name: DEAD_LETTER_TOPIC.to_owned(),
        }
    }

    async fn ensure(&self, subscription: &Subscription) -> Result<(), BusError> {
        within(self.bus.ensure(subscription)).await
    }
}

async fn bounded<T>(
    call: impl Future<Output = Result<T, MetadataError>>,
) -> Result<T, MetadataError> {
    tokio::time::timeout(TIMEOUT, call)
        .await
        .unwrap_or_else(|_| {
            Err(MetadataError::Unavailable(format!(
                "no answer in {TIMEOUT:?}"
            )))
        })
}

async fn within(call: impl Future<Output = Result<(), BusError>>) -> Result<(), BusError> {
    tokio::time::timeout(TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(BusError::Unavailable(format!("no answer in {TIMEOUT:?}"))))
}
