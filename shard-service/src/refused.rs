//! Messages that were given up or refused, so that what was said after one stays behind it.

use std::collections::{HashSet, VecDeque};

use infrachat_types::{ClientMessageId, UserName};

/// Refused messages remembered, a channel.
const CAPACITY: usize = 1_024;

type Key = (UserName, ClientMessageId);

/// The refused messages of a channel, until they come again. Bounded: the oldest are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    known: HashSet<Key>,
    order: VecDeque<Key>,
}

impl Refused {
    /// Remembers a message that was given up or refused.
    pub(crate) fn insert(&mut self, sender: &UserName, id: ClientMessageId) {
        let key = (sender.clone(), id);
        if self.known.insert(key.clone()) {
            self.order.push_back(key);
        }
        while self.order.len() > CAPACITY {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// The message came again, and was accepted.
    pub(crate) fn came_again(&mut self, sender: &UserName, id: ClientMessageId) {
        let key = (sender.clone(), id);
        if self.known.remove(&key) {
            self.order.retain(|other| *other != key);
        }
    }

    /// Whether this message of a sender was refused, and has not come again.
    pub(crate) fn contains(&self, sender: &UserName, id: ClientMessageId) -> bool {
        !self.known.is_empty() && self.known.contains(&(sender.clone(), id))
    }
}
