//! Who may be in a channel: its record, cached for a moment.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use infrachat_metadata::{ChannelRecord, Metadata, MetadataError};
use infrachat_proto::Refusal;
use infrachat_types::{ChannelName, ErrorCode, Region, UserName, Visibility};
use tokio::time::Instant;

use crate::parts::in_time;

/// How long a record is taken as it was read; a control event drops it earlier.
const FRESH: Duration = Duration::from_secs(30);
/// Records kept.
const CAPACITY: usize = 100_000;

/// The channel records this shard has lately needed.
#[derive(Debug, Default)]
pub(crate) struct Access {
    known: Mutex<HashMap<ChannelName, (Arc<ChannelRecord>, Instant)>>,
}

impl Access {
    /// The channel, if the user may be in it.
    pub(crate) async fn check(
        &self,
        name: &ChannelName,
        user: &UserName,
        (region, stores): (&Region, &BTreeMap<Region, Arc<dyn Metadata>>),
    ) -> Result<Arc<ChannelRecord>, Refusal> {
        let record = match self.fresh(name) {
            Some(record) => record,
            None => match in_time(read(name, region, stores)).await {
                Ok(Some(record)) => self.keep(name, record),
                Ok(None) => {
                    let text = format!("there is no channel {name}: create it first");
                    return Err(Refusal::new(ErrorCode::ChannelNotFound, text));
                }
                // An old answer is better than none while the store is away.
                Err(err) => self.stale(name).ok_or_else(|| unavailable(&err))?,
            },
        };
        match record.channel.visibility {
            Visibility::Private if !record.members.contains(user) => {
                let text = format!(
                    "{name} is private, and {user} is not a member: ask {} to be added",
                    record.channel.created_by
                );
                Err(Refusal::new(ErrorCode::NotMember, text))
            }
            _ => Ok(record),
        }
    }

    /// The record was changed: read it anew when it is next needed.
    pub(crate) fn forget(&self, name: &ChannelName) {
        self.lock().remove(name);
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<ChannelName, (Arc<ChannelRecord>, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self, name: &ChannelName) -> Option<Arc<ChannelRecord>> {
        self.lock()
            .get(name)
            .filter(|(_, read)| read.elapsed() < FRESH)
            .map(|(record, _)| Arc::clone(record))
    }

    fn stale(&self, name: &ChannelName) -> Option<Arc<ChannelRecord>> {
        self.lock().get(name).map(|(record, _)| Arc::clone(record))
    }

    fn keep(&self, name: &ChannelName, record: ChannelRecord) -> Arc<ChannelRecord> {
        let record = Arc::new(record);
        let mut known = self.lock();
        if known.len() >= CAPACITY {
            known.retain(|_, (_, read)| read.elapsed() < FRESH);
        }
        if known.len() < CAPACITY {
            known.insert(name.clone(), (Arc::clone(&record), Instant::now()));
        }
        record
    }
}

/// The region's copy, else the record of the channel's home region.
async fn read(
    name: &ChannelName,
    region: &Region,
    stores: &BTreeMap<Region, Arc<dyn Metadata>>,
) -> Result<Option<ChannelRecord>, MetadataError> {
    let own = match stores.get(region) {
        Some(store) => store.channel(name).await?,
        None => None,
    };
    match own {
        Some(record) => Ok(Some(record)),
        None => match home_of(name, stores).and_then(|home| stores.get(home)) {
            Some(home) => home.channel(name).await,
            None => Ok(None),
        },
    }
}

/// The region that decides about a channel of that name; none only where there are no regions.
pub(crate) fn home_of<'a, T>(
    name: &ChannelName,
    stores: &'a BTreeMap<Region, T>,
) -> Option<&'a Region> {
    let names: Vec<String> = stores.keys().map(ToString::to_string).collect();
    let home = infrachat_routing::home_region(name.as_str(), &names)?;
    stores.keys().find(|region| region.as_str() == home)
}

fn unavailable(err: &MetadataError) -> Refusal {
    Refusal::new(
        ErrorCode::Unavailable,
        format!("channels can't be looked up at the moment ({err}): try again"),
    )
    .retry_after(Duration::from_secs(1))
}

/// A channel's name from the wire.
pub(crate) fn channel_name(name: &str) -> Result<ChannelName, Refusal> {
    ChannelName::new(name).map_err(|err| Refusal::new(ErrorCode::BadChannelName, err.to_string()))
}
