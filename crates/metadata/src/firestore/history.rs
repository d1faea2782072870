//! History on Firestore: a collection a channel, a document a message.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use firestore::FirestoreTimestamp;
use infrachat_types::{
    ChannelName, ClientMessageId, Epoch, Identity, Message, MessageId, Offset, OriginId, Region,
    SessionId, UserName,
};
use serde::{Deserialize, Serialize};

use super::{
    FirestoreMetadata,
    calls::{At, CallError, Found, If, put},
    documents::{Damaged, Place, moment},
    query::{Operator, Query, Sort},
    routing::check_owned,
};
use crate::{Direction, History, HistoryEntry, HistoryPage, MetadataError};

/// One document a channel, which itself is never written: its messages are below it.
const HISTORY: &str = "channels-history";
const MESSAGES: &str = "messages";

/// A message without its channel, which is in the document's name.
#[derive(Serialize, Deserialize)]
struct StoredMessage {
    /// As text, which sorts as the id does.
    message_id: String,
    /// As text, which sorts as append order does.
    place: String,
    sender: String,
    client_message_id: Bytes,
    body: Bytes,
    published_at: i64,
    region: String,
    session_id: String,
    origin: String,
    origin_seq: u64,
    expires_at: FirestoreTimestamp,
}

impl StoredMessage {
    fn new(entry: &HistoryEntry, ttl: Duration) -> Self {
        let message = &entry.message;
        let place = Place {
            epoch: entry.epoch,
            offset: entry.offset,
        };
        let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        Self {
            message_id: message.message_id.to_string(),
            place: place.to_string(),
            sender: message.sender.to_string(),
            client_message_id: Bytes::copy_from_slice(message.client_message_id.as_bytes()),
            body: message.body.clone(),
            published_at: message.published_at,
            region: message.region.to_string(),
            session_id: message.session_id.to_string(),
            origin: entry.origin.to_string(),
            origin_seq: entry.origin_seq,
            expires_at: moment(message.published_at.saturating_add(ttl)),
        }
    }

    fn entry(self, channel: &ChannelName) -> Result<HistoryEntry, Damaged> {
        let Place { epoch, offset } = self.place.parse()?;
        Ok(HistoryEntry {
            message: Message {
                channel: channel.clone(),
                message_id: self.message_id.parse()?,
                sender: UserName::new(&self.sender)?,
                client_message_id: ClientMessageId::from_bytes(&self.client_message_id)?,
                body: self.body,
                published_at: self.published_at,
                region: Region::new(&self.region)?,
                session_id: SessionId::from_text(&self.session_id),
            },
            epoch,
            offset,
            origin: OriginId::from_text(&self.origin),
            origin_seq: self.origin_seq,
        })
    }
}

fn entry(found: &Found, channel: &ChannelName) -> Result<HistoryEntry, CallError> {
    found.decode(|stored: StoredMessage| stored.entry(channel))
}

/// Puts a new copy of a message to the one that is kept, if any: what is to be kept from now on, or
/// none if nothing changes.
fn merge(kept: Option<&HistoryEntry>, new: &HistoryEntry) -> Option<HistoryEntry> {
    match kept {
        None => Some(new.clone()),
        Some(kept) if new.message.message_id < kept.message.message_id => Some(HistoryEntry {
            epoch: kept.epoch,
            offset: kept.offset,
            ..new.clone()
        }),
        Some(_) => None,
    }
}

fn page(mut entries: Vec<HistoryEntry>, limit: usize) -> HistoryPage {
    let more = entries.len() > limit;
    entries.truncate(limit);
    HistoryPage { entries, more }
}

impl FirestoreMetadata {
    /// A channel's messages are below this.
    fn history_name(&self, channel: &ChannelName) -> String {
        self.calls.name(HISTORY, channel.as_str())
    }

    /// A message's document, the same for all copies of it.
    fn message_name(&self, identity: &Identity) -> String {
        let Identity {
            channel,
            sender,
            client_message_id,
        } = identity;
        let parent = self.history_name(channel);
        // A sender's name has no '~'.
        format!("{parent}/{MESSAGES}/{sender}~{client_message_id}")
    }

    async fn try_append(
        &self,
        partition: u32,
        epoch: Epoch,
        entries: &[(String, &HistoryEntry)],
    ) -> Result<(), CallError> {
        let partition_name = self.partition_name(partition);
        let mut names: BTreeSet<_> = entries.iter().map(|(name, _)| name.clone()).collect();
        names.insert(partition_name.clone());
        let read = self.calls.read(names.into_iter().collect(), At::Begin);
        let read = read.await?;
        let owned = check_owned(partition, epoch, read.found.get(&partition_name));
        if owned.is_err() {
            self.calls.roll_back(read.transaction).await;
            return owned;
        }

        let mut changed: BTreeMap<&String, HistoryEntry> = BTreeMap::new();
        for (name, new) in entries {
            let stored = match read.found.get(name) {
                Some(found) if !changed.contains_key(name) => {
                    Some(entry(found, &new.message.channel)?)
                }
                _ => None,
            };
            let kept = changed.get(name).or(stored.as_ref());
            if let Some(merged) = merge(kept, new) {
                changed.insert(name, merged);
            }
        }
        if changed.is_empty() {
            self.calls.roll_back(read.transaction).await;
            return Ok(());
        }
        let writes = changed.iter().map(|(name, entry)| {
            let stored = StoredMessage::new(entry, self.config.history_ttl);
            put(name, &stored, If::Always)
        });
        let writes = writes.collect::<Result<_, _>>()?;
        self.calls.commit(writes, Some(read.transaction)).await
    }

    /// The first so many messages that a query finds. A message is in one document, whose name is its
    /// identity: another that says the same, since somebody copied it, is passed over.
    async fn query_history(
        &self,
        channel: &ChannelName,
        count: usize,
        query: impl Fn(Query) -> Query + Send + Sync,
    ) -> Result<Vec<HistoryEntry>, MetadataError> {
        let mut limit = count;
        loop {
            let attempt = || async {
                let query = query(Query::of(MESSAGES)).limit(limit).into();
                let parent = Some(self.history_name(channel));
                let found = self.calls.query(parent, query).await?;
                let entries = found.iter().filter_map(|found| {
                    let entry = entry(found, channel);
                    let copy = |entry: &HistoryEntry| {
                        found.name() != self.message_name(&entry.message.identity())
                    };
                    let is_copy = entry.as_ref().is_ok_and(copy);
                    if is_copy {
                        tracing::error!(
                            document = found.name(),
                            "a copy of a message is passed over: delete it"
                        );
                    }
                    (!is_copy).then_some(entry)
                });
                let entries: Vec<_> = entries.collect::<Result<_, CallError>>()?;
                Ok((found.len(), entries))
            };
            let (found, mut entries) = self.calls.run(attempt).await?;
            if found < limit || entries.len() >= count {
                entries.truncate(count);
                return Ok(entries);
            }
            // Each copy took the place of a message.
            limit = count + 2 * (found - entries.len());
        }
    }
}

#[async_trait]
impl History for FirestoreMetadata {
    async fn append_history(
        &self,
        partition: u32,
        epoch: Epoch,
        entries: &[HistoryEntry],
    ) -> Result<(), MetadataError> {
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| (self.message_name(&entry.message.identity()), entry))
            .collect();
        let attempt = || self.try_append(partition, epoch, &entries);
        self.calls.run(attempt).await
    }

    async fn history(
        &self,
        channel: &ChannelName,
        direction: Direction,
        limit: usize,
    ) -> Result<HistoryPage, MetadataError> {
        let (operator, id, sort): (_, MessageId, _) = match direction {
            Direction::Before(id) => (Operator::LessThan, id, Sort::Descending),
            Direction::After(id) => (Operator::GreaterThan, id, Sort::Ascending),
        };
        let entries = self
            .query_history(channel, limit.saturating_add(1), |query| {
                query
                    .only("message_id", operator, id.to_string())
                    .sorted_by("message_id", sort)
            })
            .await?;
        let mut page = page(entries, limit);
        if matches!(direction, Direction::Before(_)) {
            page.entries.reverse();
        }
        Ok(page)
    }

    async fn history_appended_after(
        &self,
        channel: &ChannelName,
        epoch: Epoch,
        offset: Offset,
        limit: usize,
    ) -> Result<HistoryPage, MetadataError> {
        let place = Place { epoch, offset };
        let entries = self
            .query_history(channel, limit.saturating_add(1), |query| {
                query
                    .only("place", Operator::GreaterThan, place.to_string())
                    .sorted_by("place", Sort::Ascending)
            })
            .await?;
        Ok(page(entries, limit))
    }

    async fn history_tail(
        &self,
        channel: &ChannelName,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, MetadataError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let newest = |query: Query| query.sorted_by("place", Sort::Descending);
        let mut entries = self.query_history(channel, limit, newest).await?;
        entries.reverse();
        Ok(entries)
    }

    async fn find_message(
        &self,
        identity: &Identity,
    ) -> Result<Option<HistoryEntry>, MetadataError> {
        let name = self.message_name(identity);
        let attempt = || async {
            let found = self.calls.read_one(&name).await?;
            let found = found.map(|found| entry(&found, &identity.channel));
            found.transpose()
        };
        self.calls.run(attempt).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn said(millis: u64, offset: u64) -> HistoryEntry {
        HistoryEntry {
            message: Message {
                channel: ChannelName::new("#general").expect("valid"),
                message_id: MessageId::floor_of(millis),
                sender: UserName::new("alice").expect("valid"),
                client_message_id: ClientMessageId::from_bytes(&[7; 16]).expect("16 bytes"),
                body: Bytes::from_static(b"hello"),
                published_at: 1_790_000_000_000,
                region: Region::new("us-west1").expect("valid"),
                session_id: SessionId::from_text("session"),
            },
            epoch: Epoch(3),
            offset: Offset(offset),
            origin: OriginId::from_text("origin"),
            origin_seq: offset,
        }
    }

    #[test]
    fn a_message_ends_its_ttl_after_it_was_published() {
        let ends = |ttl| StoredMessage::new(&said(1, 1), ttl).expires_at.0;
        assert_eq!(ends(HOUR).as_millisecond(), 1_790_003_600_000);
        assert_eq!(ends(Duration::MAX), firestore::jiff::Timestamp::MAX);
    }

    #[test]
    fn a_stored_message_with_a_damaged_field_is_refused() {
        let channel = ChannelName::new("#general").expect("valid");
        let stored = || StoredMessage::new(&said(1, 1), HOUR);
        assert_eq!(stored().entry(&channel).expect("whole"), said(1, 1));
        for damage in [
            |stored: &mut StoredMessage| stored.place.clear(),
            |stored: &mut StoredMessage| stored.message_id.push('x'),
            |stored: &mut StoredMessage| stored.client_message_id.truncate(15),
            |stored: &mut StoredMessage| stored.sender.clear(),
        ] {
            let mut stored = stored();
            damage(&mut stored);
            assert!(stored.entry(&channel).is_err());
        }
    }
}
