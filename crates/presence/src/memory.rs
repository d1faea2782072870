//! Presence in memory, by the runtime's clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    time::Duration,
};

use async_trait::async_trait;
use infrachat_types::{ChannelName, Region, SessionId, UserName};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Change, Presence, PresenceError, Present, Seat};

/// The seats of one region, in this process.
#[derive(Debug, Default)]
pub struct MemoryPresence {
    seats: Mutex<Seats>,
}

impl MemoryPresence {
    /// Nobody is anywhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Debug, Default)]
struct Seats {
    channels: HashMap<ChannelName, Users>,
    /// Every seat once, the next to expire first.
    expiries: BTreeSet<(Instant, ChannelName, Seat)>,
}

type Users = BTreeMap<UserName, Sessions>;

/// When each expires; until it is swept it stays, and doesn't count.
type Sessions = BTreeMap<(Region, SessionId), Instant>;

impl Seats {
    /// Whether the user came by this.
    fn take(&mut self, channel: &ChannelName, seat: &Seat, now: Instant, ttl: Duration) -> bool {
        let until = now + ttl;
        let users = self.channels.entry(channel.clone()).or_default();
        let sessions = users.entry(seat.user.clone()).or_default();
        let was_here = is_here(sessions, now);
        let session = (seat.region.clone(), seat.session.clone());
        if let Some(before) = sessions.insert(session, until) {
            self.expiries
                .remove(&(before, channel.clone(), seat.clone()));
        }
        self.expiries.insert((until, channel.clone(), seat.clone()));
        !was_here
    }

    /// The user went when no seat of theirs is left, an expired one neither: so the last of several
    /// that expire tells it, and tells it once.
    fn remove(&mut self, channel: &ChannelName, seat: &Seat) -> Change {
        let Some(users) = self.channels.get_mut(channel) else {
            return Change::Same;
        };
        let Some(sessions) = users.get_mut(&seat.user) else {
            return Change::Same;
        };
        let Some(until) = sessions.remove(&(seat.region.clone(), seat.session.clone())) else {
            return Change::Same;
        };
        let change = if sessions.is_empty() {
            users.remove(&seat.user);
            Change::Went
        } else {
            Change::Same
        };
        if users.is_empty() {
            self.channels.remove(channel);
        }
        self.expiries
            .remove(&(until, channel.clone(), seat.clone()));
        change
    }

    fn expired(&self, now: Instant) -> impl Iterator<Item = &(Instant, ChannelName, Seat)> {
        self.expiries
            .iter()
            .take_while(move |(until, ..)| *until <= now)
    }

    fn is_here(&self, channel: &ChannelName, user: &UserName, now: Instant) -> bool {
        let users = self.channels.get(channel);
        users
            .and_then(|users| users.get(user))
            .is_some_and(|sessions| is_here(sessions, now))
    }
}

fn is_here(sessions: &Sessions, now: Instant) -> bool {
    sessions.values().any(|&until| until > now)
}

/// Few, however many sessions a user has.
fn regions(sessions: &Sessions, now: Instant) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    let here = sessions.iter().filter(|&(_, &until)| until > now);
    for ((region, _), _) in here {
        if regions.last() != Some(region) {
            regions.push(region.clone());
        }
    }
    regions
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn take(
        &self,
        channel: &ChannelName,
        seat: &Seat,
        ttl: Duration,
    ) -> Result<Change, PresenceError> {
        let now = Instant::now();
        if self.seats.lock().take(channel, seat, now, ttl) {
            Ok(Change::Came)
        } else {
            Ok(Change::Same)
        }
    }

    async fn give_up(&self, channel: &ChannelName, seat: &Seat) -> Result<Change, PresenceError> {
        Ok(self.seats.lock().remove(channel, seat))
    }

    async fn refresh(
        &self,
        seats: &[(ChannelName, Seat)],
        ttl: Duration,
    ) -> Result<Vec<(ChannelName, UserName)>, PresenceError> {
        let now = Instant::now();
        let mut held = self.seats.lock();
        let came = seats
            .iter()
            .filter(|(channel, seat)| held.take(channel, seat, now, ttl))
            .map(|(channel, seat)| (channel.clone(), seat.user.clone()))
            .collect();
        Ok(came)
    }

    async fn list(
        &self,
        channel: &ChannelName,
        after: Option<&UserName>,
        limit: usize,
    ) -> Result<Vec<Present>, PresenceError> {
        let now = Instant::now();
        let seats = self.seats.lock();
        let Some(users) = seats.channels.get(channel) else {
            return Ok(Vec::new());
        };
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let here = users
            .range::<UserName, _>((after, Bound::Unbounded))
            .map(|(user, sessions)| Present {
                user: user.clone(),
                regions: regions(sessions, now),
            })
            .filter(|present| !present.regions.is_empty())
            .take(limit)
            .collect();
        Ok(here)
    }

    async fn count(&self, channel: &ChannelName) -> Result<usize, PresenceError> {
        let now = Instant::now();
        let seats = self.seats.lock();
        let users = seats.channels.get(channel).map_or(0, BTreeMap::len);
        // Of those who have seats, who has only expired ones: the sweeper keeps them few.
        let gone: BTreeSet<&UserName> = seats
            .expired(now)
            .filter(|(_, expired, _)| expired == channel)
            .map(|(_, _, seat)| &seat.user)
            .filter(|user| !seats.is_here(channel, user, now))
            .collect();
        Ok(users - gone.len())
    }

    async fn sweep(&self, limit: usize) -> Result<Vec<(ChannelName, Seat, Change)>, PresenceError> {
        let now = Instant::now();
        let mut seats = self.seats.lock();
        let expired: Vec<_> = seats.expired(now).take(limit).cloned().collect();
        let swept = expired
            .into_iter()
            .map(|(_, channel, seat)| {
                let change = seats.remove(&channel, &seat);
                (channel, seat, change)
            })
            .collect();
        Ok(swept)
    }
}
