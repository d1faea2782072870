//! Where a join starts, and what is sent before it is live.
//!
//! In the region of the position, everything after it in append order: from the log, else from
//! history, exactly. In another region, by source region everything after the moment seen there, less
//! a margin; the client drops what it has.

use std::time::Duration;

use bytes::Bytes;
use infrachat_metadata::{Direction, HistoryEntry, MetadataError};
use infrachat_proto::chat::v1::{self as chat, server_event::Kind};
use infrachat_types::{MAX_CLOCK_DRIFT, MessageId, Offset, Position, RegionTag};

use crate::{
    channel::Channel,
    counted::COUNTED,
    log::{Cursor, Place},
    parts::Parts,
};

/// Entries of one page of history.
const PAGE: usize = 100;
/// Most recent messages that a join without a position may ask for.
const MOST_RECENT: usize = 200;

/// Where a join starts.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) cursor: Cursor,
    /// What is sent from history first.
    pub(crate) replay: Option<Replay>,
    /// Why not everything after the position will come.
    pub(crate) gap: Option<chat::Gap>,
}

/// What remains to be read from history.
#[derive(Debug)]
pub(crate) enum Replay {
    /// In append order, after the position.
    Here(Position),
    /// By id, up to the place where the cursor goes on.
    Elsewhere {
        position: Position,
        next: MessageId,
        until: Place,
    },
}

/// A step of a replay.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) entries: Vec<Bytes>,
    /// The log has the rest, from here on.
    pub(crate) live: Option<Cursor>,
}

/// Chooses where to start.
pub(crate) fn start(parts: &Parts, channel: &Channel, join: &chat::Join) -> Start {
    if join.position.is_empty() {
        let recent = usize::try_from(join.recent)
            .unwrap_or(usize::MAX)
            .min(MOST_RECENT);
        let cursor = channel.cursors(|ring, _| ring.recent(recent));
        return Start {
            cursor,
            replay: None,
            gap: None,
        };
    }
    let position = match Position::decode(&channel.name, &join.position) {
        Ok(position) => position,
        Err(err) => return unknown(channel, join, &err.to_string()),
    };
    if position.region == RegionTag::from(&parts.region) {
        let place = (position.epoch, position.offset);
        if place > channel.newest() {
            return unknown(
                channel,
                join,
                "the position is ahead of everything said here",
            );
        }
        let threshold = parts.tuning.slow_reader_pending;
        let near = |cursor: &Cursor, ring: &crate::log::Ring| ring.pending(cursor) <= threshold;
        return match channel
            .cursors(|ring, _| ring.after(place).filter(|cursor| near(cursor, ring)))
        {
            Some(cursor) => Start {
                cursor,
                replay: None,
                gap: None,
            },
            None => Start {
                cursor: channel.cursors(|ring, _| ring.tail()),
                replay: Some(Replay::Here(position)),
                gap: None,
            },
        };
    }
    if !parts
        .regions
        .iter()
        .any(|region| RegionTag::from(region) == position.region)
    {
        return unknown(
            channel,
            join,
            "the position is of a region that is not part of this deployment",
        );
    }
    let lowest = parts
        .regions
        .iter()
        .map(|source| bound(parts, &position, source.into()))
        .min();
    let (cursor, until) =
        channel.cursors(|ring, stable| (ring.after(stable).unwrap_or_else(|| ring.tail()), stable));
    let next = MessageId::floor_of(lowest.unwrap_or_default());
    Start {
        cursor,
        replay: Some(Replay::Elsewhere {
            position,
            next,
            until,
        }),
        gap: None,
    }
}

fn unknown(channel: &Channel, join: &chat::Join, reason: &str) -> Start {
    COUNTED.position_unknown.count(0);
    let cursor = channel.cursors(|ring, _| ring.tail());
    let gap = chat::Gap {
        channel: channel.name.to_string(),
        from: join.position.clone(),
        to: cursor.position.clone(),
        missed: 0,
        code: "position_unknown".to_owned(),
        reason: format!("{reason}: read what was missed with GetHistory"),
    };
    Start {
        cursor,
        replay: None,
        gap: Some(gap),
    }
}

/// The moment of a source region from which on another region's position may lack messages.
fn bound(parts: &Parts, position: &Position, source: RegionTag) -> u64 {
    let seen = position
        .seen
        .iter()
        .find(|(region, _)| *region == source)
        .map_or(0, |(_, millis)| *millis);
    let margin: Duration = parts.tuning.publish_deadline + MAX_CLOCK_DRIFT;
    seen.saturating_sub(u64::try_from(margin.as_millis()).unwrap_or(u64::MAX))
}

/// Reads the next page of a replay.
pub(crate) async fn step(
    parts: &Parts,
    channel: &Channel,
    replay: &mut Replay,
    cursor: &Cursor,
) -> Result<Step, MetadataError> {
    match replay {
        Replay::Here(position) => step_here(parts, channel, position).await,
        Replay::Elsewhere {
            position,
            next,
            until,
        } => {
            let page = parts
                .store
                .history(&channel.name, Direction::After(*next), PAGE)
                .await?;
            if let Some(last) = page.entries.last() {
                *next = last.message.message_id;
            }
            let wanted = |entry: &&HistoryEntry| {
                let source = RegionTag::from(&entry.message.region);
                (entry.epoch, entry.offset) <= *until
                    && entry.message.message_id.millis() > bound(parts, position, source)
            };
            // The position stays the old one until the session is live here: a replay that is cut off
            // starts anew.
            let old: Bytes = position.encode(&channel.name).into();
            let entries = page
                .entries
                .iter()
                .filter(wanted)
                .map(|entry| encode(entry, old.clone()))
                .collect();
            Ok(Step {
                entries,
                live: (!page.more).then(|| cursor.clone()),
            })
        }
    }
}

async fn step_here(
    parts: &Parts,
    channel: &Channel,
    position: &mut Position,
) -> Result<Step, MetadataError> {
    let after = (position.epoch, position.offset);
    let threshold = parts.tuning.slow_reader_pending;
    let near = channel.cursors(|ring, _| {
        ring.after(after)
            .filter(|cursor| ring.pending(cursor) <= threshold)
    });
    if near.is_some() {
        return Ok(Step {
            entries: Vec::new(),
            live: near,
        });
    }
    let page = parts
        .store
        .history_appended_after(&channel.name, after.0, after.1, PAGE)
        .await?;
    let mut entries = Vec::with_capacity(page.entries.len() + 1);
    let Some(first) = page.entries.first() else {
        // The log has the rest; if not, history has forgotten what came between.
        return Ok(
            match channel.cursors(|ring, _| ring.after(after).ok_or_else(|| ring.oldest())) {
                Ok(cursor) => Step {
                    entries,
                    live: Some(cursor),
                },
                Err(oldest) => {
                    entries.push(expired(channel, position, oldest.position.clone(), 0));
                    Step {
                        entries,
                        live: Some(oldest),
                    }
                }
            },
        );
    };
    if first.epoch == after.0 && first.offset > after.1.next() {
        let to = Position {
            offset: Offset(first.offset.0 - 1),
            ..position.clone()
        };
        let missed = first.offset.0 - after.1.0 - 1;
        entries.push(expired(
            channel,
            position,
            to.encode(&channel.name).into(),
            missed,
        ));
    }
    for entry in &page.entries {
        position.epoch = entry.epoch;
        position.offset = entry.offset;
        let source = RegionTag::from(&entry.message.region);
        let millis = entry.message.message_id.millis();
        match position
            .seen
            .iter_mut()
            .find(|(region, _)| *region == source)
        {
            Some((_, newest)) => *newest = millis.max(*newest),
            None => position.seen.push((source, millis)),
        }
        entries.push(encode(entry, position.encode(&channel.name).into()));
    }
    Ok(Step {
        entries,
        live: None,
    })
}

fn encode(entry: &HistoryEntry, position: Bytes) -> Bytes {
    infrachat_proto::event_entry(Kind::Message(infrachat_proto::message_to_wire(
        &entry.message,
        position,
    )))
}

fn expired(channel: &Channel, position: &Position, to: Bytes, missed: u64) -> Bytes {
    COUNTED.history_expired.count(missed);
    infrachat_proto::event_entry(Kind::Gap(chat::Gap {
        channel: channel.name.to_string(),
        from: position.encode(&channel.name).into(),
        to,
        missed,
        code: "history_expired".to_owned(),
        reason: "history no longer has what came after the position".to_owned(),
    }))
}
