//! The duplicate window of a channel: which messages it has lately seen, by identity.

use std::collections::{HashMap, VecDeque};

use infrachat_types::{ClientMessageId, Epoch, Message, MessageId, Offset, RegionTag, UserName};
use xxhash_rust::xxh3::xxh3_64;

/// The identity within a channel.
type Key = (UserName, ClientMessageId);

/// What is remembered of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The id it has here.
    pub(crate) message_id: MessageId,
    /// Where it is in the log.
    pub(crate) place: (Epoch, Offset),
    /// The region whose bus brought it.
    pub(crate) source: RegionTag,
    body_hash: u64,
}

impl Seen {
    /// Whether the body is the same as the one seen.
    pub(crate) fn same_body(&self, body: &[u8]) -> bool {
        self.body_hash == xxh3_64(body)
    }
}

/// Bounded: beyond its capacity it forgets the oldest, and remembers up to which moment it did.
#[derive(Debug)]
pub(crate) struct DuplicateWindow {
    seen: HashMap<Key, Seen>,
    order: VecDeque<Key>,
    capacity: usize,
    /// Messages up to this millisecond may have been forgotten.
    forgotten_until: u64,
}

impl DuplicateWindow {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            seen: HashMap::new(),
            order: VecDeque::new(),
            capacity,
            forgotten_until: 0,
        }
    }

    /// Says that everything up to this moment may exist without being known here.
    pub(crate) fn forget_until(&mut self, millis: u64) {
        self.forgotten_until = self.forgotten_until.max(millis);
    }

    pub(crate) fn get(
        &self,
        sender: &UserName,
        client_message_id: ClientMessageId,
    ) -> Option<Seen> {
        self.seen.get(&(sender.clone(), client_message_id)).copied()
    }

    /// Whether a message that is not in the window may still have been seen: history knows.
    pub(crate) fn may_have_forgotten(&self, message_id: MessageId) -> bool {
        message_id.millis() <= self.forgotten_until
    }

    /// Another copy of a message that is in the window has a smaller id.
    pub(crate) fn correct(&mut self, copy: &Message) {
        let key = (copy.sender.clone(), copy.client_message_id);
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.message_id = seen.message_id.min(copy.message_id);
        }
    }

    pub(crate) fn insert(&mut self, message: &Message, place: (Epoch, Offset)) {
        let key = (message.sender.clone(), message.client_message_id);
        let seen = Seen {
            message_id: message.message_id,
            place,
            source: (&message.region).into(),
            body_hash: xxh3_64(&message.body),
        };
        if self.seen.insert(key.clone(), seen).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
            && let Some(forgotten) = self.seen.remove(&oldest)
        {
            self.forget_until(forgotten.message_id.millis());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use infrachat_types::{ChannelName, Region, SessionId};
    use proptest::prelude::*;

    use super::*;

    fn message(id: u8, millis: u64) -> Message {
        Message {
            channel: ChannelName::new("#c").expect("valid"),
            message_id: MessageId::floor_of(millis),
            sender: UserName::new("alice").expect("valid"),
            client_message_id: ClientMessageId::from_bytes(&[id; 16]).expect("16 bytes"),
            body: Bytes::from(vec![id]),
            published_at: 0,
            region: Region::new("us-west1").expect("valid"),
            session_id: SessionId::from_text("s"),
        }
    }

    proptest! {
        /// A message once inserted is known, or the window says that it may have forgotten it.
        #[test]
        fn nothing_is_forgotten_in_silence(inserts in prop::collection::vec((any::<u8>(), 0_u64..100), 1..200)) {
            let mut window = DuplicateWindow::new(10);
            let mut first = HashMap::new();
            for (id, millis) in inserts {
                if window.get(&message(id, 0).sender, message(id, 0).client_message_id).is_none() {
                    window.insert(&message(id, millis), (Epoch(1), Offset(1)));
                    first.insert(id, millis);
                }
                prop_assert!(window.order.len() <= 10);
                for (id, millis) in &first {
                    let message = message(*id, *millis);
                    let known = window.get(&message.sender, message.client_message_id).is_some();
                    prop_assert!(known || window.may_have_forgotten(message.message_id));
                }
            }
        }
    }

    #[test]
    fn another_body_under_the_same_identity_is_told_apart() {
        let mut window = DuplicateWindow::new(10);
        let message = message(1, 1);
        window.insert(&message, (Epoch(1), Offset(1)));
        let seen = window
            .get(&message.sender, message.client_message_id)
            .expect("was inserted");
        assert!(seen.same_body(&message.body));
        assert!(!seen.same_body(b"another"));
    }
}
