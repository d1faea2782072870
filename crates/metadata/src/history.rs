//! A region's history: every message once, in two orders.
//!
//! By `message_id`, the same in every region; and by (epoch, offset), the order in which this
//! region's owners appended them, which resuming follows exactly.

use async_trait::async_trait;
use infrachat_types::{ChannelName, Epoch, Identity, Message, MessageId, Offset, OriginId};

use crate::MetadataError;

/// A message as a region's history keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The message.
    pub message: Message,
    /// The ownership that appended it here.
    pub epoch: Epoch,
    /// Its number in the channel's log under that ownership.
    pub offset: Offset,
    /// Who put it on the bus.
    pub origin: OriginId,
    /// Its number there, dense by origin and channel.
    pub origin_seq: u64,
}

/// Which part of a channel's history, by `message_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The newest ones before an id.
    Before(MessageId),
    /// The oldest ones after an id.
    After(MessageId),
}

/// A part of a channel's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    /// Oldest first.
    pub entries: Vec<HistoryEntry>,
    /// There are more in the direction that was asked.
    pub more: bool,
}

/// The history of a region.
#[async_trait]
pub trait History {
    /// Adds messages of one partition, all or none, in one transaction that fails with
    /// [`MetadataError::Fenced`] unless `epoch` still owns the partition.
    ///
    /// A partition that was released, or never taken, is owned under no epoch.
    ///
    /// A message whose identity is there already is not added again: the copy with the smaller
    /// `message_id` is kept whole, at the first one's place (epoch and offset) in append order.
    async fn append_history(
        &self,
        partition: u32,
        epoch: Epoch,
        entries: &[HistoryEntry],
    ) -> Result<(), MetadataError>;

    /// A page by `message_id`.
    async fn history(
        &self,
        channel: &ChannelName,
        direction: Direction,
        limit: usize,
    ) -> Result<HistoryPage, MetadataError>;

    /// The oldest `limit` entries after a place in append order.
    async fn history_appended_after(
        &self,
        channel: &ChannelName,
        epoch: Epoch,
        offset: Offset,
        limit: usize,
    ) -> Result<HistoryPage, MetadataError>;

    /// The newest `limit` entries in append order, oldest first.
    async fn history_tail(
        &self,
        channel: &ChannelName,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, MetadataError>;

    /// The message with this identity, if history has it.
    async fn find_message(
        &self,
        identity: &Identity,
    ) -> Result<Option<HistoryEntry>, MetadataError>;
}
