//! Who is in a channel: seats of this shard's sessions, and what other regions tell of theirs.
//!
//! Presence never holds up messages: every call has a short limit, and after a failure it is left
//! alone for a moment and what is known counts as stale.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use infrachat_presence::{Change, PresenceError, Seat};
use infrachat_proto::bus::v1::{self as bus, envelope::Kind};
use infrachat_proto::chat::v1 as chat;
use infrachat_types::{ChannelName, Region, SessionId, UserName};
use tokio::time::Instant;

use crate::{
    channel::Channel,
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
        *lock() = answer.is_err().then(|| Instant::now() + PAUSE);
        answer.inspect_err(|err| tracing::warn!(%err, "presence is stale"))
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
    tell(partition, channel, Kind::SeatLeft(seat_event(seat)));
    if let Ok(change) = parts
        .seats
        .ask(parts.presence.give_up(&channel.name, seat))
        .await
    {
        announce(parts, channel, &seat.user, change).await;
    }
}

/// Another region, or another shard of this one, tells of seats.
pub(crate) async fn heard(parts: &Parts, channel: &Arc<Channel>, from: &Region, kind: Kind) {
    let own = *from == parts.region;
    let ttl = parts.tuning.seat_ttl;
    match kind {
        Kind::SeatTaken(event) if !own => {
            let Some(seat) = seat(event, from) else {
                return;
            };
            if let Ok(change) = parts
                .seats
                .ask(parts.presence.take(&channel.name, &seat, ttl))
                .await
            {
                announce(parts, channel, &seat.user, change).await;
            }
        }
        Kind::SeatLeft(event) if !own => {
            let Some(seat) = seat(event, from) else {
                return;
            };
            if let Ok(change) = parts
                .seats
                .ask(parts.presence.give_up(&channel.name, &seat))
                .await
            {
                announce(parts, channel, &seat.user, change).await;
            }
        }
        Kind::Seats(event) if !own => {
            let seats: Vec<_> = event
                .seats
                .into_iter()
                .filter_map(|event| seat(event, from))
                .collect();
            let seats: Vec<_> = seats
                .into_iter()
                .map(|seat| (channel.name.clone(), seat))
                .collect();
            if let Ok(came) = parts.seats.ask(parts.presence.refresh(&seats, ttl)).await {
                for (_, user) in came {
                    announce(parts, channel, &user, Change::Came).await;
                }
            }
        }
        Kind::SeatExpired(event) if own => {
            if let Some(seat) = seat(event, from) {
                announce(parts, channel, &seat.user, Change::Went).await;
            }
        }
        _ => {}
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
            let refreshed = parts.presence.refresh(batch, parts.tuning.seat_ttl);
            for (channel, user) in parts.seats.ask(refreshed).await.unwrap_or_default() {
                if let Some(channel) = loaded(&parts, &channel) {
                    announce(&parts, &channel.1, &user, Change::Came).await;
                }
            }
        }
        repeat(&parts, seats);
        sweep(&parts).await;
    }
}

fn repeat(parts: &Parts, mut seats: Vec<ChannelSeat>) {
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
                tell_owner(parts, name, seat).await;
            }
        }
        if expired.len() < BATCH {
            return;
        }
    }
}

/// The channel lives on another shard of this region: its owner announces what was swept here.
async fn tell_owner(parts: &Parts, name: &ChannelName, seat: &Seat) {
    let partition = infrachat_routing::partition_of(name.as_str(), parts.partition_count);
    let envelope = bus::Envelope {
        channel: name.to_string(),
        region: parts.region.to_string(),
        origin: String::new(),
        origin_seq: 0,
        kind: Some(Kind::SeatExpired(seat_event(seat))),
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
    if let Err(err) = parts.bus.publish(&topic, event).await {
        tracing::warn!(channel = %name, %err, "an expired seat could not be announced");
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
