//! Channels on Firestore.

use async_trait::async_trait;
use infrachat_types::{Channel, ChannelName, Region, SlowReaderPolicy, UserName, Visibility};
use serde::{Deserialize, Serialize};

use super::{
    FirestoreMetadata,
    calls::{CallError, If, put},
    documents::Damaged,
    query::{NAME, Operator, Query, Sort},
};
use crate::{ChannelRecord, Channels, MetadataError};

const CHANNELS: &str = "channels";
/// Stands for every user in `listed_to`. No user has this name.
const EVERYONE: &str = "*";
/// Sorts behind everything that a channel's name may hold.
const LAST: char = '~';

#[derive(Serialize, Deserialize)]
struct StoredChannel {
    channel: Description,
    members: Vec<String>,
    /// The users who find it in their list: one index for public and private channels, so that a
    /// page is one query.
    listed_to: Vec<String>,
}

/// What a list shows.
#[derive(Deserialize)]
struct ListedChannel {
    channel: Description,
}

#[derive(Serialize, Deserialize)]
struct Description {
    name: String,
    home_region: String,
    created_by: String,
    created_at: i64,
    #[serde(with = "VisibilityText")]
    visibility: Visibility,
    topic: String,
    #[serde(with = "SlowReaderText")]
    slow_reader: SlowReaderPolicy,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Visibility", rename_all = "snake_case")]
enum VisibilityText {
    Public,
    Private,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SlowReaderPolicy", rename_all = "snake_case")]
enum SlowReaderText {
    DropOldest,
    Disconnect,
}

impl From<&ChannelRecord> for StoredChannel {
    fn from(record: &ChannelRecord) -> Self {
        let ChannelRecord { channel, members } = record;
        let members: Vec<_> = members.iter().map(UserName::to_string).collect();
        Self {
            channel: Description {
                name: channel.name.to_string(),
                home_region: channel.home_region.to_string(),
                created_by: channel.created_by.to_string(),
                created_at: channel.created_at,
                visibility: channel.visibility,
                topic: channel.topic.clone(),
                slow_reader: channel.slow_reader,
                version: channel.version,
            },
            listed_to: match channel.visibility {
                Visibility::Public => vec![EVERYONE.to_owned()],
                Visibility::Private => members.clone(),
            },
            members,
        }
    }
}

impl StoredChannel {
    fn record(self) -> Result<ChannelRecord, Damaged> {
        let members = self.members.iter().map(|name| UserName::new(name));
        Ok(ChannelRecord {
            channel: self.channel.channel()?,
            members: members.collect::<Result<_, _>>()?,
        })
    }
}

impl ListedChannel {
    fn channel(self) -> Result<Channel, Damaged> {
        self.channel.channel()
    }
}

impl Description {
    fn channel(self) -> Result<Channel, Damaged> {
        Ok(Channel {
            name: ChannelName::new(&self.name)?,
            home_region: Region::new(&self.home_region)?,
            created_by: UserName::new(&self.created_by)?,
            created_at: self.created_at,
            visibility: self.visibility,
            topic: self.topic,
            slow_reader: self.slow_reader,
            version: self.version,
        })
    }
}

/// Whether any channel's name can begin so.
fn may_begin_a_name(prefix: &str) -> bool {
    matches!(prefix, "" | "#") || ChannelName::new(prefix).is_ok()
}

impl FirestoreMetadata {
    fn channel_name(&self, name: &str) -> String {
        self.calls.name(CHANNELS, name)
    }

    async fn try_copy_channel(&self, record: &ChannelRecord) -> Result<bool, CallError> {
        let name = self.channel_name(record.channel.name.as_str());
        let found = self.calls.read_one(&name).await?;
        if let Some(found) = &found
            && found.decode(StoredChannel::record)?.channel.version >= record.channel.version
        {
            return Ok(false);
        }
        let record = StoredChannel::from(record);
        let write = put(&name, &record, If::as_read(found.as_ref()))?;
        self.calls.commit(vec![write], None).await?;
        Ok(true)
    }

    async fn try_list_channels(
        &self,
        user: &UserName,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Channel>, CallError> {
        let mut query = Query::of(CHANNELS)
            .only(
                "listed_to",
                Operator::ArrayContainsAny,
                [EVERYONE, user.as_str()],
            )
            .sorted_by(NAME, Sort::Ascending)
            .select("channel")
            .limit(limit);
        if !prefix.is_empty() {
            query = query.until(self.channel_name(&format!("{prefix}{LAST}")));
        }
        query = match after {
            Some(after) => query.behind(self.channel_name(after)),
            None if prefix.is_empty() => query,
            None => query.from(self.channel_name(prefix)),
        };
        let found = self.calls.query(None, query.into()).await?;
        let channels = found
            .iter()
            .map(|found| found.decode(ListedChannel::channel));
        channels.collect()
    }
}

#[async_trait]
impl Channels for FirestoreMetadata {
    async fn create_channel(&self, record: ChannelRecord) -> Result<(), MetadataError> {
        let name = self.channel_name(record.channel.name.as_str());
        let what = || format!("the channel {}", record.channel.name);
        self.create(&name, &StoredChannel::from(&record), what)
            .await
    }

    async fn channel(&self, name: &ChannelName) -> Result<Option<ChannelRecord>, MetadataError> {
        let name = self.channel_name(name.as_str());
        let attempt = || async {
            let found = self.calls.read_one(&name).await?;
            found
                .map(|found| found.decode(StoredChannel::record))
                .transpose()
        };
        self.calls.run(attempt).await
    }

    async fn copy_channel(&self, record: ChannelRecord) -> Result<bool, MetadataError> {
        self.calls.run(|| self.try_copy_channel(&record)).await
    }

    async fn list_channels(
        &self,
        user: &UserName,
        prefix: &str,
        after: Option<&ChannelName>,
        limit: usize,
    ) -> Result<Vec<Channel>, MetadataError> {
        let after = after
            .map(ChannelName::as_str)
            .filter(|after| *after >= prefix);
        let past_the_prefix = after.is_some_and(|after| !after.starts_with(prefix));
        if limit == 0 || past_the_prefix || !may_begin_a_name(prefix) {
            return Ok(Vec::new());
        }
        self.calls
            .run(|| self.try_list_channels(user, prefix, after, limit))
            .await
    }
}
