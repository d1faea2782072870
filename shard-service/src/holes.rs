//! Holes in the numbers of an origin, and what fills them: the history of the origin's region.
//!
//! A publisher skips no number and the bus keeps the order, so a number that is missing did not come
//! and won't. Its region's history may have the message all the same.
//!
//! What the partition's former owner had acknowledged does not come either, whatever of the same time
//! still does, and is in history: so nothing is missing among messages from before this shard listened.

use std::{collections::HashMap, sync::Arc, time::Duration};

use infrachat_metadata::{Direction, HistoryEntry, Metadata, MetadataError};
use infrachat_types::{ChannelName, Message, MessageId, OriginId, Region, UnixMillis};
use tokio::time::Instant;

use crate::counted::COUNTED;

/// Origins remembered.
const ORIGINS: usize = 10_000;
/// How long a hole may take to be filled.
const LIMIT: Duration = Duration::from_secs(2);
/// How far ids may be from the moments they stand for, milliseconds: clocks differ, and ids of one origin
/// rise but for messages that were taken in at the same moment.
const SLACK: u64 = 5_000;
/// Most messages of history looked through for a hole.
const MOST: usize = 10_000;
const PAGE: usize = 1_000;

/// Notices holes in the numbers of each origin and channel.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// When this shard began to listen.
    began: u64,
    /// The newest number, and the moment of its message's id.
    newest: HashMap<(ChannelName, OriginId), (u64, u64)>,
}

/// Numbers that did not come.
#[derive(Debug)]
pub(crate) struct Hole {
    origin: OriginId,
    region: Region,
    after: u64,
    before: u64,
    /// Between these moments.
    millis: (u64, u64),
    noticed: Instant,
}

impl Numbers {
    /// Of who listens from now on.
    pub(crate) fn new(now: UnixMillis) -> Self {
        Self {
            began: u64::try_from(now).unwrap_or_default(),
            newest: HashMap::new(),
        }
    }

    /// Takes note of a message's number; answers the hole before it.
    pub(crate) fn check(
        &mut self,
        message: &Message,
        (origin, number): &(OriginId, u64),
    ) -> Option<Hole> {
        if *number == 0 {
            return None;
        }
        if self.newest.len() >= ORIGINS {
            self.newest.clear();
        }
        let millis = message.message_id.millis();
        let newest = self
            .newest
            .entry((message.channel.clone(), origin.clone()))
            .or_insert((*number, millis));
        let (after, since) = *newest;
        if *number > after {
            *newest = (*number, millis.max(since));
        }
        if *number <= after + 1 || since < self.began + SLACK {
            return None;
        }
        COUNTED.holes.increment(1);
        tracing::warn!(channel = %message.channel, %origin, after, before = number, "a hole in an origin's numbers");
        Some(Hole {
            origin: origin.clone(),
            region: message.region.clone(),
            after,
            before: *number,
            millis: (since.saturating_sub(SLACK), millis + SLACK),
            noticed: Instant::now(),
        })
    }
}

impl Hole {
    /// How many messages are missing.
    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.before - self.after - 1).unwrap_or(usize::MAX)
    }

    /// Whose messages they are.
    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    /// Whether it is given up if it is not filled now.
    pub(crate) fn is_late(&self) -> bool {
        self.noticed.elapsed() >= LIMIT
    }

    /// What the history of the origin's region has of it, in the origin's order.
    pub(crate) async fn find(
        &self,
        channel: &ChannelName,
        store: &Arc<dyn Metadata>,
    ) -> Result<Vec<HistoryEntry>, MetadataError> {
        let mut found = Vec::new();
        let mut after = MessageId::floor_of(self.millis.0);
        let mut looked_at = 0;
        while found.len() < self.size() && looked_at < MOST {
            let page = store
                .history(channel, Direction::After(after), PAGE)
                .await?;
            looked_at += page.entries.len();
            let last = page.entries.last().map(|entry| entry.message.message_id);
            let missing = page.entries.into_iter().filter(|entry| {
                entry.origin == self.origin
                    && (self.after + 1..self.before).contains(&entry.origin_seq)
            });
            found.extend(missing);
            match last {
                Some(last) if page.more && last.millis() <= self.millis.1 => after = last,
                _ => break,
            }
        }
        found.sort_unstable_by_key(|entry| entry.origin_seq);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use infrachat_types::{ClientMessageId, SessionId, UserName};

    use super::*;

    fn message(channel: &str) -> Message {
        Message {
            channel: ChannelName::new(channel).expect("valid"),
            message_id: MessageId::floor_of(60_000),
            sender: UserName::new("alice").expect("valid"),
            client_message_id: ClientMessageId::random(),
            body: bytes::Bytes::new(),
            published_at: 0,
            region: Region::new("us-west1").expect("valid"),
            session_id: SessionId::from_text("s"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn holes_are_noticed_once_by_origin_and_channel() {
        let mut numbers = Numbers::new(50_000);
        let [one, other] = ["a", "b"].map(OriginId::from_text);
        let mut missing = |channel: &str, origin: &OriginId, number| {
            let hole = numbers.check(&message(channel), &(origin.clone(), number));
            hole.map_or(0, |hole| hole.size())
        };
        // What an origin said before this shard listened is no hole.
        assert_eq!(missing("#one", &one, 7), 0);
        assert_eq!(missing("#one", &one, 8), 0);
        assert_eq!(missing("#two", &one, 20), 0);
        assert_eq!(missing("#one", &other, 1), 0);
        assert_eq!(missing("#one", &one, 12), 3);
        // What came again, or came late, is none either.
        assert_eq!(missing("#one", &one, 9), 0);
        assert_eq!(missing("#one", &one, 12), 0);
        assert_eq!(missing("#one", &one, 13), 0);
        assert_eq!(missing("#one", &other, 3), 1);
        // Without a number.
        assert_eq!(missing("#one", &one, 0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_former_owner_may_have_acknowledged_is_no_hole() {
        let mut numbers = Numbers::new(56_000);
        let origin = OriginId::from_text("a");
        for number in [1, 3] {
            let hole = numbers.check(&message("#one"), &(origin.clone(), number));
            assert!(hole.is_none());
        }
    }
}
