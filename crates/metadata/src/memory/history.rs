//! History in memory: one map of entries in append order, and two indexes into it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{Excluded, Unbounded},
};

use async_trait::async_trait;
use infrachat_types::{ChannelName, ClientMessageId, Epoch, Identity, MessageId, Offset, UserName};

use super::{MemoryMetadata, lock};
use crate::{Direction, History, HistoryEntry, HistoryPage, MetadataError};

/// A place in append order. The number tells entries apart that claim the same epoch and offset.
type Place = (Epoch, Offset, u64);

const FIRST: Place = (Epoch(0), Offset(0), 0);
const LAST: Place = (Epoch(u64::MAX), Offset(u64::MAX), u64::MAX);

/// One channel's history.
#[derive(Default)]
pub(super) struct ChannelHistory {
    entries: BTreeMap<Place, HistoryEntry>,
    by_message_id: BTreeSet<(MessageId, Place)>,
    by_identity: HashMap<(UserName, ClientMessageId), Place>,
    added: u64,
}

impl ChannelHistory {
    fn append(&mut self, entry: &HistoryEntry) {
        let key = identity_key(entry);
        let message_id = entry.message.message_id;
        if let Some(place) = self.by_identity.get(&key)
            && let Some(kept) = self.entries.get_mut(place)
        {
            if message_id < kept.message.message_id {
                self.by_message_id
                    .remove(&(kept.message.message_id, *place));
                self.by_message_id.insert((message_id, *place));
                *kept = HistoryEntry {
                    epoch: kept.epoch,
                    offset: kept.offset,
                    ..entry.clone()
                };
            }
            return;
        }
        self.added += 1;
        let place = (entry.epoch, entry.offset, self.added);
        self.by_identity.insert(key, place);
        self.by_message_id.insert((message_id, place));
        self.entries.insert(place, entry.clone());
    }

    fn trim(&mut self, limit: usize) {
        while self.entries.len() > limit
            && let Some((place, entry)) = self.entries.pop_first()
        {
            self.by_message_id
                .remove(&(entry.message.message_id, place));
            self.by_identity.remove(&identity_key(&entry));
        }
    }

    fn page(&self, direction: Direction, limit: usize) -> HistoryPage {
        let at = |(_, place): &(MessageId, Place)| self.entries.get(place);
        match direction {
            Direction::After(id) => {
                let range = self.by_message_id.range((Excluded((id, LAST)), Unbounded));
                page(range.filter_map(at), limit)
            }
            Direction::Before(id) => {
                let range = self.by_message_id.range(..(id, FIRST)).rev();
                let mut page = page(range.filter_map(at), limit);
                page.entries.reverse();
                page
            }
        }
    }

    fn appended_after(&self, epoch: Epoch, offset: Offset, limit: usize) -> HistoryPage {
        let start = Excluded((epoch, offset, u64::MAX));
        let range = self.entries.range((start, Unbounded));
        page(range.map(|(_, entry)| entry), limit)
    }

    fn tail(&self, limit: usize) -> Vec<HistoryEntry> {
        let mut tail: Vec<_> = self.entries.values().rev().take(limit).cloned().collect();
        tail.reverse();
        tail
    }
}

fn identity_key(entry: &HistoryEntry) -> (UserName, ClientMessageId) {
    let message = &entry.message;
    (message.sender.clone(), message.client_message_id)
}

fn page<'a>(entries: impl Iterator<Item = &'a HistoryEntry>, limit: usize) -> HistoryPage {
    let mut entries = entries;
    HistoryPage {
        entries: entries.by_ref().take(limit).cloned().collect(),
        more: entries.next().is_some(),
    }
}

#[async_trait]
impl History for MemoryMetadata {
    async fn append_history(
        &self,
        partition: u32,
        epoch: Epoch,
        entries: &[HistoryEntry],
    ) -> Result<(), MetadataError> {
        self.reach().await?;
        // Held to the end, so that nobody takes the partition between the check and the last entry.
        let routing = lock(&self.routing);
        routing.check_owned(partition, epoch)?;
        let mut channels = lock(&self.history);
        for entry in entries {
            let channel = channels.entry(entry.message.channel.clone()).or_default();
            channel.append(entry);
            channel.trim(self.history_limit);
        }
        Ok(())
    }

    async fn history(
        &self,
        channel: &ChannelName,
        direction: Direction,
        limit: usize,
    ) -> Result<HistoryPage, MetadataError> {
        self.reach().await?;
        let channels = lock(&self.history);
        let channel = channels.get(channel);
        Ok(channel.map_or_else(HistoryPage::default, |channel| {
            channel.page(direction, limit)
        }))
    }

    async fn history_appended_after(
        &self,
        channel: &ChannelName,
        epoch: Epoch,
        offset: Offset,
        limit: usize,
    ) -> Result<HistoryPage, MetadataError> {
        self.reach().await?;
        let channels = lock(&self.history);
        let channel = channels.get(channel);
        Ok(channel.map_or_else(HistoryPage::default, |channel| {
            channel.appended_after(epoch, offset, limit)
        }))
    }

    async fn history_tail(
        &self,
        channel: &ChannelName,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, MetadataError> {
        self.reach().await?;
        let channels = lock(&self.history);
        let channel = channels.get(channel);
        Ok(channel.map_or_else(Vec::new, |channel| channel.tail(limit)))
    }

    async fn find_message(
        &self,
        identity: &Identity,
    ) -> Result<Option<HistoryEntry>, MetadataError> {
        self.reach().await?;
        let channels = lock(&self.history);
        let key = (identity.sender.clone(), identity.client_message_id);
        Ok(channels.get(&identity.channel).and_then(|channel| {
            let place = channel.by_identity.get(&key)?;
            channel.entries.get(place).cloned()
        }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use infrachat_types::{Message, OriginId, Region, SessionId};

    use super::*;

    fn said(identity: u8, millis: u64, offset: u64) -> HistoryEntry {
        HistoryEntry {
            message: Message {
                channel: ChannelName::new("#general").expect("valid"),
                message_id: MessageId::floor_of(millis),
                sender: UserName::new("alice").expect("valid"),
                client_message_id: ClientMessageId::from_bytes(&[identity; 16]).expect("16 bytes"),
                body: Bytes::new(),
                published_at: 1,
                region: Region::new("us-west1").expect("valid"),
                session_id: SessionId::from_text("session"),
            },
            epoch: Epoch(1),
            offset: Offset(offset),
            origin: OriginId::from_text("origin"),
            origin_seq: offset,
        }
    }

    #[test]
    fn the_indexes_are_bounded_as_the_entries_are() {
        let mut channel = ChannelHistory::default();
        for offset in 0..500_u64 {
            // Identities come back while they are kept, and after they were dropped.
            let identity = u8::try_from(offset * offset % 31).expect("small");
            channel.append(&said(identity, offset * 37 % 101, offset));
            channel.trim(5);
            assert!(channel.entries.len() <= 5);
            assert_eq!(channel.by_message_id.len(), channel.entries.len());
            assert_eq!(channel.by_identity.len(), channel.entries.len());
        }
    }
}
