//! Keeps this region's copies of what is announced: users of other homes, and revocations.

use std::sync::Arc;

use async_trait::async_trait;
use infrachat_control::{Apply, ApplyError};
use infrachat_identity::{Revocation, Revocations, RevocationsUnavailable};
use infrachat_metadata::MetadataError;
use infrachat_proto::bus::v1::{Revoked, UserChanged, control_event::Kind};
use infrachat_types::{Region, TokenFamilyId, UserName};

use crate::regions::Regions;

/// This region's copies.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(crate) regions: Arc<Regions>,
    pub(crate) revocations: Arc<dyn Revocations>,
}

#[async_trait]
impl Apply for Copies {
    async fn apply(&self, kind: Kind) -> Result<(), ApplyError> {
        match kind {
            Kind::UserChanged(changed) => self.copy_user(&changed).await,
            Kind::Revoked(revoked) => self.revoke(revoked).await,
            Kind::ChannelChanged(_) => Ok(()),
        }
    }
}

fn away(err: MetadataError) -> ApplyError {
    ApplyError::Unavailable(err.to_string())
}

impl Copies {
    async fn copy_user(&self, changed: &UserChanged) -> Result<(), ApplyError> {
        let name = UserName::new(&changed.user)?;
        let home = Region::new(&changed.home_region)?;
        let local = self.regions.local();
        if home == *local.region {
            return Ok(());
        }
        let Some(home) = self.regions.get(&home) else {
            return Err(ApplyError::Unreadable(format!(
                "{home} is not a region of this deployment"
            )));
        };
        let copy = local.metadata.user(&name).await.map_err(away)?;
        if copy.is_some_and(|copy| copy.version >= changed.version) {
            return Ok(());
        }
        if let Some(user) = home.metadata.user(&name).await.map_err(away)? {
            local.metadata.copy_user(user).await.map_err(away)?;
        }
        Ok(())
    }

    async fn revoke(&self, revoked: Revoked) -> Result<(), ApplyError> {
        let user = UserName::new(&revoked.user)?;
        let family = Some(revoked.family_id.as_str()).filter(|id| !id.is_empty());
        let revocation = Revocation {
            user,
            family: family.map(TokenFamilyId::from_text),
            issued_until: revoked.issued_until_ms,
            forget_after: revoked.forget_after_ms,
        };
        let noted = self.revocations.revoke(revocation).await;
        noted.map_err(|err: RevocationsUnavailable| ApplyError::Unavailable(err.to_string()))
    }
}
