//! Who is in a channel: seats of this shard's sessions, and what other regions tell of theirs.
//!
//! Presence never holds up messages: every call has a short limit, and after a failure it is left
//! alone for a moment and what is known counts as stale.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use infrachat_presence::{Change, PresenceError, Seat};
use infrachat_proto::bus::v1::{self as bus, envelope::Kind};
use infrachat_proto::chat::v1 as chat;
use infrachat_types::{ChannelName, Region, SessionId, UserName};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    channel::Channel,
    counted::COUNTED,
    partition::Partition,
    parts::Parts,
    publish::{Content, Outgoing},
};

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_millis(500);
/// How long presence is left alone after it did not answer.
const PAUSE: Duration = Duration::from_secs(2);
/// Users named at a join.
const NAMED: usize = 200;
/// Seats in one call or event.
const BATCH: usize = 500;

type ChannelSeat = (ChannelName, Seat);

/// The seats of this shard's sessions.
#[derive(Debug, Default)]
pub(crate) struct SeatBook {
    seats: Mutex<HashSet<ChannelSeat>>,
    left_alone_until: Mutex<Option<Instant>>,
}

/// Who is there, as a joining session is told.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    pub(crate) present: Vec<chat::Member>,
    pub(crate) count: usize,
    pub(crate) stale: bool,
}

impl SeatBook {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<ChannelSeat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks presence, unless it lately failed.
    async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, PresenceError>>,
    ) -> Result<T, PresenceError> {
        let lock = || {
            self.left_alone_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if lock().is_some_and(|until| Instant::now() < until) {
            return Err(PresenceError("it failed a moment ago".to_owned()));
        }
        let answer = tokio::time::timeout(LIMIT, answer).await;
        let answer =
            answer.unwrap_or_else(|_| Err(PresenceError("it did not answer in time".to_owned())));
        COUNTED.presence_degraded.set(f64::from(answer.is_err()));
        let until = answer.is_err().then(|| Instant::now() + PAUSE);
        let before = std::mem::replace(&mut *lock(), until);
        // Said once, however many calls fail until one succeeds.
        match (&answer, before) {
            (Err(err), None) => tracing::warn!(%err, "presence is stale"),
            (Ok(_), Some(_)) => tracing::info!("presence is up to date again"),
            _ => {}
        }
        answer
    }
}

/// A session joined: takes its seat, tells everyone if its user came, and says who is there.
pub(crate) async fn arrive(
    parts: &Parts,
    partition: &Partition,
    channel: &Arc<Channel>,
    seat: &Seat,
) -> Roster {
    parts
        .seats
        .lock()
        .insert((channel.name.clone(), seat.clone()));
    tell(partition, channel, Kind::SeatTaken(seat_event(seat)));
    let taken = parts
        .presence
        .take(&channel.name, seat, parts.tuning.seat_ttl);
    let Ok(change) = parts.seats.ask(taken).await else {
        return Roster {
            stale: true,
            ..Roster::default()
        };
    };
    announce(parts, channel, &seat.user, change).await;
    roster(parts, &channel.name).await
}

/// Who is in a channel now.
pub(crate) async fn roster(parts: &Parts, channel: &ChannelName) -> Roster {
    let asked = async {
        let present = parts.presence.list(channel, None, NAMED).await?;
        Ok((present, parts.presence.count(channel).await?))
    };
    match parts.seats.ask(asked).await {
        Ok((present, count)) => Roster {
            present: present.into_iter().map(member).collect(),
            count,
            stale: false,
        },
        Err(_) => Roster {
            stale: true,
            ..Roster::default()
        },
    }
}

/// A user who is there, for the wire.
pub(crate) fn member(present: infrachat_presence::Present) -> chat::Member {
    chat::Member {
        user: present.user.to_string(),
        role: "member".to_owned(),
        online: true,
        regions: present.regions.iter().map(ToString::to_string).collect(),
    }
}

/// A session left.
pub(crate) async fn depart(
    parts: &Parts,
    partition: &Partition,
    channel: &Arc<Channel>,
    seat: &Seat,
) {
    parts
        .seats
        .lock()
        .remove(&(channel.name.clone(), seat.clone()));
    let given_up = parts
        .seats
        .ask(parts.presence.give_up(&channel.name, seat))
        .await;
    if partition.is_open() {
        tell(partition, channel, Kind::SeatLeft(seat_event(seat)));
        if let Ok(change) = given_up {
            announce(parts, channel, &seat.user, change).await;
        }
        return;
    }
    // The channel has another owner by now.
    tell_owners(parts, &channel.name, Kind::SeatLeft(seat_event(seat))).await;
    if given_up == Ok(Change::Went) {
        tell_owners(parts, &channel.name, Kind::SeatExpired(seat_event(seat))).await;
    }
}

/// What another region, or another shard of this one, tells of seats.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) channel: ChannelName,
    pub(crate) from: Region,
    pub(crate) kind: Kind,
}

/// Takes in what the bus tells of a partition's seats, beside the messages' way, so that a slow store
/// of presence holds no message up.
pub(crate) async fn listen(
    parts: Arc<Parts>,
    partition: Weak<Partition>,
    mut heard: mpsc::Receiver<Heard>,
) {
    while let Some(heard) = heard.recv().await {
        let Some(partition) = partition.upgrade() else {
            return;
        };
        take_in(&parts, &partition, heard).await;
    }
}

async fn take_in(
    parts: &Parts,
    partition: &Partition,
    Heard {
        channel,
        from,
        kind,
    }: Heard,
) {
    let own = from == parts.region;
    let ttl = parts.tuning.seat_ttl;
    let changes = match kind {
        Kind::SeatTaken(event) if !own => {
            let Some(seat) = seat(event, &from) else {
                return;
            };
            let change = parts
                .seats
                .ask(parts.presence.take(&channel, &seat, ttl))
                .await;
            change.map(|change| vec![(seat.user, change)])
        }
        Kind::SeatLeft(event) if !own => {
            let Some(seat) = seat(event, &from) else {
                return;
            };
            let change = parts
                .seats
                .ask(parts.presence.give_up(&channel, &seat))
                .await;
            change.map(|change| vec![(seat.user, change)])
        }
        Kind::Seats(event) if !own => {
            let seats = event
                .seats
                .into_iter()
                .filter_map(|event| seat(event, &from));
            let seats: Vec<_> = seats.map(|seat| (channel.clone(), seat)).collect();
            let came = parts.seats.ask(parts.presence.refresh(&seats, ttl)).await;
            came.map(|came| {
                came.into_iter()
                    .map(|(_, user)| (user, Change::Came))
                    .collect()
            })
        }
        Kind::SeatExpired(event) if own => Ok(seat(event, &from)
            .map(|seat| (seat.user, Change::Went))
            .into_iter()
            .collect()),
        _ => return,
    };
    // A channel that nobody reads here has nobody to tell.
    let Some(channel) = partition.loaded_channel(&channel) else {
        return;
    };
    for (user, change) in changes.unwrap_or_default() {
        announce(parts, &channel, &user, change).await;
    }
}

/// Refreshes this shard's seats, repeats them to the other regions, and sweeps expired ones, until
/// cancelled.
pub(crate) async fn maintain(parts: Arc<Parts>) {
    let mut every = tokio::time::interval(parts.tuning.seat_ttl / 3);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let seats: Vec<ChannelSeat> = parts.seats.lock().iter().cloned().collect();
        for batch in seats.chunks(BATCH) {
            refresh(&parts, batch).await;
        }
        repeat(&parts);
        sweep(&parts).await;
    }
}

async fn refresh(parts: &Parts, batch: &[ChannelSeat]) {
    let refreshed = parts.presence.refresh(batch, parts.tuning.seat_ttl);
    let Ok(came) = parts.seats.ask(refreshed).await else {
        return;
    };
    for (channel, user) in came {
        if let Some((_, channel)) = loaded(parts, &channel) {
            announce(parts, &channel, &user, Change::Came).await;
        }
    }
    // Who left during the call was taken in again by it.
    let left: Vec<_> = {
        let book = parts.seats.lock();
        batch
            .iter()
            .filter(|seat| !book.contains(*seat))
            .cloned()
            .collect()
    };
    for (channel, seat) in left {
        if let Ok(change) = parts
            .seats
            .ask(parts.presence.give_up(&channel, &seat))
            .await
            && let Some((_, channel)) = loaded(parts, &channel)
        {
            announce(parts, &channel, &seat.user, change).await;
        }
    }
}

fn repeat(parts: &Parts) {
    let mut seats: Vec<ChannelSeat> = parts.seats.lock().iter().cloned().collect();
    seats.sort();
    for of_channel in seats.chunk_by(|a, b| a.0 == b.0) {
        let Some((partition, channel)) = loaded(parts, &of_channel[0].0) else {
            continue;
        };
        for batch in of_channel.chunks(BATCH) {
            let seats = batch.iter().map(|(_, seat)| seat_event(seat)).collect();
            tell(&partition, &channel, Kind::Seats(bus::SeatsEvent { seats }));
        }
    }
}

async fn sweep(parts: &Parts) {
    loop {
        let Ok(expired) = parts.seats.ask(parts.presence.sweep(BATCH)).await else {
            return;
        };
        for (name, seat, change) in &expired {
            if *change != Change::Went {
                continue;
            }
            if let Some((_, channel)) = loaded(parts, name) {
                announce(parts, &channel, &seat.user, Change::Went).await;
            } else {
                tell_owners(parts, name, Kind::SeatExpired(seat_event(seat))).await;
            }
        }
        if expired.len() < BATCH {
            return;
        }
    }
}

/// The channel is not served here: its owners, in this region and the others, hear of a seat.
async fn tell_owners(parts: &Parts, name: &ChannelName, kind: Kind) {
    let partition = infrachat_routing::partition_of(name.as_str(), parts.partition_count);
    let envelope = bus::Envelope {
        channel: name.to_string(),
        region: parts.region.to_string(),
        origin: String::new(),
        origin_seq: 0,
        kind: Some(kind),
    };
    let topic = infrachat_bus::Topic {
        region: parts.region.to_string(),
        name: infrachat_routing::messages_topic(partition),
    };
    let event = infrachat_bus::Event {
        ordering_key: String::new(),
        payload: prost::Message::encode_to_vec(&envelope).into(),
        attributes: std::collections::BTreeMap::new(),
    };
    let told = tokio::time::timeout(LIMIT, parts.bus.publish(&topic, event)).await;
    if !matches!(told, Ok(Ok(()))) {
        tracing::warn!(channel = %name, "a seat's end could not be announced; it runs out elsewhere");
    }
}

fn loaded(parts: &Parts, name: &ChannelName) -> Option<(Arc<Partition>, Arc<Channel>)> {
    let number = infrachat_routing::partition_of(name.as_str(), parts.partition_count);
    let partition = parts.partitions.get(number)?;
    let channel = partition.loaded_channel(name)?;
    Some((partition, channel))
}

async fn announce(parts: &Parts, channel: &Arc<Channel>, user: &UserName, change: Change) {
    let (came, went) = match change {
        Change::Came => (Some(user.clone()), None),
        Change::Went => (None, Some(user.clone())),
        Change::Same => return,
    };
    if let Ok(count) = parts.seats.ask(parts.presence.count(&channel.name)).await {
        channel.announce(came, went, count);
    }
}

/// Puts it on the bus if there is room: it will be repeated.
fn tell(partition: &Partition, channel: &Arc<Channel>, kind: Kind) {
    let outgoing = Outgoing {
        channel: Arc::clone(channel),
        content: Content::Passing(kind),
    };
    if partition.publish(outgoing).is_err() {
        tracing::debug!(channel = %channel.name, "no room to tell of a seat; it will be repeated");
    }
}

fn seat_event(seat: &Seat) -> bus::SeatEvent {
    bus::SeatEvent {
        user: seat.user.to_string(),
        session_id: seat.session.to_string(),
    }
}

fn seat(event: bus::SeatEvent, region: &Region) -> Option<Seat> {
    let user = UserName::new(&event.user).ok()?;
    Some(Seat {
        user,
        region: region.clone(),
        session: SessionId::from_text(&event.session_id),
    })
}
