//! All topics, subscriptions and snapshots, and what holds between them.

mod snapshots;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prost_reflect::DescriptorPool;
use prost_types::FieldMask;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::snapshots::Snapshot;
use super::{
    names::{self, DELETED_TOPIC, Kind},
    queue::DeadLetter,
    settings,
    subscription::Subscription,
    topic::Topic,
};
use crate::{
    clock::Clock,
    faults::Faults,
    mask,
    proto::{self, PubsubMessage},
};

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) clock: Clock,
    pub(crate) faults: Faults,
    /// Cancelled when the emulator stops.
    pub(crate) stop: CancellationToken,
    contracts: DescriptorPool,
    next_message: AtomicU64,
    next_incarnation: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Arc<Topic>>,
    subscriptions: BTreeMap<String, Arc<Subscription>>,
    snapshots: BTreeMap<String, Snapshot>,
}

impl Broker {
    pub(crate) fn new(
        contracts: DescriptorPool,
        clock: Clock,
        faults: Faults,
        stop: CancellationToken,
    ) -> Self {
        // Ids of one run don't come again in the next: clients may remember them.
        let started = clock.timestamp(clock.now());
        let seconds = u64::try_from(started.seconds).unwrap_or_default();
        Self {
            clock,
            faults,
            stop,
            contracts,
            next_message: AtomicU64::new(seconds * 1_000_000),
            next_incarnation: AtomicU64::new(seconds * 1_000),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn create_topic(&self, new: proto::Topic) -> Result<proto::Topic, Status> {
        let new = settings::topic(new)?;
        let mut state = self.state();
        if state.topics.contains_key(&new.name) {
            return Err(names::already_exists(&new.name));
        }
        let topic = Topic::new(new.clone(), self.clock.clone());
        state.topics.insert(new.name.clone(), Arc::new(topic));
        state.tell_dead_letters(&new.name, true);
        Ok(new)
    }

    pub(crate) fn update_topic(
        &self,
        new: &proto::Topic,
        mask: Option<&FieldMask>,
    ) -> Result<proto::Topic, Status> {
        names::check(Kind::Topic, &new.name)?;
        refuse_immutable("Topic", mask, &["name", "kms_key_name", "tags"])?;
        // Held to the end, so that of two updates at once neither is lost.
        let state = self.state();
        let topic = state.topics.get(&new.name);
        let topic = topic.ok_or_else(|| names::not_found(&new.name))?;
        let (name, current) = ("google.pubsub.v1.Topic", topic.settings());
        let updated = mask::apply(&self.contracts, name, &current, new, mask)?;
        let updated = settings::topic(updated)?;
        topic.set(updated.clone());
        Ok(updated)
    }

    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>, Status> {
        names::check(Kind::Topic, name)?;
        let found = self.state().topics.get(name).cloned();
        found.ok_or_else(|| names::not_found(name))
    }

    pub(crate) fn delete_topic(&self, name: &str) -> Result<(), Status> {
        names::check(Kind::Topic, name)?;
        let mut state = self.state();
        let topic = state.topics.remove(name);
        let topic = topic.ok_or_else(|| names::not_found(name))?;
        for subscription in topic.subscriptions() {
            subscription.orphan();
        }
        state.orphan_snapshots(name);
        state.tell_dead_letters(name, false);
        Ok(())
    }

    /// The topics of a project, by name, after one of them.
    pub(crate) fn topics(&self, project: &str, after: &str) -> Vec<proto::Topic> {
        let state = self.state();
        of_project(&state.topics, project, after)
            .map(|topic| topic.settings())
            .collect()
    }

    /// Publishes: the ids are in the messages' order.
    pub(crate) fn publish(&self, topic: &Topic, messages: Vec<PubsubMessage>) -> Vec<String> {
        topic.publish(messages, || {
            let number = self.next_message.fetch_add(1, Ordering::Relaxed);
            number.to_string()
        })
    }

    /// A new subscription, which gets what is published from now on.
    pub(crate) fn create_subscription(
        &self,
        new: proto::Subscription,
    ) -> Result<Arc<Subscription>, Status> {
        let new = settings::subscription(new)?;
        names::check(Kind::Topic, &new.topic)?;
        let mut state = self.state();
        if state.subscriptions.contains_key(&new.name) {
            return Err(names::already_exists(&new.name));
        }
        let topic = state.topics.get(&new.topic).cloned();
        let topic = topic.ok_or_else(|| names::not_found(&new.topic))?;
        let dead_letters = state.check_dead_letters(&new)?;
        let incarnation = self.next_incarnation.fetch_add(1, Ordering::Relaxed);
        let (clock, faults) = (self.clock.clone(), self.faults.clone());
        let created = Subscription::new(new, incarnation, dead_letters, clock, faults)?;
        let created = Arc::new(created);
        topic.attach(Arc::clone(&created));
        state
            .subscriptions
            .insert(created.name.clone(), Arc::clone(&created));
        Ok(created)
    }

    pub(crate) fn update_subscription(
        &self,
        new: &proto::Subscription,
        mask: Option<&FieldMask>,
    ) -> Result<proto::Subscription, Status> {
        names::check(Kind::Subscription, &new.name)?;
        let fixed = ["name", "topic", "filter", "enable_message_ordering", "tags"];
        refuse_immutable("Subscription", mask, &fixed)?;
        let state = self.state();
        let subscription = state.subscriptions.get(&new.name);
        let subscription = subscription.ok_or_else(|| names::not_found(&new.name))?;
        let (name, current) = ("google.pubsub.v1.Subscription", subscription.settings());
        let updated = mask::apply(&self.contracts, name, current.as_ref(), new, mask)?;
        let updated = settings::subscription(updated)?;
        let dead_letters = state.check_dead_letters(&updated)?;
        subscription.set(updated.clone());
        subscription.set_dead_letters(dead_letters);
        drop(state);
        Ok(self.shown(&updated))
    }

    pub(crate) fn subscription(&self, name: &str) -> Result<Arc<Subscription>, Status> {
        names::check(Kind::Subscription, name)?;
        let found = self.state().subscriptions.get(name).cloned();
        found.ok_or_else(|| names::not_found(name))
    }

    pub(crate) fn delete_subscription(&self, name: &str) -> Result<(), Status> {
        names::check(Kind::Subscription, name)?;
        let mut state = self.state();
        let subscription = state.subscriptions.remove(name);
        let subscription = subscription.ok_or_else(|| names::not_found(name))?;
        if let Some(topic) = state.topics.get(&subscription.settings().topic) {
            topic.detach(name);
        }
        subscription.close();
        Ok(())
    }

    pub(crate) fn detach_subscription(&self, name: &str) -> Result<(), Status> {
        let subscription = self.subscription(name)?;
        if let Some(topic) = self.topic_of(&subscription) {
            topic.detach(name);
        }
        subscription.detach();
        Ok(())
    }

    /// The subscriptions of a project, by name, after one of them.
    pub(crate) fn subscriptions(&self, project: &str, after: &str) -> Vec<proto::Subscription> {
        let settings: Vec<_> = {
            let state = self.state();
            of_project(&state.subscriptions, project, after)
                .map(|subscription| subscription.settings())
                .collect()
        };
        settings.iter().map(|each| self.shown(each)).collect()
    }

    /// Settings as callers see them, with what the topic adds.
    pub(crate) fn shown(&self, settings: &proto::Subscription) -> proto::Subscription {
        let topic = self.state().topics.get(&settings.topic).cloned();
        let mut settings = settings.clone();
        settings.topic_message_retention_duration =
            topic.and_then(|topic| topic.settings().message_retention_duration);
        settings
    }

    fn topic_of(&self, subscription: &Subscription) -> Option<Arc<Topic>> {
        let settings = subscription.settings();
        self.state().topics.get(&settings.topic).cloned()
    }

    /// Forwards a message to the dead-letter topic.
    pub(crate) fn bury(&self, subscription: &Subscription, dead: DeadLetter) {
        let settings = subscription.settings();
        let policy = settings.dead_letter_policy.clone().unwrap_or_default();
        let Ok(topic) = self.topic(&policy.dead_letter_topic) else {
            tracing::warn!(
                subscription = subscription.name,
                topic = policy.dead_letter_topic,
                "a dead letter is lost: its topic was deleted just now"
            );
            return;
        };
        let mut body = dead.message.body.clone();
        let published = body.publish_time.take().map(|at| at.to_string());
        let source = &subscription.name;
        body.attributes.extend(
            [
                ("SourceDeliveryCount", dead.attempts.to_string()),
                ("SourceSubscription", names::id(source).to_owned()),
                (
                    "SourceSubscriptionProject",
                    names::project(source).to_owned(),
                ),
                ("SourceTopicPublishTime", published.unwrap_or_default()),
            ]
            .map(|(name, value)| (format!("CloudPubSubDeadLetter{name}"), value)),
        );
        self.publish(&topic, vec![body]);
    }
}

impl State {
    /// Whether a subscription's dead letters have somewhere to go; a policy with a topic that doesn't
    /// exist is refused.
    fn check_dead_letters(&self, settings: &proto::Subscription) -> Result<bool, Status> {
        let Some(policy) = &settings.dead_letter_policy else {
            return Ok(false);
        };
        if self.topics.contains_key(&policy.dead_letter_topic) {
            return Ok(true);
        }
        Err(names::not_found(&policy.dead_letter_topic))
    }

    /// Tells subscriptions that a topic, which may be theirs for dead letters, came or went.
    fn tell_dead_letters(&self, topic: &str, exists: bool) {
        for subscription in self.subscriptions.values() {
            let settings = subscription.settings();
            let policy = settings.dead_letter_policy.as_ref();
            if policy.is_some_and(|policy| policy.dead_letter_topic == topic) {
                subscription.set_dead_letters(exists);
            }
        }
    }

    fn orphan_snapshots(&mut self, topic: &str) {
        for snapshot in self.snapshots.values_mut() {
            if snapshot.shown.topic == topic {
                snapshot.shown.topic = DELETED_TOPIC.to_owned();
            }
        }
    }
}

/// The resources of a project after `after`, in the order of their names.
fn of_project<'a, T>(
    all: &'a BTreeMap<String, T>,
    project: &str,
    after: &str,
) -> impl Iterator<Item = &'a T> {
    let prefix = format!("{project}/");
    let from = std::ops::Bound::Excluded(after.max(prefix.as_str()).to_owned());
    all.range((from, std::ops::Bound::Unbounded))
        .take_while(move |(name, _)| name.starts_with(&prefix))
        .map(|(_, resource)| resource)
}

fn refuse_immutable(
    resource: &str,
    mask: Option<&FieldMask>,
    immutable: &[&str],
) -> Result<(), Status> {
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    match paths.iter().find(|path| immutable.contains(&path.as_str())) {
        Some(path) => Err(Status::invalid_argument(format!(
            "Invalid update_mask provided in the Update{resource}Request: the '{path}' field in \
             the {resource} is not mutable."
        ))),
        None => Ok(()),
    }
}
