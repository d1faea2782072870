//! Hears what the regions announce, and keeps this region's copies: users of other homes, and
//! revocations.

use std::{sync::Arc, time::Duration};

use infrachat_bus::{BusError, ConsumeLimits, Delivery, EventBus, Subscription};
use infrachat_identity::{Revocation, Revocations};
use infrachat_proto::bus::v1::{ControlEvent, Revoked, UserChanged, control_event::Kind};
use infrachat_types::{Region, TokenFamilyId, UserName};
use prost::Message as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{announcer::control_topic, error::AuthError, regions::Regions};

/// Before trying again what failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the control topics of all regions.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    bus: Arc<dyn EventBus>,
    regions: Arc<Regions>,
    revocations: Arc<dyn Revocations>,
}

impl Follower {
    pub(crate) fn new(
        bus: Arc<dyn EventBus>,
        regions: Arc<Regions>,
        revocations: Arc<dyn Revocations>,
    ) -> Self {
        Self {
            bus,
            regions,
            revocations,
        }
    }

    /// Until the stop. A region that can't be followed is tried again, and delays no other.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let mut following = JoinSet::new();
        for store in self.regions.all() {
            let (follower, region, stop) = (self.clone(), store.region.clone(), stop.clone());
            following.spawn(async move {
                let follow = follower.follow_for_ever(&region);
                stop.run_until_cancelled(follow).await;
            });
        }
        while following.join_next().await.is_some() {}
    }

    async fn follow_for_ever(&self, region: &Region) {
        loop {
            if let Err(err) = self.follow(region).await {
                tracing::warn!(%region, %err, "the region's control topic can't be followed");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(&self, region: &Region) -> Result<(), BusError> {
        let subscription = Subscription {
            topic: control_topic(region),
            group: format!("gatekeeper-{}", self.regions.local().region),
        };
        self.bus.ensure(&subscription).await?;
        let limits = ConsumeLimits::default();
        let mut consumer = self.bus.consume(&subscription, limits).await?;
        while let Some(delivery) = consumer.next().await {
            self.handle(delivery).await;
        }
        Ok(())
    }

    async fn handle(&self, delivery: Delivery) {
        match self.apply(&delivery).await {
            Ok(()) => delivery.ack(),
            Err(err) => {
                tracing::warn!(%err, "a control event could not be applied and is tried again");
                tokio::time::sleep(PAUSE).await;
                delivery.nack();
            }
        }
    }

    async fn apply(&self, delivery: &Delivery) -> Result<(), AuthError> {
        let Ok(event) = ControlEvent::decode(delivery.event.payload.clone()) else {
            tracing::warn!("a control event can't be read and is passed over");
            return Ok(());
        };
        match event.kind {
            Some(Kind::UserChanged(changed)) => self.copy_user(&changed).await,
            Some(Kind::Revoked(revoked)) => self.revoke(revoked).await,
            Some(Kind::ChannelChanged(_)) | None => Ok(()),
        }
    }

    async fn copy_user(&self, changed: &UserChanged) -> Result<(), AuthError> {
        let (Ok(name), Ok(home)) = (
            UserName::new(&changed.user),
            Region::new(&changed.home_region),
        ) else {
            return Ok(());
        };
        let local = self.regions.local();
        let Some(home) = self.regions.get(&home).filter(|h| h.region != local.region) else {
            return Ok(());
        };
        let copy = local.metadata.user(&name).await?;
        if copy.is_some_and(|copy| copy.version >= changed.version) {
            return Ok(());
        }
        if let Some(user) = home.metadata.user(&name).await? {
            local.metadata.copy_user(user).await?;
        }
        Ok(())
    }

    async fn revoke(&self, revoked: Revoked) -> Result<(), AuthError> {
        let Ok(user) = UserName::new(&revoked.user) else {
            return Ok(());
        };
        let family = Some(revoked.family_id.as_str()).filter(|id| !id.is_empty());
        let revocation = Revocation {
            user,
            family: family.map(TokenFamilyId::from_text),
            issued_until: revoked.issued_until_ms,
            forget_after: revoked.forget_after_ms,
        };
        Ok(self.revocations.revoke(revocation).await?)
    }
}
