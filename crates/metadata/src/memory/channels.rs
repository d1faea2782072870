//! Channels in memory.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use async_trait::async_trait;
use infrachat_types::{Channel, ChannelName, UserName, Visibility};

use super::{MemoryMetadata, lock};
use crate::{ChannelRecord, Channels, MetadataError};

#[derive(Default)]
pub(super) struct ChannelTables {
    records: HashMap<ChannelName, ChannelRecord>,
    // Names as text, since a prefix is no valid name.
    public: BTreeSet<Name>,
    private_of: HashMap<UserName, BTreeSet<Name>>,
}

/// A channel's name that can be looked up by any text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name(ChannelName);

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

impl ChannelTables {
    fn put(&mut self, record: ChannelRecord) {
        let name = record.channel.name.clone();
        if let Some(former) = self.records.remove(&name) {
            self.unlist(&former);
        }
        match record.channel.visibility {
            Visibility::Public => {
                self.public.insert(Name(name.clone()));
            }
            Visibility::Private => {
                for member in &record.members {
                    let names = self.private_of.entry(member.clone()).or_default();
                    names.insert(Name(name.clone()));
                }
            }
        }
        self.records.insert(name, record);
    }

    fn unlist(&mut self, record: &ChannelRecord) {
        let name = record.channel.name.as_str();
        self.public.remove(name);
        for member in &record.members {
            if let Some(names) = self.private_of.get_mut(member) {
                names.remove(name);
                if names.is_empty() {
                    self.private_of.remove(member);
                }
            }
        }
    }
}

#[async_trait]
impl Channels for MemoryMetadata {
    async fn create_channel(&self, record: ChannelRecord) -> Result<(), MetadataError> {
        self.reach().await?;
        let mut tables = lock(&self.channels);
        let name = &record.channel.name;
        if tables.records.contains_key(name) {
            return Err(MetadataError::Exists(format!("the channel {name}")));
        }
        tables.put(record);
        Ok(())
    }

    async fn channel(&self, name: &ChannelName) -> Result<Option<ChannelRecord>, MetadataError> {
        self.reach().await?;
        Ok(lock(&self.channels).records.get(name).cloned())
    }

    async fn copy_channel(&self, record: ChannelRecord) -> Result<bool, MetadataError> {
        self.reach().await?;
        let mut tables = lock(&self.channels);
        let newer = tables
            .records
            .get(&record.channel.name)
            .is_none_or(|stored| stored.channel.version < record.channel.version);
        if newer {
            tables.put(record);
        }
        Ok(newer)
    }

    async fn list_channels(
        &self,
        user: &UserName,
        prefix: &str,
        after: Option<&ChannelName>,
        limit: usize,
    ) -> Result<Vec<Channel>, MetadataError> {
        self.reach().await?;
        let tables = lock(&self.channels);
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let first = |names: &BTreeSet<Name>| -> Vec<ChannelName> {
            names
                .range::<str, _>((start, Bound::Unbounded))
                .map(|Name(name)| name)
                .take_while(|name| name.as_str().starts_with(prefix))
                .take(limit)
                .cloned()
                .collect()
        };
        let mut names = first(&tables.public);
        names.extend(tables.private_of.get(user).map(first).unwrap_or_default());
        names.sort_unstable();
        Ok(names
            .iter()
            .take(limit)
            .filter_map(|name| tables.records.get(name))
            .map(|record| record.channel.clone())
            .collect())
    }
}
