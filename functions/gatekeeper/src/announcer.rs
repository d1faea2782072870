//! Tells the other services and regions what was decided here, on the region's control topic.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use infrachat_bus::{BusError, Event, EventBus, Topic};
use infrachat_identity::Revocation;
use infrachat_metadata::UserRecord;
use infrachat_proto::bus::v1::{ControlEvent, Revoked, UserChanged, control_event::Kind};
use infrachat_types::Region;
use prost::Message as _;
use tokio_util::task::TaskTracker;

const TRIES: u32 = 3;
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

/// A region's control topic.
pub(crate) fn control_topic(region: &Region) -> Topic {
    Topic {
        region: region.to_string(),
        name: "control".to_owned(),
    }
}

/// Publishes control events.
#[derive(Debug, Clone)]
pub(crate) struct Announcer {
    bus: Arc<dyn EventBus>,
    region: Region,
    pending: TaskTracker,
}

impl Announcer {
    pub(crate) fn new(bus: Arc<dyn EventBus>, region: Region) -> Self {
        Self {
            bus,
            region,
            pending: TaskTracker::new(),
        }
    }

    /// In the background: a region that misses it reads the user through from the home region.
    pub(crate) fn user_changed(&self, user: &UserRecord) {
        let event = self.event(Kind::UserChanged(UserChanged {
            user: user.name.to_string(),
            version: user.version,
            home_region: user.home_region.to_string(),
        }));
        let (announcer, name) = (self.clone(), user.name.clone());
        self.pending.spawn(async move {
            if let Err(err) = announcer.publish(&event).await {
                tracing::warn!(user = %name, %err, "a change of a user was not announced");
            }
        });
    }

    /// Resolves once the bus has it.
    pub(crate) async fn revoked(&self, revocation: &Revocation) -> Result<(), BusError> {
        let family = revocation.family.as_ref();
        let event = self.event(Kind::Revoked(Revoked {
            family_id: family.map(ToString::to_string).unwrap_or_default(),
            user: revocation.user.to_string(),
            issued_until_ms: revocation.issued_until,
            forget_after_ms: revocation.forget_after,
        }));
        self.publish(&event).await
    }

    /// Waits for what is still being announced in the background; each takes a bounded time.
    pub(crate) async fn drain(&self) {
        self.pending.close();
        self.pending.wait().await;
    }

    /// Without an ordering key: each event stands for itself, by its version or its times.
    fn event(&self, kind: Kind) -> Event {
        let event = ControlEvent {
            region: self.region.to_string(),
            kind: Some(kind),
        };
        Event {
            ordering_key: String::new(),
            payload: event.encode_to_vec().into(),
            attributes: BTreeMap::new(),
        }
    }

    async fn publish(&self, event: &Event) -> Result<(), BusError> {
        let topic = control_topic(&self.region);
        let mut outcome = Err(BusError::Unavailable("not tried".to_owned()));
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let publish = self.bus.publish(&topic, event.clone());
            outcome = tokio::time::timeout(TRY_TIMEOUT, publish)
                .await
                .unwrap_or_else(|_| Err(BusError::Unavailable("no answer".to_owned())));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}
