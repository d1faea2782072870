//! Snapshots, and seeking.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prost_types::{FieldMask, Timestamp};
use tonic::Status;

use super::{Broker, State, of_project, refuse_immutable};
use crate::{
    clock::Moment,
    mask,
    proto::{self, seek_request::Target},
    pubsub::{
        names::{self, Kind},
        topic::{Captured, Topic},
    },
};

/// How long a snapshot lives at most.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a new snapshot must at least have left.
const SHORTEST_LIFE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) shown: proto::Snapshot,
    topic: Arc<Topic>,
    captured: Captured,
    expires: Moment,
}

impl Broker {
    /// Captures what a subscription hasn't acknowledged, and all that will be published.
    pub(crate) fn create_snapshot(
        &self,
        name: &str,
        subscription: &str,
        labels: HashMap<String, String>,
    ) -> Result<proto::Snapshot, Status> {
        names::check(Kind::Snapshot, name)?;
        let subscription = self.subscription(subscription)?;
        let topic = self.topic_of(&subscription).ok_or_else(|| {
            Status::failed_precondition("The subscription's topic has been deleted.")
        })?;
        let mut state = self.state();
        state.drop_expired(self.clock.now());
        if state.snapshots.contains_key(name) {
            return Err(names::already_exists(name));
        }
        let captured = topic.capture(name, &subscription);
        let oldest = captured.unacked.values().next();
        let oldest = oldest.map_or(self.clock.now(), |message| message.published);
        let expires = oldest + LIFE;
        if expires.since(self.clock.now()) < SHORTEST_LIFE {
            topic.forget(name);
            return Err(Status::failed_precondition(
                "The snapshot would expire in less than 1 hour: the subscription's oldest \
                 unacknowledged message is too old.",
            ));
        }
        let shown = proto::Snapshot {
            name: name.to_owned(),
            topic: topic.settings().name,
            expire_time: Some(self.clock.timestamp(expires)),
            labels,
        };
        let snapshot = Snapshot {
            shown: shown.clone(),
            topic,
            captured,
            expires,
        };
        state.snapshots.insert(name.to_owned(), snapshot);
        Ok(shown)
    }

    pub(crate) fn snapshot(&self, name: &str) -> Result<proto::Snapshot, Status> {
        self.with_snapshot(name, |snapshot| snapshot.shown.clone())
    }

    pub(crate) fn update_snapshot(
        &self,
        new: &proto::Snapshot,
        mask: Option<&FieldMask>,
    ) -> Result<proto::Snapshot, Status> {
        refuse_immutable("Snapshot", mask, &["name", "topic", "expire_time"])?;
        self.with_snapshot(&new.name, |snapshot| {
            let message = "google.pubsub.v1.Snapshot";
            let updated = mask::apply(&self.contracts, message, &snapshot.shown, new, mask)?;
            snapshot.shown = updated;
            Ok(snapshot.shown.clone())
        })?
    }

    pub(crate) fn delete_snapshot(&self, name: &str) -> Result<(), Status> {
        names::check(Kind::Snapshot, name)?;
        let mut state = self.state();
        state.drop_expired(self.clock.now());
        let snapshot = state.snapshots.remove(name);
        let snapshot = snapshot.ok_or_else(|| names::not_found(name))?;
        snapshot.topic.forget(name);
        Ok(())
    }

    /// The snapshots of a project, by name, after one of them.
    pub(crate) fn snapshots(&self, project: &str, after: &str) -> Vec<proto::Snapshot> {
        let mut state = self.state();
        state.drop_expired(self.clock.now());
        of_project(&state.snapshots, project, after)
            .map(|snapshot| snapshot.shown.clone())
            .collect()
    }

    /// Moves a subscription in time, or to a snapshot of its topic.
    pub(crate) fn seek(&self, subscription: &str, target: Option<Target>) -> Result<(), Status> {
        let subscription = self.subscription(subscription)?;
        let topic = self.topic_of(&subscription);
        match target {
            None => Err(Status::invalid_argument(
                "A seek needs a time or a snapshot.",
            )),
            Some(Target::Time(time)) => {
                let from = self.clock.moment(&check_time(time)?);
                match topic {
                    Some(topic) => topic.seek(&subscription, |message| message.published >= from),
                    None => {
                        subscription.seek(std::iter::empty(), |message| message.published >= from)
                    }
                }
                Ok(())
            }
            Some(Target::Snapshot(name)) => self.with_snapshot(&name, |snapshot| {
                if !topic.is_some_and(|topic| Arc::ptr_eq(&topic, &snapshot.topic)) {
                    return Err(Status::invalid_argument(
                        "The snapshot's topic is not the subscription's.",
                    ));
                }
                snapshot.topic.seek_to(&snapshot.captured, &subscription);
                Ok(())
            })?,
        }
    }

    fn with_snapshot<T>(
        &self,
        name: &str,
        look: impl FnOnce(&mut Snapshot) -> T,
    ) -> Result<T, Status> {
        names::check(Kind::Snapshot, name)?;
        let mut state = self.state();
        state.drop_expired(self.clock.now());
        let found = state.snapshots.get_mut(name);
        found.map(look).ok_or_else(|| names::not_found(name))
    }
}

impl State {
    fn drop_expired(&mut self, now: Moment) {
        self.snapshots.retain(|name, snapshot| {
            let lives = snapshot.expires > now;
            if !lives {
                snapshot.topic.forget(name);
            }
            lives
        });
    }
}

fn check_time(time: Timestamp) -> Result<Timestamp, Status> {
    if (0..1_000_000_000).contains(&time.nanos) {
        return Ok(time);
    }
    Err(Status::invalid_argument("The time to seek to is invalid."))
}
