//! Channels and who belongs to them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use infrachat_types::{Channel, ChannelName, UserName};

use crate::MetadataError;

/// A channel and, if it is private, its members (its creator included).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRecord {
    /// The channel.
    pub channel: Channel,
    /// Who belongs to it; only asked of private channels. Bounded: at most 1,000.
    pub members: BTreeSet<UserName>,
}

/// Channels of a region, and its copies of other regions' channels.
#[async_trait]
pub trait Channels {
    /// Adds a channel. Of any number of calls at once for one name, exactly one succeeds; the others
    /// get [`MetadataError::Exists`].
    async fn create_channel(&self, record: ChannelRecord) -> Result<(), MetadataError>;

    /// A channel, or this region's copy.
    async fn channel(&self, name: &ChannelName) -> Result<Option<ChannelRecord>, MetadataError>;

    /// Takes a copy from the home region. An older version than the one here changes nothing;
    /// answers whether it was taken.
    async fn copy_channel(&self, record: ChannelRecord) -> Result<bool, MetadataError>;

    /// The channels that a user may join (public ones, and private ones they belong to) by name,
    /// with the prefix, after a name, at most `limit`.
    async fn list_channels(
        &self,
        user: &UserName,
        prefix: &str,
        after: Option<&ChannelName>,
        limit: usize,
    ) -> Result<Vec<Channel>, MetadataError>;
}
