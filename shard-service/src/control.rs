//! Control events: revoked tokens end sessions, changed channels are read anew.

use std::sync::Arc;

use async_trait::async_trait;
use infrachat_control::{Apply, ApplyError, DeadLetters, Follower};
use infrachat_identity::Revocation;
use infrachat_proto::bus::v1::{Revoked, control_event::Kind};
use infrachat_types::{ChannelName, TokenFamilyId, UserName};

use crate::parts::Parts;

/// Hears the control events of all regions, as this shard's slot.
pub(crate) fn follower(parts: &Arc<Parts>) -> Follower {
    Follower::new(
        Arc::clone(&parts.bus),
        parts.regions.clone(),
        parts.shard.to_string(),
        Arc::new(Heard(Arc::clone(parts))),
        DeadLetters::new(Arc::clone(&parts.bus), &parts.region),
    )
}

#[derive(Debug)]
struct Heard(Arc<Parts>);

#[async_trait]
impl Apply for Heard {
    async fn apply(&self, kind: Kind) -> Result<(), ApplyError> {
        match kind {
            Kind::Revoked(revoked) => self.revoke(revoked).await,
            Kind::ChannelChanged(changed) => {
                self.0.access.forget(&ChannelName::new(&changed.channel)?);
                Ok(())
            }
            Kind::UserChanged(_) => Ok(()),
        }
    }
}

impl Heard {
    async fn revoke(&self, revoked: Revoked) -> Result<(), ApplyError> {
        let user = UserName::new(&revoked.user)?;
        let family =
            (!revoked.family_id.is_empty()).then(|| TokenFamilyId::from_text(&revoked.family_id));
        let revocation = Revocation {
            user: user.clone(),
            family: family.clone(),
            issued_until: revoked.issued_until_ms,
            forget_after: revoked.forget_after_ms,
        };
        self.0.callers.revoke(revocation).await;
        let closed = self
            .0
            .sessions
            .revoke(&user, family.as_ref(), revoked.issued_until_ms);
        tracing::info!(%user, closed, "tokens were revoked");
        Ok(())
    }
}
