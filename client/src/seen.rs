//! Which messages were seen, over a bounded window.

use std::collections::HashSet;

use infrachat_types::{ClientMessageId, UserName};

/// Messages surely remembered, a channel.
pub(crate) const WINDOW: usize = 4_096;

/// Identities of one channel's messages: at least the last [`WINDOW`], at most twice as many.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    newer: HashSet<(UserName, ClientMessageId)>,
    older: HashSet<(UserName, ClientMessageId)>,
}

impl Seen {
    /// Remembers an identity; false when it was known.
    pub(crate) fn insert(&mut self, sender: &UserName, id: ClientMessageId) -> bool {
        let identity = (sender.clone(), id);
        if self.older.contains(&identity) || !self.newer.insert(identity) {
            return false;
        }
        if self.newer.len() >= WINDOW {
            self.older = std::mem::take(&mut self.newer);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_kept_and_bounded() {
        let sender = UserName::new("alice").expect("valid");
        let ids: Vec<_> = (0..3 * WINDOW).map(|_| ClientMessageId::random()).collect();
        let mut seen = Seen::default();
        for (index, id) in ids.iter().enumerate() {
            assert!(seen.insert(&sender, *id));
            let back = index.saturating_sub(WINDOW - 1);
            assert!(!seen.insert(&sender, ids[back]));
            assert!(seen.newer.len() + seen.older.len() <= 2 * WINDOW);
        }
    }

    #[test]
    fn another_senders_same_id_is_another_message() {
        let id = ClientMessageId::random();
        let mut seen = Seen::default();
        assert!(seen.insert(&UserName::new("alice").expect("valid"), id));
        assert!(seen.insert(&UserName::new("mallory").expect("valid"), id));
    }
}
