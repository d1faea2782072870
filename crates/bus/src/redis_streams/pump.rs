//! Moves a group's entries to one consumer, for as long as the consumer lives.
//!
//! Of a group's consumers, in whatever process, one is active: the one that holds the group's lease,
//! a key in Redis with a time to live. It alone reads, every read checks the lease and renews it, and
//! all read under one consumer's name: so whoever is active next finds what the last one had not
//! acknowledged as its own, in order.

use std::{future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::{
    commands::{self, Failure, Place, Redis, Taken, Token},
    entry::{self, StreamId},
    lanes::{Grip, Lanes},
};
use crate::{Acker, ConsumeLimits, Delivery, DeliverySink};

/// How often a consumer that is not active tries to be.
const STANDBY: Duration = Duration::from_millis(100);
/// How long a consumer rests when Redis is away.
const AWAY: Duration = Duration::from_millis(500);
/// How long a refused event rests before it is delivered again.
const NACK_BACKOFF: Duration = Duration::from_millis(10);
/// How often the stream is trimmed, at most.
const TRIM: Duration = Duration::from_secs(1);
/// At most so many are acknowledged at once.
const ACKS: usize = 1_000;

struct Shared {
    lanes: Mutex<Lanes>,
    settled: Notify,
}

/// A delivery's way back.
struct Held {
    shared: Arc<Shared>,
    grip: Grip,
}

impl Held {
    fn settle(&self, done: bool) {
        let again_at = Instant::now() + NACK_BACKOFF;
        self.shared.lanes.lock().settle(&self.grip, done, again_at);
        self.shared.settled.notify_one();
    }
}

impl Acker for Held {
    fn ack(self: Box<Self>) {
        self.settle(true);
    }

    fn nack(self: Box<Self>) {
        self.settle(false);
    }
}

/// Why a consumer is not active any more.
enum Ended {
    Stopped,
    LeaseLost,
}

/// Where to read on.
enum Cursor {
    /// After this one of those that were read before and are not acknowledged.
    Pending(StreamId),
    /// What was never read.
    New,
}

impl Cursor {
    fn argument(&self) -> String {
        match self {
            Self::Pending(after) => after.to_string(),
            Self::New => ">".to_owned(),
        }
    }
}

/// Where the active consumer stands.
struct Reading {
    cursor: Cursor,
    /// Whether there may be more to read.
    more: bool,
    newest: StreamId,
    arrival: Option<BoxFuture<'static, Result<bool, Failure>>>,
}

struct Pump {
    redis: Arc<Redis>,
    place: Place,
    sink: DeliverySink,
    shared: Arc<Shared>,
    lease: Duration,
    /// This consumer, in the lease.
    who: String,
    /// How often it took the lease: a call from before the last time reads nothing.
    times: u64,
    /// The lease holds for certain until then.
    held_until: Instant,
    trim_at: Instant,
    to_trim: bool,
    blocking: Option<MultiplexedConnection>,
}

/// Ends when the consumer is dropped, or the group exists no more.
pub(super) fn start(
    redis: Arc<Redis>,
    place: Place,
    lease: Duration,
    limits: ConsumeLimits,
    sink: DeliverySink,
) {
    let now = Instant::now();
    let pump = Pump {
        redis,
        place,
        sink,
        shared: Arc::new(Shared {
            lanes: Mutex::new(Lanes::new(limits)),
            settled: Notify::new(),
        }),
        lease,
        who: format!("{:032x}/", rand::random::<u128>()),
        times: 0,
        held_until: now,
        trim_at: now,
        to_trim: false,
        blocking: None,
    };
    tokio::spawn(pump.run());
}

impl Pump {
    async fn run(mut self) {
        let stopped = self.sink.stopped.clone();
        let mut away = false;
        while !stopped.is_cancelled() {
            let ended = match self.take().await {
                Ok(true) => self.serve().await,
                Ok(false) => Ok(Ended::LeaseLost),
                Err(failure) => Err(failure),
            };
            let pause = match ended {
                Ok(Ended::Stopped) => break,
                Ok(Ended::LeaseLost) => {
                    away = false;
                    STANDBY
                }
                Err(Failure::Missing) => {
                    tracing::warn!(
                        stream = self.place.stream,
                        group = self.place.group,
                        "the group is gone"
                    );
                    break;
                }
                Err(Failure::Away(why)) => {
                    if !away {
                        tracing::warn!(stream = self.place.stream, why, "Redis is away");
                    }
                    away = true;
                    self.blocking = None;
                    AWAY
                }
            };
            tokio::select! {
                () = stopped.cancelled() => break,
                () = sleep(pause) => {}
            }
        }
        self.hand_back().await;
    }

    fn token(&self) -> String {
        format!("{}{}", self.who, self.times)
    }

    /// Whether this consumer is the active one.
    async fn take(&mut self) -> Result<bool, Failure> {
        self.times += 1;
        let asked = Instant::now();
        let text = self.token();
        let token = Token {
            text: &text,
            lease: self.lease,
        };
        let taken = self.redis.take(&self.place, &self.who, &token).await?;
        if taken != Taken::Kept {
            // Others may have handled what is here.
            self.shared.lanes.lock().forget();
        }
        self.held_until = asked + self.lease;
        Ok(taken != Taken::Others)
    }

    /// Reads and delivers while this consumer is the active one.
    async fn serve(&mut self) -> Result<Ended, Failure> {
        let mut reading = Reading {
            cursor: Cursor::Pending(StreamId::default()),
            more: true,
            newest: StreamId::default(),
            arrival: None,
        };
        loop {
            self.acknowledge().await?;
            let room = if reading.more {
                self.shared.lanes.lock().room()
            } else {
                0
            };
            let renew_at = self.held_until - self.lease * 3 / 4;
            if (room > 0 || renew_at <= Instant::now()) && !self.read(&mut reading, room).await? {
                return Ok(Ended::LeaseLost);
            }
            self.deliver();
            if self.sink.stopped.is_cancelled() {
                return Ok(Ended::Stopped);
            }
            if reading.more && self.shared.lanes.lock().room() > 0 {
                continue;
            }
            self.wait(&mut reading).await?;
        }
    }

    /// Renews the lease, reads so many, and answers whether the lease was held.
    async fn read(&mut self, reading: &mut Reading, count: usize) -> Result<bool, Failure> {
        let asked = Instant::now();
        let text = self.token();
        let token = Token {
            text: &text,
            lease: self.lease,
        };
        let from = reading.cursor.argument();
        let read = self.redis.read(&self.place, &token, &from, count).await?;
        let Some(batch) = read else {
            return Ok(false);
        };
        self.held_until = asked + self.lease;
        if count == 0 {
            return Ok(true);
        }
        let last = batch.entries.last().and_then(|(id, _)| id.parse().ok());
        match (&reading.cursor, last) {
            (Cursor::Pending(_), Some(last)) => reading.cursor = Cursor::Pending(last),
            (Cursor::Pending(_), None) => reading.cursor = Cursor::New,
            (Cursor::New, _) => {
                if let Some(newest) = batch.newest {
                    reading.newest = newest;
                    reading.more = false;
                }
            }
        }
        let before = u32::from(from != ">");
        let now = Instant::now();
        let mut lanes = self.shared.lanes.lock();
        for (id, fields) in batch.entries {
            let Ok(id) = id.parse() else { continue };
            if lanes.knows(id) {
                continue;
            }
            match entry::parse(fields) {
                Some(event) => lanes.push(id, event, before, now),
                None => {
                    tracing::error!(stream = self.place.stream, %id, "an entry is no event: it is passed over");
                    lanes.discard(id);
                }
            }
        }
        Ok(true)
    }

    /// Hands out what is due, for as long as the lease holds and the consumer takes it.
    fn deliver(&self) {
        while let Ok(permit) = self.sink.deliveries.try_reserve() {
            let now = Instant::now();
            if now >= self.held_until {
                return;
            }
            let Some(taken) = self.shared.lanes.lock().take(now) else {
                return;
            };
            let held = Held {
                shared: Arc::clone(&self.shared),
                grip: taken.grip,
            };
            permit.send(Delivery::new(taken.event, taken.attempt, Box::new(held)));
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, reading: &mut Reading) -> Result<(), Failure> {
        if !reading.more && reading.arrival.is_none() {
            let connection = match &self.blocking {
                Some(connection) => connection.clone(),
                None => self.blocking.insert(self.redis.connect().await?).clone(),
            };
            let stream = self.place.stream.clone();
            let arrival = commands::arrival(connection, stream, reading.newest);
            reading.arrival = Some(Box::pin(arrival));
        }
        let arrival = async {
            match &mut reading.arrival {
                Some(arrival) => arrival.await,
                None => future::pending().await,
            }
        };
        let now = Instant::now();
        let due = self.shared.lanes.lock().next_due();
        let renew_at = self.held_until - self.lease * 3 / 4;
        let timer = due
            .filter(|due| *due > now)
            .map_or(renew_at, |due| due.min(renew_at));
        tokio::select! {
            () = self.sink.stopped.cancelled() => {}
            () = self.shared.settled.notified() => {}
            () = sleep_until(timer) => {}
            _ = self.sink.deliveries.reserve(), if due.is_some_and(|due| due <= now) => {}
            came = arrival => {
                reading.arrival = None;
                reading.more = came?;
            }
        }
        Ok(())
    }

    /// Tells Redis what was acknowledged, and lets it forget what all groups have.
    async fn acknowledge(&mut self) -> Result<(), Failure> {
        let acked = self.shared.lanes.lock().take_acked();
        for some in acked.chunks(ACKS) {
            if let Err(failure) = self.redis.ack(&self.place, some).await {
                // Acknowledging twice does no harm.
                self.shared.lanes.lock().retry_acked(acked);
                return Err(failure);
            }
        }
        self.to_trim |= !acked.is_empty();
        self.shared.lanes.lock().confirm_acked(&acked);
        if self.to_trim && self.trim_at <= Instant::now() {
            self.redis.trim(&self.place.stream).await?;
            self.to_trim = false;
            self.trim_at = Instant::now() + TRIM;
        }
        Ok(())
    }

    /// Lets the next consumer of the group begin at once.
    async fn hand_back(&mut self) {
        // When Redis is away, the lease ends by itself and what was acknowledged comes again.
        let acknowledged = self.acknowledge().await;
        let released = self.redis.release(&self.place, &self.who).await;
        if let Err(failure) = acknowledged.and(released) {
            tracing::debug!(stream = self.place.stream, %failure, "a consumer could not hand back");
        }
    }
}
