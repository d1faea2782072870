//! What a sender has said in one channel and what became of it: the order of calls is the order on
//! the wire, through refusals, lost connections and other shards.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use infrachat_proto::{Refusal, chat::v1 as chat};
use infrachat_types::{ChannelName, ClientMessageId, ErrorCode, MessageId};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{Ack, ClientError};

/// Acknowledged messages kept to be sent again, until history has them.
const UNSTABLE: usize = 1_024;
/// Those that history has are kept to be sent again in another region, which may not have them yet: so
/// many at most,
const STABLE: usize = 64;
/// and for so long after they were acknowledged.
const STABLE_FOR: Duration = Duration::from_secs(120);
/// A message that was acknowledged is sent again for so long, at least.
const AGAIN_FOR: Duration = Duration::from_secs(10);

pub(crate) type Reply = oneshot::Sender<Result<Ack, ClientError>>;

/// A shard, and the region whose bus and history it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) name: Arc<str>,
    pub(crate) region: Arc<str>,
}

/// A message to be sent.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) id: ClientMessageId,
    pub(crate) body: Bytes,
    pub(crate) deadline: Instant,
    pub(crate) reply: Reply,
    /// Counts it among the waiting ones, until it is settled.
    pub(crate) permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Entry {
    id: ClientMessageId,
    body: Bytes,
    attempt: u32,
    deadline: Instant,
    state: State,
    acked: Option<Acked>,
    waiter: Option<(Reply, OwnedSemaphorePermit)>,
    last_refusal: Option<String>,
}

/// The newest acknowledgement of a message.
#[derive(Debug)]
struct Acked {
    message_id: MessageId,
    by: Shard,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        not_before: Option<Instant>,
    },
    InFlight,
    Settled,
    /// Settled, and the region's history has it.
    Stable,
}

/// One channel's messages, oldest first: settled ones that another shard or region may not have yet, then
/// others.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    entries: VecDeque<Entry>,
    /// Nothing before this index waits.
    first_waiting: usize,
    /// Those that are stable are counted as well.
    settled: usize,
    stable: usize,
    /// The last message that has left the queue.
    previous: Option<ClientMessageId>,
    /// The newest id among those that have left the queue.
    newest_gone: Option<MessageId>,
    newest_acked: Option<MessageId>,
}

impl Outgoing {
    pub(crate) fn push(&mut self, draft: Draft) {
        self.entries.push_back(Entry {
            id: draft.id,
            body: draft.body,
            attempt: 0,
            deadline: draft.deadline,
            state: State::Waiting { not_before: None },
            acked: None,
            waiter: Some((draft.reply, draft.permit)),
            last_refusal: None,
        });
    }

    /// Whether every message was acknowledged or has failed.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled == self.entries.len()
    }

    /// The next message to put on the wire, if one is due; it counts as sent from here on.
    pub(crate) fn next_to_send(
        &mut self,
        channel: &ChannelName,
        now: Instant,
    ) -> Option<chat::Publish> {
        let index = self.waiting_index()?;
        let (before, from) = (index.checked_sub(1), &mut self.entries);
        let previous = before.map(|before| from[before].id).or(self.previous);
        match from[index].state {
            State::Waiting { not_before } if not_before.is_none_or(|at| at <= now) => {}
            _ => return None,
        }
        // One that has an id already must not be put above itself.
        let above = if from[index].acked.is_some() {
            let earlier = from.range(..index).filter_map(|it| it.acked.as_ref());
            let earlier = earlier.map(|acked| acked.message_id).max();
            earlier.max(self.newest_gone)
        } else {
            self.newest_acked
        };
        let entry = &mut from[index];
        entry.state = State::InFlight;
        entry.attempt += 1;
        self.first_waiting = index + 1;
        let after = previous.map(|id| chat::After {
            client_message_id: Bytes::copy_from_slice(id.as_bytes()),
            message_id: above.map(|id| id.to_string()).unwrap_or_default(),
        });
        Some(chat::Publish {
            client_message_id: Bytes::copy_from_slice(entry.id.as_bytes()),
            channel: channel.to_string(),
            body: entry.body.clone(),
            after,
            attempt: entry.attempt,
            traceparent: String::new(),
        })
    }

    /// When there is something to do: a message becomes due, or its deadline ends. One that is due already
    /// waits for something else than time.
    pub(crate) fn next_time(&mut self, now: Instant) -> Option<Instant> {
        let due = self
            .waiting_index()
            .and_then(|index| match self.entries[index].state {
                State::Waiting { not_before } => not_before.filter(|at| *at > now),
                _ => None,
            });
        let deadline = self
            .entries
            .iter()
            .find(|entry| entry.is_pending())
            .map(|entry| entry.deadline);
        due.into_iter().chain(deadline).min()
    }

    /// The bus has a message; true when that is news.
    pub(crate) fn acked(
        &mut self,
        id: ClientMessageId,
        message_id: MessageId,
        duplicate: bool,
        by: &Shard,
        now: Instant,
    ) -> bool {
        let Some(index) = self.index_of(id) else {
            return false;
        };
        let entry = &mut self.entries[index];
        entry.acked = Some(Acked {
            message_id,
            by: by.clone(),
            at: now,
        });
        if entry.is_pending() {
            entry.state = State::Settled;
            self.settled += 1;
        }
        self.newest_acked = self.newest_acked.max(Some(message_id));
        let waiter = entry.waiter.take();
        let news = waiter.is_some();
        if let Some((reply, _permit)) = waiter {
            // The caller may have lost interest.
            drop(reply.send(Ok(Ack {
                message_id,
                client_message_id: id,
                duplicate,
            })));
        }
        while self.settled - self.stable > UNSTABLE && self.drop_front() {}
        news
    }

    /// The region's history has this session's messages up to an id.
    pub(crate) fn stable(&mut self, up_to: MessageId, now: Instant) {
        let settled = self.entries.iter_mut().take_while(|it| !it.is_pending());
        for entry in settled.filter(|entry| entry.state == State::Settled) {
            if entry.acked.as_ref().is_some_and(|it| it.message_id > up_to) {
                break;
            }
            entry.state = State::Stable;
            self.stable += 1;
        }
        while self.stable > STABLE && self.drop_front() {}
        self.drop_old(now);
    }

    /// Lets go of what another region must have by now.
    fn drop_old(&mut self, now: Instant) {
        let old = |entry: &Entry| {
            let acked = entry.acked.as_ref();
            entry.state == State::Stable && acked.is_some_and(|it| it.at + STABLE_FOR <= now)
        };
        while self.entries.front().is_some_and(old) && self.drop_front() {}
    }

    fn drop_front(&mut self) -> bool {
        let Some(Entry {
            state: state @ (State::Settled | State::Stable),
            acked: Some(acked),
            id,
            ..
        }) = self.entries.front()
        else {
            return false;
        };
        self.previous = Some(*id);
        self.newest_gone = self.newest_gone.max(Some(acked.message_id));
        self.stable -= usize::from(*state == State::Stable);
        self.settled -= 1;
        self.entries.pop_front();
        self.first_waiting = self.first_waiting.saturating_sub(1);
        true
    }

    /// A message was refused: it is tried again after `wait`, or fails.
    pub(crate) fn refused(
        &mut self,
        id: ClientMessageId,
        refusal: Refusal,
        wait: Duration,
        now: Instant,
    ) {
        let Some(index) = self.index_of(id) else {
            return;
        };
        let behind_another = self.entries.iter().take(index).any(Entry::is_pending);
        let entry = &mut self.entries[index];
        if entry.state != State::InFlight {
            return;
        }
        if refusal.code.retryable() {
            // Behind an earlier one it goes out as soon as that one has gone.
            let at_once = refusal.code == ErrorCode::OutOfOrder && behind_another;
            let not_before = (!at_once).then(|| now + wait);
            entry.state = State::Waiting { not_before };
            entry.last_refusal = Some(refusal.to_string());
            self.first_waiting = self.first_waiting.min(index);
        } else if entry.acked.is_some() {
            entry.state = State::Settled;
            self.settled += 1;
        } else {
            self.fail(index, ClientError::Refused(refusal));
        }
    }

    /// Whether the message is one of these.
    pub(crate) fn holds(&self, id: ClientMessageId) -> bool {
        self.index_of(id).is_some()
    }

    /// How often a message was sent.
    pub(crate) fn attempts(&self, id: ClientMessageId) -> u32 {
        self.index_of(id)
            .map_or(0, |index| self.entries[index].attempt)
    }

    /// What was on its way may be lost: it will be sent again.
    pub(crate) fn connection_lost(&mut self) {
        self.wait_again(|entry| entry.state == State::InFlight);
    }

    /// The channel is joined on a shard. What another one acknowledged and history may not have is
    /// sent again first, in another region also what that region may not have: so this shard puts what
    /// follows behind it.
    pub(crate) fn joined_on(&mut self, shard: &Shard, now: Instant) {
        self.drop_old(now);
        self.wait_again(|entry| match (entry.state, &entry.acked) {
            (State::Settled, Some(acked)) => acked.by != *shard,
            (State::Stable, Some(acked)) => acked.by.region != shard.region,
            _ => false,
        });
        for entry in self.entries.iter_mut().filter(|it| it.acked.is_some()) {
            entry.deadline = entry.deadline.max(now + AGAIN_FOR);
        }
    }

    fn wait_again(&mut self, which: impl Fn(&Entry) -> bool) {
        for entry in self.entries.iter_mut().filter(|entry| which(entry)) {
            self.settled -= usize::from(!entry.is_pending());
            self.stable -= usize::from(entry.state == State::Stable);
            entry.state = State::Waiting { not_before: None };
        }
        self.first_waiting = 0;
    }

    /// Ends the messages whose time is over.
    pub(crate) fn expire(&mut self, now: Instant, after: Duration) {
        while let Some(index) = self
            .entries
            .iter()
            .position(|entry| entry.is_pending() && entry.deadline <= now)
        {
            let entry = &mut self.entries[index];
            if entry.acked.is_some() {
                entry.state = State::Settled;
                self.settled += 1;
                continue;
            }
            let last = entry.last_refusal.take();
            let last = last.unwrap_or_else(|| "no acknowledgement came".to_owned());
            self.fail(
                index,
                ClientError::TimedOut {
                    what: "publishing",
                    after,
                    last,
                },
            );
        }
    }

    /// Ends everything that waits.
    pub(crate) fn fail_all(&mut self, err: &ClientError) {
        while let Some(index) = self.entries.iter().position(|entry| entry.waiter.is_some()) {
            self.fail(index, err.clone());
        }
    }

    fn fail(&mut self, index: usize, err: ClientError) {
        let Some(entry) = self.entries.remove(index) else {
            return;
        };
        if index < self.first_waiting {
            self.first_waiting -= 1;
        }
        if let Some((reply, _permit)) = entry.waiter {
            drop(reply.send(Err(err)));
        }
    }

    fn waiting_index(&mut self) -> Option<usize> {
        let from = self.first_waiting;
        let found = self
            .entries
            .range(from.min(self.entries.len())..)
            .position(|entry| matches!(entry.state, State::Waiting { .. }));
        self.first_waiting = found.map_or(self.entries.len(), |offset| from + offset);
        found.map(|offset| from + offset)
    }

    fn index_of(&self, id: ClientMessageId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id)
    }
}

impl Entry {
    fn is_pending(&self) -> bool {
        !matches!(self.state, State::Settled | State::Stable)
    }
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
