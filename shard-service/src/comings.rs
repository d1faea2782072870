//! Comings and goings of a moment, told together.

use std::{collections::BTreeSet, time::Duration};

use infrachat_proto::chat::v1::{self as chat, server_event::Kind};
use infrachat_types::{ChannelName, UserName};

/// Changes wait this long for others, so that many at once are one event.
pub(crate) const BATCH: Duration = Duration::from_millis(50);
/// Names in one event; beyond, only the count is told.
const NAMES: usize = 200;

/// What has changed since the last event.
#[derive(Debug, Default)]
pub(crate) struct Comings {
    came: BTreeSet<UserName>,
    went: BTreeSet<UserName>,
    count: usize,
    due: bool,
}

impl Comings {
    /// Notes a change; answers whether it is the first since the last event.
    pub(crate) fn note(
        &mut self,
        came: Option<UserName>,
        went: Option<UserName>,
        count: usize,
    ) -> bool {
        self.count = count;
        if let Some(user) = came {
            self.went.remove(&user);
            self.came.insert(user);
        }
        if let Some(user) = went {
            self.came.remove(&user);
            self.went.insert(user);
        }
        !std::mem::replace(&mut self.due, true)
    }

    /// The changes as an entry of a batch.
    pub(crate) fn into_event(self, channel: &ChannelName) -> Kind {
        let names =
            |users: BTreeSet<UserName>| users.iter().take(NAMES).map(ToString::to_string).collect();
        Kind::Presence(chat::Presence {
            channel: channel.to_string(),
            came: names(self.came),
            went: names(self.went),
            present_count: u32::try_from(self.count).unwrap_or(u32::MAX),
            snapshot: false,
        })
    }
}
