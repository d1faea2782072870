//! What a shard stands on, with faults: its store and its bus answer as its life goes.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use infrachat_bus::{
    Acker, BusError, ConsumeLimits, Consumer, Delivery, Event, EventBus, Subscription, Topic,
};
use infrachat_e2e::Ledger;
use infrachat_metadata::{
    ChannelRecord, Channels, Direction, History, HistoryEntry, HistoryPage, Lease, LeaseView,
    MemoryMetadata, MetadataError, Ownership, RevocationRecords, Routing, RoutingWatch,
    TokenFamily, UserRecord, Users,
};
use infrachat_types::{
    Channel, ChannelName, Epoch, Identity, Offset, OriginId, Revocation, ShardId, TokenFamilyId,
    UnixMillis, UserName,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::trace::Trace;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    CutOff,
    Dead,
}

/// One life of a shard, as far as the world lets it have one.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) name: ShardId,
    trace: Arc<Trace>,
    state: Arc<watch::Sender<State>>,
    /// Its renewals don't get through, and all else does.
    late: Arc<watch::Sender<bool>>,
}

impl Life {
    pub(crate) fn new(name: ShardId, trace: Arc<Trace>) -> Self {
        Self {
            name,
            trace,
            state: Arc::new(watch::Sender::new(State::Well)),
            late: Arc::default(),
        }
    }

    /// Nothing of it gets anywhere any more.
    pub(crate) fn end(&self) {
        self.note(format_args!("ends"));
        self.state.send_replace(State::Dead);
    }

    /// Nothing gets to it or from it for a while.
    pub(crate) async fn cut_off(&self, time: Duration) {
        self.state.send_if_modified(|state| {
            let well = *state == State::Well;
            if well {
                *state = State::CutOff;
            }
            well
        });
        tokio::time::sleep(time).await;
        self.state.send_if_modified(|state| {
            let cut_off = *state == State::CutOff;
            if cut_off {
                *state = State::Well;
            }
            cut_off
        });
    }

    pub(crate) async fn renews_late(&self, time: Duration) {
        self.late.send_replace(true);
        tokio::time::sleep(time).await;
        self.late.send_replace(false);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is(State::Dead)
    }

    fn is(&self, state: State) -> bool {
        *self.state.borrow() == state
    }

    fn note(&self, event: std::fmt::Arguments<'_>) {
        self.trace.note(format_args!("{} {event}", self.name));
    }

    /// Waits until something gets through; for ever when it is dead.
    pub(crate) async fn pass(&self) {
        let mut state = self.state.subscribe();
        if state.wait_for(|state| *state == State::Well).await.is_err() {
            std::future::pending().await
        }
    }

    pub(crate) async fn ended(&self) {
        let mut state = self.state.subscribe();
        drop(state.wait_for(|state| *state == State::Dead).await);
    }

    /// There and back.
    async fn through<T>(&self, call: impl Future<Output = T>) -> T {
        self.pass().await;
        self.note(format_args!("asks"));
        let answer = call.await;
        self.pass().await;
        self.note(format_args!("is answered"));
        answer
    }
}

/// A region's store, as a shard reaches it.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    pub(crate) life: Life,
    pub(crate) store: Arc<MemoryMetadata>,
}

type Answer<T> = Result<T, MetadataError>;

#[async_trait]
impl Routing for FaultyStore {
    async fn begin_lease(&self, lease: Lease) -> Answer<()> {
        self.life.through(self.store.begin_lease(lease)).await
    }

    async fn renew_lease(&self, lease: Lease) -> Answer<()> {
        let mut late = self.life.late.subscribe();
        drop(late.wait_for(|late| !late).await);
        self.life.through(self.store.renew_lease(lease)).await
    }

    async fn end_lease(&self, shard: &ShardId, incarnation: &OriginId) -> Answer<()> {
        let ending = self.store.end_lease(shard, incarnation);
        self.life.through(ending).await
    }

    async fn leases(&self) -> Answer<Vec<LeaseView>> {
        self.life.through(self.store.leases()).await
    }

    fn watch(&self) -> RoutingWatch {
        self.store.watch()
    }

    async fn ownerships(&self) -> Answer<Vec<Ownership>> {
        self.life.through(self.store.ownerships()).await
    }

    async fn take_partition(
        &self,
        partition: u32,
        shard: &ShardId,
        incarnation: &OriginId,
        ttl: Duration,
    ) -> Answer<Epoch> {
        let taking = self
            .store
            .take_partition(partition, shard, incarnation, ttl);
        self.life.through(taking).await
    }

    async fn release_partition(&self, partition: u32, epoch: Epoch) -> Answer<()> {
        let releasing = self.store.release_partition(partition, epoch);
        self.life.through(releasing).await
    }
}

#[async_trait]
impl History for FaultyStore {
    async fn append_history(
        &self,
        partition: u32,
        epoch: Epoch,
        entries: &[HistoryEntry],
    ) -> Answer<()> {
        let appending = self.store.append_history(partition, epoch, entries);
        self.life.through(appending).await
    }

    async fn history(
        &self,
        channel: &ChannelName,
        direction: Direction,
        limit: usize,
    ) -> Answer<HistoryPage> {
        let reading = self.store.history(channel, direction, limit);
        self.life.through(reading).await
    }

    async fn history_appended_after(
        &self,
        channel: &ChannelName,
        epoch: Epoch,
        offset: Offset,
        limit: usize,
    ) -> Answer<HistoryPage> {
        let reading = self
            .store
            .history_appended_after(channel, epoch, offset, limit);
        self.life.through(reading).await
    }

    async fn history_tail(&self, channel: &ChannelName, limit: usize) -> Answer<Vec<HistoryEntry>> {
        let reading = self.store.history_tail(channel, limit);
        self.life.through(reading).await
    }

    async fn find_message(&self, identity: &Identity) -> Answer<Option<HistoryEntry>> {
        self.life.through(self.store.find_message(identity)).await
    }
}

#[async_trait]
impl Channels for FaultyStore {
    async fn create_channel(&self, record: ChannelRecord) -> Answer<()> {
        self.life.through(self.store.create_channel(record)).await
    }

    async fn channel(&self, name: &ChannelName) -> Answer<Option<ChannelRecord>> {
        self.life.through(self.store.channel(name)).await
    }

    async fn copy_channel(&self, record: ChannelRecord) -> Answer<bool> {
        self.life.through(self.store.copy_channel(record)).await
    }

    async fn list_channels(
        &self,
        user: &UserName,
        prefix: &str,
        after: Option<&ChannelName>,
        limit: usize,
    ) -> Answer<Vec<Channel>> {
        let listing = self.store.list_channels(user, prefix, after, limit);
        self.life.through(listing).await
    }
}

#[async_trait]
impl RevocationRecords for FaultyStore {
    async fn add_revocation(&self, revocation: Revocation) -> Answer<()> {
        self.life
            .through(self.store.add_revocation(revocation))
            .await
    }

    async fn revocations(&self, now: UnixMillis) -> Answer<Vec<Revocation>> {
        self.life.through(self.store.revocations(now)).await
    }
}

#[async_trait]
impl Users for FaultyStore {
    async fn create_user(&self, user: UserRecord) -> Answer<()> {
        self.life.through(self.store.create_user(user)).await
    }

    async fn user(&self, name: &UserName) -> Answer<Option<UserRecord>> {
        self.life.through(self.store.user(name)).await
    }

    async fn copy_user(&self, user: UserRecord) -> Answer<bool> {
        self.life.through(self.store.copy_user(user)).await
    }

    async fn create_family(&self, family: TokenFamily) -> Answer<()> {
        self.life.through(self.store.create_family(family)).await
    }

    async fn family(&self, id: &TokenFamilyId) -> Answer<Option<TokenFamily>> {
        self.life.through(self.store.family(id)).await
    }

    async fn update_family(&self, family: TokenFamily) -> Answer<()> {
        self.life.through(self.store.update_family(family)).await
    }

    async fn families_of(&self, user: &UserName, now: UnixMillis) -> Answer<Vec<TokenFamily>> {
        self.life.through(self.store.families_of(user, now)).await
    }
}

/// Who consumes what, in all regions: of one subscription to messages, at most one shard at a time.
#[derive(Debug)]
pub(crate) struct Owners {
    pub(crate) ledger: Arc<Ledger>,
    consuming: Mutex<Vec<(Subscription, Life, CancellationToken)>>,
}

impl Owners {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            consuming: Mutex::default(),
        }
    }

    fn begins(&self, subscription: &Subscription, life: &Life, stopped: &CancellationToken) {
        let mut consuming = self.consuming.lock().expect("whole");
        consuming.retain(|(_, life, stopped)| !stopped.is_cancelled() && !life.is(State::Dead));
        let at_once = consuming
            .iter()
            .filter(|(other, ..)| other == subscription && other.topic.name.contains("messages"));
        for (_, other, _) in at_once {
            let (one, two) = (&other.name, &life.name);
            self.ledger
                .wrong(format!("{one} and {two} serve {subscription} at once"));
        }
        let entry = (subscription.clone(), life.clone(), stopped.clone());
        consuming.push(entry);
    }
}

/// A region's bus, as a shard reaches it.
#[derive(Debug)]
pub(crate) struct FaultyBus {
    pub(crate) life: Life,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) owners: Arc<Owners>,
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
        if life.is(State::Well) {
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
        tokio::spawn(async move {
            let pumping = async {
                while let Some(delivery) = inner.next().await {
                    life.pass().await;
                    let event = delivery.event.clone();
                    let attempt = delivery.attempt;
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
        if self.life.is(State::Well) {
            self.delivery.ack();
        } else {
            self.delivery.nack();
        }
    }

    fn nack(self: Box<Self>) {
        self.delivery.nack();
    }
}
