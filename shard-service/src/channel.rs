//! One channel on the shard that owns its partition: its log, who reads it, and what it has seen.

mod load;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use infrachat_bus::Delivery;
use infrachat_metadata::HistoryEntry;
use infrachat_proto::chat::v1::{self as chat, server_event::Kind};
use infrachat_types::{
    ChannelName, ClientMessageId, Epoch, Message, MessageId, Offset, OriginId, Position, Region,
    RegionTag, SessionId, UserName,
};
use tokio::time::Instant;

pub(crate) use self::load::Tail;
use crate::{
    comings::{self, Comings},
    counted::COUNTED,
    dedupe::{DuplicateWindow, Seen},
    history::HistoryQueue,
    log::{Cursor, Entry, Place, Read, Ring, RingLimits, Skipped},
    memory::Weight,
    observe::Lag,
    reader::Readers,
    refused::Refused,
    run::Author,
    session::Mailbox,
    tally::{Facts, Tally},
    traces::Traced,
};

/// Sizes of a channel's structures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelLimits {
    pub(crate) ring: RingLimits,
    pub(crate) duplicate_window: usize,
}

/// A channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: ChannelName,
    epoch: Epoch,
    region: Region,
    inner: Mutex<Inner>,
    pub(crate) readers: Readers,
    history: HistoryQueue,
    lag: Arc<Lag>,
}

#[derive(Debug)]
struct Inner {
    ring: Ring,
    /// The ring's.
    weight: Weight,
    window: DuplicateWindow,
    next_offset: Offset,
    /// History has everything up to here.
    stable: Place,
    /// By source region, the newest id received.
    seen: BTreeMap<RegionTag, u64>,
    /// Deliveries that may be acknowledged once history has the message.
    parked: BTreeMap<Place, Vec<Delivery>>,
    /// Senders to tell when history has a message that they sent again.
    waiting: BTreeMap<Place, Vec<(Mailbox, MessageId)>>,
    origin: Origin,
    refused: Refused,
    comings: Comings,
    idle_since: Option<Instant>,
}

/// The channel's publisher: its numbers are dense.
#[derive(Debug)]
struct Origin {
    id: OriginId,
    next: u64,
}

/// A message to append, and where it came from.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) message: Message,
    pub(crate) origin: OriginId,
    pub(crate) origin_seq: u64,
    /// The delivery that brought it, if it came over the bus.
    pub(crate) delivery: Option<Delivery>,
    /// Its trace, if that is kept.
    pub(crate) trace: Option<Arc<Traced>>,
}

/// What appending came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is new, and readers are being woken.
    New,
    /// It was here already.
    Duplicate {
        /// With this id.
        message_id: MessageId,
        /// Under the same body.
        same_body: bool,
        /// The bus delivered it before.
        redelivered: bool,
    },
}

/// What a retried message was found to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Never seen here.
    No,
    /// The window can't tell: ask history.
    AskHistory,
    /// Seen, with this id.
    Yes {
        /// The id.
        message_id: MessageId,
        /// Under the same body.
        same_body: bool,
        /// From the bus of this region.
        source: RegionTag,
    },
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Appends a message unless it is known, queues it for history in log order, and wakes readers.
    pub(crate) fn append(self: &Arc<Self>, incoming: Incoming) -> Appended {
        let Incoming {
            message,
            origin,
            origin_seq,
            delivery,
            trace,
        } = incoming;
        let mut inner = self.lock();
        if let Some(seen) = inner.window.get(&message.sender, message.client_message_id) {
            let same_body = seen.same_body(&message.body);
            let own = origin == inner.origin.id;
            let redelivered = count_duplicate(&message, &seen, own, delivery.as_ref());
            if same_body && message.message_id < seen.message_id {
                // The smaller id wins, in every region.
                inner.window.correct(&message);
                self.write(message, seen.place, (origin, origin_seq), delivery);
            } else if let Some(delivery) = delivery {
                inner.settle(seen.place, delivery);
            }
            return Appended::Duplicate {
                message_id: seen.message_id,
                same_body,
                redelivered,
            };
        }
        let offset = inner.next_offset;
        inner.next_offset = offset.next();
        let place = (self.epoch, offset);
        inner.take_in((&self.name, &self.region), &message, place, trace);
        self.lag.add(message.published_at);
        self.write(message, place, (origin, origin_seq), delivery);
        drop(inner);
        self.readers.wake();
        Appended::New
    }

    /// Queues a message for history; the delivery that brought it is acknowledged afterwards.
    pub(crate) fn write(
        self: &Arc<Self>,
        message: Message,
        (epoch, offset): Place,
        (origin, origin_seq): (OriginId, u64),
        delivery: Option<Delivery>,
    ) {
        let entry = HistoryEntry {
            message,
            epoch,
            offset,
            origin,
            origin_seq,
        };
        self.history.push(Arc::clone(self), entry, delivery);
    }

    /// Appends an event that is neither numbered nor kept: presence, typing.
    pub(crate) fn append_passing(&self, kind: Kind, author: Option<SessionId>) {
        let mut inner = self.lock();
        let stable = inner.stable;
        inner.ring.append(
            Entry {
                frame: infrachat_proto::event_frame(kind),
                author: author.map(Author::new),
                message: None,
                facts: None,
            },
            stable,
        );
        inner.weigh();
        drop(inner);
        self.readers.wake();
    }

    /// Tells readers that messages of a region did not come, and can't be had.
    pub(crate) fn append_gap(&self, missed: u64, of: &Region) {
        let position = {
            let inner = self.lock();
            let newest = (self.epoch, Offset(inner.next_offset.0 - 1)).max(inner.stable);
            encode_position(&self.name, &self.region, newest, &inner.seen)
        };
        let gap = chat::Gap {
            channel: self.name.to_string(),
            from: position.clone(),
            to: position,
            missed,
            code: "not_delivered".to_owned(),
            reason: format!(
                "messages of {of} were not delivered, and its history does not have them: they may come later"
            ),
        };
        self.append_passing(Kind::Gap(gap), None);
    }

    /// What is known of a message that says it is a retry, or is older than the window.
    pub(crate) fn known(&self, message: &Message, retry: bool) -> Known {
        let inner = self.lock();
        match inner.window.get(&message.sender, message.client_message_id) {
            Some(seen) => Known::Yes {
                message_id: seen.message_id,
                same_body: seen.same_body(&message.body),
                source: seen.source,
            },
            None if retry || inner.window.may_have_forgotten(message.message_id) => {
                Known::AskHistory
            }
            None => Known::No,
        }
    }

    /// History has a message that the window has forgotten: another copy of it is a duplicate.
    pub(crate) fn remember(&self, entry: &HistoryEntry) {
        let place = (entry.epoch, entry.offset);
        self.lock().window.insert(&entry.message, place);
    }

    /// History has everything up to `place`: answers the deliveries to acknowledge, and tells the
    /// senders who wait for it.
    pub(crate) fn history_has(&self, place: Place) -> Vec<Delivery> {
        let mut inner = self.lock();
        inner.stable = inner.stable.max(place);
        let stable = inner.stable;
        let deliveries = split_up_to(&mut inner.parked, stable);
        let waiting = split_up_to(&mut inner.waiting, stable);
        drop(inner);
        for (mailbox, message_id) in waiting {
            mailbox.stable(&self.name, message_id);
        }
        deliveries
    }

    /// Tells a sender that history has its message, if it has.
    pub(crate) fn tell_if_stable(&self, message: &Message, mailbox: &Mailbox) {
        let inner = self.lock();
        let seen = inner.window.get(&message.sender, message.client_message_id);
        if let Some(seen) = seen.filter(|seen| seen.place <= inner.stable) {
            mailbox.stable(&self.name, seen.message_id);
        }
    }

    /// Tells a sender once history has a message that it sent a second time.
    pub(crate) fn tell_when_stable(&self, message: &Message, mailbox: &Mailbox) {
        let mut inner = self.lock();
        let Some(seen) = inner.window.get(&message.sender, message.client_message_id) else {
            return;
        };
        if seen.place <= inner.stable {
            mailbox.stable(&self.name, seen.message_id);
        } else {
            inner
                .waiting
                .entry(seen.place)
                .or_default()
                .push((mailbox.clone(), seen.message_id));
        }
    }

    /// The next number of this channel's origin.
    pub(crate) fn next_origin_seq(&self) -> (OriginId, u64) {
        let mut inner = self.lock();
        let origin = &mut inner.origin;
        let seq = origin.next;
        origin.next += 1;
        (origin.id.clone(), seq)
    }

    /// Whether this is still the channel's origin.
    pub(crate) fn is_origin(&self, id: &OriginId) -> bool {
        self.lock().origin.id == *id
    }

    /// Starts a new origin, since a number of the old one was given up.
    pub(crate) fn renew_origin(&self) {
        self.lock().origin = Origin {
            id: OriginId::random(),
            next: 1,
        };
    }

    /// Whether what the sender said before was not refused; otherwise this is refused as well.
    pub(crate) fn may_pass(&self, message: &Message, after: Option<ClientMessageId>) -> bool {
        let refused = &mut self.lock().refused;
        let (sender, id) = (&message.sender, message.client_message_id);
        let held_back = after.is_some_and(|after| refused.contains(sender, after));
        if held_back {
            refused.insert(sender, id);
        } else {
            refused.came_again(sender, id);
        }
        !held_back
    }

    /// A message was given up or not taken: what its sender says after it stays behind it.
    pub(crate) fn refuse(&self, sender: &UserName, id: ClientMessageId) {
        self.lock().refused.insert(sender, id);
    }

    /// A message that may have been given up has been accepted after all.
    pub(crate) fn came_again(&self, message: &Message) {
        self.lock()
            .refused
            .came_again(&message.sender, message.client_message_id);
    }

    /// Says that users came or went, together with other changes of the next moment.
    pub(crate) fn announce(
        self: &Arc<Self>,
        came: Option<UserName>,
        went: Option<UserName>,
        count: usize,
    ) {
        if !self.lock().comings.note(came, went, count) {
            return;
        }
        let channel = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(comings::BATCH).await;
            let changes = std::mem::take(&mut channel.lock().comings);
            channel.append_passing(changes.into_event(&channel.name), None);
        });
    }

    /// Reads what comes after a cursor.
    pub(crate) fn read(
        &self,
        cursor: &mut Cursor,
        reader: &Author,
        limits: (u64, usize),
        tally: &mut Tally,
    ) -> Read {
        self.lock().ring.read(cursor, reader, limits, tally)
    }

    /// Unread messages of the reader that is furthest behind.
    pub(crate) fn lag(&self) -> u64 {
        self.readers.lag(self.lock().ring.messages())
    }

    /// Gives up what history has and nobody needs: readers keep what they have not read, at most
    /// `unread` messages of it.
    pub(crate) fn trim(&self, unread: u64) {
        let mut inner = self.lock();
        let kept = self.readers.lag(inner.ring.messages()).min(unread);
        let entries = usize::try_from(unread).unwrap_or(usize::MAX);
        let stable = inner.stable;
        inner.ring.trim(kept, entries, stable);
        inner.weigh();
    }

    /// Moves a slow reader ahead.
    pub(crate) fn skip_ahead(&self, cursor: &mut Cursor, keep: usize) -> Skipped {
        self.lock().ring.skip_ahead(cursor, keep)
    }

    /// Cursors that a join may start from.
    pub(crate) fn cursors<T>(&self, choose: impl FnOnce(&Ring, Place) -> T) -> T {
        let inner = self.lock();
        choose(&inner.ring, inner.stable)
    }

    /// The newest place given out.
    pub(crate) fn newest(&self) -> Place {
        let inner = self.lock();
        (self.epoch, Offset(inner.next_offset.0 - 1)).max(inner.stable)
    }

    /// Since when nobody reads and nothing waits, so that it can be forgotten and loaded again from
    /// history; none if it is in use. Counts from the first call that finds it idle.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        let mut inner = self.lock();
        let newest = (self.epoch, Offset(inner.next_offset.0 - 1));
        let idle = self.readers.is_empty() && inner.parked.is_empty() && newest <= inner.stable;
        if !idle {
            inner.idle_since = None;
            return None;
        }
        Some(inner.idle_since.get_or_insert_with(Instant::now).elapsed())
    }
}

impl Inner {
    fn take_in(
        &mut self,
        (name, region): (&ChannelName, &Region),
        message: &Message,
        place: Place,
        trace: Option<Arc<Traced>>,
    ) {
        let newest = self.seen.entry((&message.region).into()).or_default();
        *newest = (*newest).max(message.message_id.millis());
        let position = encode_position(name, region, place, &self.seen);
        let wire = infrachat_proto::message_to_wire(message, position.clone());
        let entry = Entry {
            frame: infrachat_proto::event_frame(Kind::Message(wire)),
            author: Some(Author::new(message.session_id.clone())),
            message: Some((place, position)),
            facts: Some(Facts {
                source: (&message.region).into(),
                published_at: message.published_at,
                appended: Instant::now(),
                trace,
            }),
        };
        self.ring.append(entry, self.stable);
        self.weigh();
        self.window.insert(message, place);
    }

    fn weigh(&mut self) {
        self.weight.set(self.ring.weight());
    }

    fn settle(&mut self, place: Place, delivery: Delivery) {
        if place <= self.stable {
            delivery.ack();
        } else {
            self.parked.entry(place).or_default().push(delivery);
        }
    }
}

/// A copy is dropped; answers whether the bus had delivered it before. Without a delivery it is the
/// publisher's, which the bus was quicker than.
fn count_duplicate(message: &Message, seen: &Seen, own: bool, delivery: Option<&Delivery>) -> bool {
    let again = delivery.is_some_and(|delivery| delivery.attempt > 1);
    let duplicates = &COUNTED.duplicates;
    let redelivered =
        message.message_id == seen.message_id && delivery.is_some() && (!own || again);
    let counter = match redelivered {
        true => &duplicates.redelivered,
        false if message.message_id != seen.message_id => &duplicates.retried,
        false => &duplicates.own,
    };
    counter.increment(1);
    redelivered
}

/// The position of a place, for the wire.
pub(crate) fn encode_position(
    name: &ChannelName,
    region: &Region,
    (epoch, offset): Place,
    seen: &BTreeMap<RegionTag, u64>,
) -> Bytes {
    let seen = seen
        .iter()
        .map(|(region, millis)| (*region, *millis))
        .collect();
    Position {
        region: region.into(),
        epoch,
        offset,
        seen,
    }
    .encode(name)
    .into()
}

fn split_up_to<T>(map: &mut BTreeMap<Place, Vec<T>>, place: Place) -> Vec<T> {
    let after = map.split_off(&(place.0, place.1.next()));
    std::mem::replace(map, after)
        .into_values()
        .flatten()
        .collect()
}
