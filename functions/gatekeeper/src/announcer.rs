//! Tells the other services and regions what was decided here, on the region's control topic.

use std::{sync::Arc, time::Duration};

use infrachat_bus::{BusError, EventBus};
use infrachat_identity::Revocation;
use infrachat_metadata::UserRecord;
use infrachat_proto::bus::v1::{Revoked, UserChanged, control_event::Kind};
use infrachat_types::Region;
use tokio_util::task::TaskTracker;

const TRIES: u32 = 3;
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

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
        let event = Kind::UserChanged(UserChanged {
            user: user.name.to_string(),
            version: user.version,
            home_region: user.home_region.to_string(),
        });
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
        let event = Kind::Revoked(Revoked {
            family_id: family.map(ToString::to_string).unwrap_or_default(),
            user: revocation.user.to_string(),
            issued_until_ms: revocation.issued_until,
            forget_after_ms: revocation.forget_after,
        });
        self.publish(&event).await
    }

    /// Waits for what is still being announced in the background; each takes a bounded time.
    pub(crate) async fn drain(&self) {
        self.pending.close();
        self.pending.wait().await;
    }

    async fn publish(&self, event: &Kind) -> Result<(), BusError> {
        let mut outcome = Err(BusError::Unavailable("not tried".to_owned()));
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let publish = infrachat_control::announce(&*self.bus, &self.region, event.clone());
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
