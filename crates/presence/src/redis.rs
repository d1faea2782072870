//! Presence in Redis or Valkey, by the server's clock.
//!
//! Channels are spread over a fixed number of slots. All keys of a slot carry the same hash tag, so a
//! script finds them on one node of a cluster:
//!
//! | key | what |
//! |---|---|
//! | `{<prefix>:presence:<slot>}` | sorted set of all seats of the slot's channels, by expiry |
//! | `… :names:<channel>` | sorted set of the channel's users, in order of the names |
//! | `… :until:<channel>` | sorted set of the same users, by the expiry of their last seat |
//! | `… :seats:<channel> <user>` | sorted set of the user's seats there, by expiry |
//!
//! Every key has a time to live, an hour beyond its last seat: what no sweeper took by then goes
//! untold.

mod scripts;

use std::{
    collections::BTreeSet,
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ::redis::{FromRedisValue, ScriptInvocation};
use async_trait::async_trait;
use infrachat_redis_link::{RedisLink, RedisTarget};
use infrachat_types::{ChannelName, Region, SessionId, UserName};

use self::scripts::Scripts;
use crate::{Change, Presence, PresenceError, Present, Seat};

/// How long one answer may take, connecting included.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many slots there are: part of the format of what is stored.
const SLOTS: usize = 16;
/// At most so many seats or names are handled by one script, which holds up all other clients.
const CHUNK: usize = 200;

/// The seats of one region, in its Redis.
///
/// Every call answers within a second, with an error when Redis does not. What a failed call was to
/// do may have been done, and what it meant for the users is then told to nobody; who is listed and
/// counted is right all the same.
pub struct RedisPresence {
    link: RedisLink,
    prefix: String,
    scripts: Scripts,
    /// Where the next sweep starts, so that no slot waits for the others.
    turn: AtomicUsize,
}

impl RedisPresence {
    /// Presence in a Redis, under keys that start with the prefix. It connects by itself, at the first
    /// call and after every loss, and needs no Redis to be there yet.
    #[must_use]
    pub fn new(redis: &RedisTarget, prefix: &str) -> Self {
        Self {
            link: RedisLink::new(redis, PATIENCE, "presence"),
            prefix: prefix.to_owned(),
            scripts: Scripts::new(),
            turn: AtomicUsize::new(0),
        }
    }

    async fn run<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, PresenceError> {
        let mut link = self.link.clone();
        let answer = self.link.in_time(call.invoke_async(&mut link)).await;
        answer.map_err(|err| PresenceError(err.to_string()))
    }

    fn index(&self, slot: usize) -> String {
        format!("{{{}:presence:{slot}}}", self.prefix)
    }

    fn index_of(&self, channel: &ChannelName) -> String {
        self.index(slot(channel))
    }

    /// The users, of the given seats of one slot, who came.
    async fn take_all(
        &self,
        slot: usize,
        seats: &[&(ChannelName, Seat)],
        ttl: Duration,
    ) -> Result<Vec<(ChannelName, UserName)>, PresenceError> {
        let mut came = Vec::new();
        for chunk in seats.chunks(CHUNK) {
            let mut call = self.scripts.take.key(self.index(slot));
            call.arg(millis(ttl));
            for (channel, seat) in chunk {
                add(&mut call, channel, seat);
            }
            let answers: Vec<bool> = self.run(&call).await?;
            let by_seat = chunk.iter().zip(answers);
            came.extend(
                by_seat
                    .filter(|(_, came)| *came)
                    .map(|((channel, seat), _)| (channel.clone(), seat.user.clone())),
            );
        }
        Ok(came)
    }

    async fn sweep_slot(
        &self,
        slot: usize,
        limit: usize,
    ) -> Result<Vec<(ChannelName, Seat, Change)>, PresenceError> {
        let mut call = self.scripts.sweep.key(self.index(slot));
        call.arg(limit.min(CHUNK));
        let swept: Vec<(String, bool)> = self.run(&call).await?;
        // What can't be read was not written here, and is nobody's seat.
        Ok(swept
            .iter()
            .filter_map(|(member, went)| {
                let (channel, seat) = parse(member)?;
                Some((channel, seat, change(*went, Change::Went)))
            })
            .collect())
    }
}

impl fmt::Debug for RedisPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPresence")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// FNV-1a over the name: part of the format of what is stored.
fn slot(channel: &ChannelName) -> usize {
    let hash = channel
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    (hash % SLOTS as u64) as usize
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

fn add(call: &mut ScriptInvocation<'_>, channel: &ChannelName, seat: &Seat) {
    call.arg(channel.as_str())
        .arg(seat.user.as_str())
        .arg(format!("{} {}", seat.region, seat.session));
}

/// No name has a space in it; the session's id, which may have one, comes last.
fn parse(member: &str) -> Option<(ChannelName, Seat)> {
    let mut parts = member.splitn(4, ' ');
    let channel = ChannelName::new(parts.next()?).ok()?;
    let seat = Seat {
        user: UserName::new(parts.next()?).ok()?,
        region: Region::new(parts.next()?).ok()?,
        session: SessionId::from_text(parts.next()?),
    };
    Some((channel, seat))
}

fn change(happened: bool, to: Change) -> Change {
    if happened { to } else { Change::Same }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn take(
        &self,
        channel: &ChannelName,
        seat: &Seat,
        ttl: Duration,
    ) -> Result<Change, PresenceError> {
        let mut call = self.scripts.take.key(self.index_of(channel));
        call.arg(millis(ttl));
        add(&mut call, channel, seat);
        let came: Vec<bool> = self.run(&call).await?;
        Ok(change(came == [true], Change::Came))
    }

    async fn give_up(&self, channel: &ChannelName, seat: &Seat) -> Result<Change, PresenceError> {
        let mut call = self.scripts.give_up.key(self.index_of(channel));
        add(&mut call, channel, seat);
        let went = self.run(&call).await?;
        Ok(change(went, Change::Went))
    }

    async fn refresh(
        &self,
        seats: &[(ChannelName, Seat)],
        ttl: Duration,
    ) -> Result<Vec<(ChannelName, UserName)>, PresenceError> {
        let mut slots = vec![Vec::new(); SLOTS];
        for entry in seats {
            slots[slot(&entry.0)].push(entry);
        }
        let mut came = Vec::new();
        for (slot, seats) in slots.iter().enumerate() {
            came.extend(self.take_all(slot, seats, ttl).await?);
        }
        Ok(came)
    }

    async fn list(
        &self,
        channel: &ChannelName,
        after: Option<&UserName>,
        limit: usize,
    ) -> Result<Vec<Present>, PresenceError> {
        let mut here = Vec::new();
        let mut from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        while here.len() < limit {
            let asked = (limit - here.len()).min(CHUNK);
            let mut call = self.scripts.list.key(self.index_of(channel));
            call.arg(channel.as_str()).arg(&from).arg(asked);
            let page: Vec<(String, Vec<String>)> = self.run(&call).await?;
            here.extend(page.iter().filter_map(|(user, seats)| present(user, seats)));
            match page.last() {
                Some((last, _)) if page.len() == asked => from = format!("({last}"),
                _ => break,
            }
        }
        Ok(here)
    }

    async fn count(&self, channel: &ChannelName) -> Result<usize, PresenceError> {
        let mut call = self.scripts.count.key(self.index_of(channel));
        call.arg(channel.as_str());
        self.run(&call).await
    }

    async fn sweep(&self, limit: usize) -> Result<Vec<(ChannelName, Seat, Change)>, PresenceError> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut swept = Vec::new();
        for slot in (0..SLOTS).map(|step| first.wrapping_add(step) % SLOTS) {
            let left = limit - swept.len();
            if left == 0 {
                break;
            }
            match self.sweep_slot(slot, left).await {
                Ok(some) => swept.extend(some),
                // Those at hand are taken out already: nobody else can tell of them.
                Err(_) if !swept.is_empty() => break,
                Err(err) => return Err(err),
            }
        }
        Ok(swept)
    }
}

/// A user by the seats that have not expired; `None` without any.
fn present(user: &str, seats: &[String]) -> Option<Present> {
    let regions: BTreeSet<_> = seats
        .iter()
        .filter_map(|seat| seat.split(' ').next())
        .filter_map(|region| Region::new(region).ok())
        .collect();
    if regions.is_empty() {
        return None;
    }
    Some(Present {
        user: UserName::new(user).ok()?,
        regions: regions.into_iter().collect(),
    })
}
