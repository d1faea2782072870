//! Copies what other regions decide into the own region's store, led by control events.
//!
//! An event only says that a record has changed; the record is read from its home region. So events
//! may repeat and overtake each other: the store never goes back to an older version.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_control::{Apply, ApplyError};
use infrachat_metadata::{Metadata, MetadataError};
use infrachat_proto::bus::v1::{ChannelChanged, UserChanged, control_event::Kind};
use infrachat_types::{ChannelName, Region, UserName};

/// A store that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps a region's copies.
#[derive(Debug)]
pub(crate) struct Replicator {
    pub(crate) region: Region,
    pub(crate) store: Arc<dyn Metadata>,
    pub(crate) stores: BTreeMap<Region, Arc<dyn Metadata>>,
}

#[async_trait]
impl Apply for Replicator {
    async fn apply(&self, kind: Kind) -> Result<(), ApplyError> {
        match kind {
            Kind::ChannelChanged(change) => self.copy_channel(change).await,
            Kind::UserChanged(change) => self.copy_user(change).await,
            // Revocations are not a matter of this store.
            Kind::Revoked(_) => Ok(()),
        }
    }
}

impl Replicator {
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
}

async fn bounded<T>(call: impl Future<Output = Result<T, MetadataError>>) -> Result<T, ApplyError> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|err| ApplyError::Unavailable(err.to_string())),
        Err(_) => Err(ApplyError::Unavailable(format!(
            "the store did not answer in {TIMEOUT:?}"
        ))),
    }
}
