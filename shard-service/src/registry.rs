//! The sessions of this shard, for those who must reach one or all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use infrachat_types::{
    ChannelName, CloseCode, MessageId, SessionId, TokenFamilyId, UnixMillis, UserName,
};

use crate::{
    counted::{COUNTED, Part},
    memory::Weight,
    session::{Mailbox, Note},
};

/// What is known of a session from outside.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    pub(crate) mailbox: Mailbox,
    pub(crate) user: UserName,
    pub(crate) family: TokenFamilyId,
    pub(crate) signed_in_at: UnixMillis,
    pub(crate) _weight: Weight,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<SessionId, SessionHandle>>,
    /// By part, how many say that it is degraded.
    degraded: Mutex<HashMap<Part, usize>>,
    limit: usize,
}

impl Sessions {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            open: Mutex::new(HashMap::new()),
            degraded: Mutex::new(HashMap::new()),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, SessionHandle>> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a session, or answers false when there are as many as this shard takes.
    pub(crate) fn insert(&self, id: SessionId, handle: SessionHandle) -> bool {
        let mut open = self.lock();
        let fits = open.len() < self.limit;
        if fits {
            for (&part, _) in self.lock_degraded().iter().filter(|(_, count)| **count > 0) {
                handle.mailbox.send(Note::Degraded {
                    part,
                    degraded: true,
                });
            }
            open.insert(id, handle);
        }
        fits
    }

    pub(crate) fn remove(&self, id: &SessionId) {
        self.lock().remove(id);
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// A session renewed its token: it may descend from another sign-in now.
    pub(crate) fn renewed(&self, id: &SessionId, family: TokenFamilyId, signed_in_at: UnixMillis) {
        if let Some(handle) = self.lock().get_mut(id) {
            handle.family = family;
            handle.signed_in_at = signed_in_at;
        }
    }

    pub(crate) fn stable(&self, id: &SessionId, channel: &ChannelName, up_to: MessageId) {
        if let Some(handle) = self.lock().get(id) {
            handle.mailbox.stable(channel, up_to);
        }
    }

    /// Says that a part works with less than its promises, until the answer is dropped. Sessions hear
    /// of the first and of the last of any number at once.
    pub(crate) fn degrade(sessions: &Arc<Self>, part: Part) -> Degraded {
        let count = {
            let mut degraded = sessions.lock_degraded();
            let count = degraded.entry(part).or_default();
            *count += 1;
            *count
        };
        if count == 1 {
            COUNTED.degraded(part).set(1);
            sessions.tell_degraded(part, true);
        }
        Degraded {
            sessions: Arc::clone(sessions),
            part,
        }
    }

    fn tell_degraded(&self, part: Part, degraded: bool) {
        for handle in self.lock().values() {
            handle.mailbox.send(Note::Degraded { part, degraded });
        }
    }

    fn lock_degraded(&self) -> MutexGuard<'_, HashMap<Part, usize>> {
        self.degraded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Closes the sessions whose tokens were revoked; answers how many.
    pub(crate) fn revoke(
        &self,
        user: &UserName,
        family: Option<&TokenFamilyId>,
        issued_until: UnixMillis,
    ) -> usize {
        let open = self.lock();
        let revoked = open.values().filter(|handle| {
            handle.user == *user
                && handle.signed_in_at <= issued_until
                && family.is_none_or(|family| handle.family == *family)
        });
        revoked
            .inspect(|handle| {
                handle.mailbox.send(Note::Close(
                    CloseCode::TokenRevoked,
                    "the sign-in was ended",
                ))
            })
            .count()
    }

    /// Tells every session to go, each at its own moment within `spread`.
    pub(crate) fn go_away(&self, spread: Duration) {
        let open = self.lock();
        let step = spread
            .checked_div(u32::try_from(open.len()).unwrap_or(u32::MAX))
            .unwrap_or_default();
        for (handle, order) in open.values().zip(0_u32..) {
            handle.mailbox.send(Note::GoAway {
                reconnect_after: step * order,
            });
        }
    }

    /// Closes every session.
    pub(crate) fn close_all(&self, code: CloseCode, reason: &'static str) {
        for handle in self.lock().values() {
            handle.mailbox.send(Note::Close(code, reason));
        }
    }
}

/// A part works with less than its promises for as long as this lives.
#[derive(Debug)]
pub(crate) struct Degraded {
    sessions: Arc<Sessions>,
    part: Part,
}

impl Drop for Degraded {
    fn drop(&mut self) {
        let left = {
            let mut degraded = self.sessions.lock_degraded();
            let count = degraded.entry(self.part).or_default();
            *count = count.saturating_sub(1);
            *count
        };
        if left == 0 {
            COUNTED.degraded(self.part).set(0);
            self.sessions.tell_degraded(self.part, false);
        }
    }
}
