//! Control events: how a service hears of what was decided elsewhere.
//!
//! Each region has a control topic. What is decided in a region (a channel is created, a user changes,
//! tokens are revoked) is announced there, and every region's services hear it, at least once and in
//! no order: an event says only that a record has changed, or carries its own times, so that applying
//! it again or late does no harm.
//!
//! A service hears by pull on any bus, or by push from Pub/Sub ([`Hearing`]). What can't be read goes to the region's dead-letter topic, and is never
//! tried for ever.

mod counted;
mod dead_letters;
mod follower;
#[cfg(feature = "google")]
mod google;
mod push;

use async_trait::async_trait;
use bytes::Bytes;
use infrachat_bus::{BusError, Event, EventBus, Topic};
use infrachat_proto::bus::v1::{ControlEvent, control_event::Kind};
use infrachat_types::{BadName, Region};
use prost::Message as _;

pub use dead_letters::{DEAD_LETTER_GROUP, DeadLetters};
pub use follower::{Follower, Hearing, PushSetUp};
#[cfg(feature = "google")]
pub use google::GooglePushTokens;
pub use push::{PUSH_PATH, PushRefused, PushTokens};

/// A region's control topic.
#[must_use]
pub fn topic(region: &Region) -> Topic {
    Topic {
        region: region.to_string(),
        name: infrachat_routing::CONTROL_TOPIC.to_owned(),
    }
}

/// Announces what was decided in a region; resolves once the bus has it.
///
/// # Errors
/// When the bus did not take it: it may or may not be heard.
pub async fn announce(bus: &dyn EventBus, region: &Region, kind: Kind) -> Result<(), BusError> {
    let event = ControlEvent {
        region: region.to_string(),
        kind: Some(kind),
    };
    // Without an ordering key: each event stands for itself, by its version or its times.
    let event = Event {
        ordering_key: String::new(),
        payload: event.encode_to_vec().into(),
        attributes: std::collections::BTreeMap::new(),
    };
    bus.publish(&topic(region), event).await
}

/// Why a control event was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It never will be.
    #[error("the control event can't be read: {0}")]
    Unreadable(String),
    /// It may be later.
    #[error("the control event has to wait: {0}")]
    Unavailable(String),
}

impl From<BadName> for ApplyError {
    fn from(err: BadName) -> Self {
        Self::Unreadable(err.to_string())
    }
}

/// What a service does about control events.
#[async_trait]
pub trait Apply: std::fmt::Debug + Send + Sync + 'static {
    /// Does what one event asks for. Called any number of times for one event, in any order.
    async fn apply(&self, kind: Kind) -> Result<(), ApplyError>;
}

fn decode(payload: &Bytes) -> Result<Option<Kind>, ApplyError> {
    ControlEvent::decode(payload.clone())
        .map(|event| event.kind)
        .map_err(|err| ApplyError::Unreadable(err.to_string()))
}
