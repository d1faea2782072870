//! The channels that a session reads: joining, reading on, leaving.

use std::{sync::Arc, time::Duration};

use infrachat_presence::Seat;
use infrachat_proto::{
    Refusal,
    chat::v1::{self as chat, server_event::Kind},
};
use infrachat_types::{ChannelName, CloseCode, ErrorCode, SessionId, SlowReaderPolicy};
use metrics::Counter;

use super::{
    Note, Session,
    catch_up::{self, Replay},
};
use crate::{
    access::channel_name,
    counted::COUNTED,
    parts::in_time,
    presence::{self, Roster},
    reader::Reader,
};

/// Wait before a channel that moves is looked for again.
const MOVING: Duration = Duration::from_millis(200);
/// When channels move, sessions follow at their own moments: so that another shard has to take in no more
/// than about two thousand a second,
const A_SESSION: Duration = Duration::from_micros(500);
/// but nobody waits for longer than this.
const LONGEST_SPREAD: Duration = Duration::from_secs(1);

/// A session's seat in a channel.
#[derive(Debug)]
pub(super) struct Seated {
    pub(super) reader: Arc<Reader>,
    policy: SlowReaderPolicy,
    /// Read from history first.
    replay: Option<Box<Replay>>,
}

impl Session {
    /// The session's seat in a channel that it names.
    pub(super) fn seated(&self, name: &str) -> Result<&Seated, Refusal> {
        let channel = channel_name(name)?;
        let seated = self
            .numbers
            .get(&channel)
            .and_then(|number| self.channels.get(number));
        seated.ok_or_else(|| Refusal::new(ErrorCode::NotJoined, format!("join {name} first")))
    }

    pub(super) async fn join(&mut self, join: chat::Join) {
        let name = join.channel.clone();
        match self.try_join(join).await {
            Ok(joins) => joins.increment(1),
            Err(refusal) => {
                COUNTED.joins.refused(refusal.code);
                self.refuse(refusal, &name);
            }
        }
    }

    /// Answers what counts it.
    async fn try_join(&mut self, join: chat::Join) -> Result<&'static Counter, Refusal> {
        let name = channel_name(&join.channel)?;
        let most = self.parts.tuning.max_channels;
        if self.channels.len() >= most && !self.numbers.contains_key(&name) {
            let text = format!("a session may join {most} channels: leave some first");
            return Err(Refusal::new(ErrorCode::TooManyChannels, text));
        }
        let record = self
            .parts
            .access
            .check(&name, &self.user, (&self.parts.region, &self.parts.stores))
            .await?;
        let number = infrachat_routing::partition_of(name.as_str(), self.parts.partition_count);
        let Some(partition) = self.parts.partitions.get(number) else {
            let reason = "another shard serves the channel";
            self.redirect(&name, number, reason, Duration::ZERO);
            return Ok(&COUNTED.joins.redirected);
        };
        if self.parts.memory.is_full() && partition.loaded_channel(&name).is_none() {
            let text = "this shard is short of memory and takes no more channels: try again";
            return Err(
                Refusal::new(ErrorCode::Overloaded, text).retry_after(Duration::from_secs(1))
            );
        }
        let channel = in_time(partition.channel(&name)).await.map_err(|err| {
            let text = format!("the channel can't be loaded at the moment ({err}): try again");
            Refusal::new(ErrorCode::Unavailable, text).retry_after(Duration::from_secs(1))
        })?;
        self.give_up_seat(&name);
        let policy = match join.slow_reader() {
            chat::SlowReaderPolicy::Disconnect => SlowReaderPolicy::Disconnect,
            chat::SlowReaderPolicy::DropOldest => SlowReaderPolicy::DropOldest,
            chat::SlowReaderPolicy::Unspecified => record.channel.slow_reader,
        };
        // Woken from here on, so that nothing appended after the cursor was chosen is overlooked.
        let place = (Arc::clone(&partition), Arc::clone(&channel));
        let reader = Reader::new(&self.outlet, self.next_number, place);
        channel.readers.add(Arc::clone(&reader));
        let start = catch_up::start(&self.parts, &channel, &join);
        // From here on the log keeps for it what it has not read.
        reader.place_at(start.cursor.clone());
        let seat = self.seat(self.next_number);
        let roster = presence::arrive(&self.parts, &partition, &channel, &seat).await;
        self.say(Kind::Joined(joined(&name, number, &join, &start, roster)));
        if let Some(gap) = start.gap {
            self.say(Kind::Gap(gap));
        }
        if start.replay.is_some() {
            self.replaying.push_back(self.next_number);
        } else {
            reader.release();
        }
        self.numbers.insert(name, self.next_number);
        let seated = Seated {
            reader,
            policy,
            replay: start.replay.map(Box::new),
        };
        self.channels.insert(self.next_number, seated);
        self.next_number += 1;
        Ok(if join.position.is_empty() {
            &COUNTED.joins.joined
        } else {
            &COUNTED.joins.resumed
        })
    }

    /// One for each join, so that giving up an earlier one can't take it away.
    fn seat(&self, number: u64) -> Seat {
        Seat {
            user: self.user.clone(),
            region: self.parts.region.clone(),
            session: SessionId::from_text(&format!("{}.{number}", self.id())),
        }
    }

    fn redirect(&mut self, name: &ChannelName, partition: u32, reason: &str, spread: Duration) {
        let endpoint = self
            .parts
            .partitions
            .endpoint(partition)
            .unwrap_or_default();
        let wait = if endpoint.is_empty() {
            MOVING
        } else {
            Duration::ZERO
        };
        let wait = wait + spread.mul_f64(rand::random());
        self.say(Kind::Redirect(chat::Redirect {
            channel: name.to_string(),
            endpoint,
            reason: reason.to_owned(),
            retry_after_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        }));
    }

    pub(super) fn leave(&mut self, name: &str) {
        match channel_name(name) {
            Ok(channel) => {
                self.give_up_seat(&channel);
                let (code, reason) = (String::new(), String::new());
                self.say(Kind::Left(chat::Left {
                    channel: name.to_owned(),
                    code,
                    reason,
                }));
            }
            Err(refusal) => self.refuse(refusal, name),
        }
    }

    /// Gives every seat up.
    pub(super) fn leave_all(&mut self) {
        let names: Vec<_> = self.numbers.keys().cloned().collect();
        names.iter().for_each(|name| self.give_up_seat(name));
    }

    fn give_up_seat(&mut self, name: &ChannelName) {
        let Some(number) = self.numbers.remove(name) else {
            return;
        };
        let Some(Seated { reader, .. }) = self.channels.remove(&number) else {
            return;
        };
        let seat = self.seat(number);
        reader.channel.readers.remove(&reader);
        let parts = Arc::clone(&self.parts);
        // Off the session's way: it may be ending, and presence may be slow.
        self.parts.tasks.spawn(async move {
            presence::depart(&parts, &reader.partition, &reader.channel, &seat).await;
        });
    }

    /// A channel's partition is another shard's now.
    pub(super) fn moved(&mut self, number: u64) {
        // Left in the meantime.
        let Some(seated) = self.channels.get(&number) else {
            return;
        };
        let name = seated.reader.channel.name.clone();
        let partition = seated.reader.partition.number;
        self.give_up_seat(&name);
        let sessions = u32::try_from(self.parts.sessions.count()).unwrap_or(u32::MAX);
        let spread = A_SESSION.saturating_mul(sessions).min(LONGEST_SPREAD);
        let reason = "the channel moved to another shard";
        self.redirect(&name, partition, reason, spread);
    }

    /// Reads a page of history for a channel that is replayed; others have their turn after it.
    pub(super) async fn replay_on(&mut self) {
        let Some(number) = self.replaying.pop_front() else {
            return;
        };
        let Some(seated) = self.channels.get_mut(&number) else {
            return;
        };
        let (Some(replay), Some(cursor)) = (&mut seated.replay, seated.reader.cursor()) else {
            return;
        };
        let step = catch_up::step(&self.parts, &seated.reader.channel, replay, &cursor);
        match in_time(step).await {
            Ok(step) => {
                step.entries
                    .into_iter()
                    .for_each(|entry| self.outlet.say(entry));
                match step.live {
                    Some(cursor) => {
                        seated.replay = None;
                        seated.reader.place_at(cursor);
                        seated.reader.release();
                    }
                    None => self.replaying.push_back(number),
                }
            }
            Err(err) => {
                tracing::warn!(session = %self.id(), %err, "history can't be read; trying again");
                let mailbox = self.outlet.mailbox.clone();
                self.parts.tasks.spawn(async move {
                    tokio::time::sleep(MOVING).await;
                    mailbox.send(Note::Replay(number));
                });
            }
        }
    }

    /// The reader is too far behind in a channel.
    pub(super) async fn slow(&mut self, number: u64) {
        let Some(seated) = self.channels.get(&number) else {
            return;
        };
        let reader = Arc::clone(&seated.reader);
        let name = reader.channel.name.clone();
        if seated.policy == SlowReaderPolicy::Disconnect {
            COUNTED.slow_disconnected.increment(1);
            let reason =
                format!("{name} was read too slowly: reconnect and join with the last position");
            return self.close((CloseCode::SlowConsumer, reason));
        }
        let keep = usize::try_from(self.parts.tuning.slow_reader_pending / 2).unwrap_or(usize::MAX);
        let Some(mut cursor) = reader.cursor() else {
            return;
        };
        let skipped = reader.channel.skip_ahead(&mut cursor, keep);
        reader.place_at(cursor);
        COUNTED.slow_skipped.increment(1);
        COUNTED.slow_reader.count(skipped.missed);
        tracing::debug!(session = %self.id(), channel = %name, missed = skipped.missed, "a slow reader skipped ahead");
        self.say(Kind::Gap(chat::Gap {
            channel: name.to_string(),
            from: skipped.from,
            to: skipped.to,
            missed: skipped.missed,
            code: "slow_reader".to_owned(),
            reason:
                "messages came faster than they were read: read the missed ones with GetHistory"
                    .to_owned(),
        }));
        // Comings and goings may have been skipped as well.
        let roster = presence::roster(&self.parts, &name).await;
        self.say(Kind::Presence(chat::Presence {
            channel: name.to_string(),
            came: roster
                .present
                .into_iter()
                .map(|member| member.user)
                .collect(),
            went: Vec::new(),
            present_count: u32::try_from(roster.count).unwrap_or(u32::MAX),
            snapshot: true,
        }));
        reader.release();
    }
}

fn joined(
    name: &ChannelName,
    partition: u32,
    join: &chat::Join,
    start: &catch_up::Start,
    roster: Roster,
) -> chat::Joined {
    let replayed = start.replay.is_some() && start.gap.is_none();
    chat::Joined {
        channel: name.to_string(),
        position: if replayed {
            join.position.clone()
        } else {
            start.cursor.position.clone()
        },
        recovered: start.gap.is_none(),
        present: roster.present,
        present_count: u32::try_from(roster.count).unwrap_or(u32::MAX),
        presence_stale: roster.stale,
        partition,
    }
}
