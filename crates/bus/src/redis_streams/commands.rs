//! What is asked of one region's Redis. Each script's keys have one hash tag, so they are on one node
//! of a cluster.

use std::{fmt, future::Future, time::Duration};

use infrachat_redis_link::{RedisLink, RedisTarget};
use redis::{RedisError, RedisResult, Script, Value, aio::MultiplexedConnection};

use super::entry::{RawEntry, StreamId};
use crate::{BusError, Event};

/// How long one answer may take, reconnecting included.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long the server waits for an entry before it says that none came.
const BLOCK: Duration = Duration::from_secs(5);
/// The one name under which consumers read: whoever holds the lease is the active one.
const ACTIVE: &str = "active";

/// The stream; of each entry the number of its fields and values, then these. All are added, or
/// none: 0 when there is no such stream.
const PUBLISH: &str = r"
local at = 1
while at <= #ARGV do
  local size = tonumber(ARGV[at])
  local id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV, at + 1, at + size))
  if not id then return 0 end
  at = at + size + 1
end
return 1
";

/// The lease; who asks, the new token and the time to live. Answers 0 when it is another's, 1 when
/// it was free, 2 when it was the asker's.
const TAKE: &str = r"
local holder = redis.call('GET', KEYS[1])
local own = holder and string.sub(holder, 1, #ARGV[1]) == ARGV[1]
if holder and not own then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return own and 2 or 1
";

/// The lease; who asks.
const RELEASE: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
";

/// The stream and the lease; the token, its time to live, the group, the consumer, how many and from
/// where. Nothing is read without the lease. Answers whether it was held, the entries, and when these
/// were the last, the stream's newest id.
const READ: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {0, {}, false} end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local count = tonumber(ARGV[5])
if count == 0 then return {1, {}, false} end
local reply = redis.call('XREADGROUP', 'GROUP', ARGV[3], ARGV[4], 'COUNT', count,
  'STREAMS', KEYS[1], ARGV[6])
local entries = reply and reply[1][2] or {}
local newest = false
if #entries < count then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then newest = info[i + 1] end
  end
end
return {1, entries, newest}
";

/// The stream. Trims what every group has acknowledged: up to the first entry that is pending in any
/// group, or that a group has not been given. `~` only frees whole blocks, which costs next to
/// nothing.
const TRIM: &str = r"
local function parts(id)
  local time, number = string.match(id, '(%d+)-(%d+)')
  return tonumber(time), tonumber(number)
end
local floor, floor_time, floor_number
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  local id = info['last-delivered-id']
  if info['pending'] > 0 then id = redis.call('XPENDING', KEYS[1], info['name'])[2] end
  local time, number = parts(id)
  if not floor or time < floor_time or (time == floor_time and number < floor_number) then
    floor, floor_time, floor_number = id, time, number
  end
end
if floor then return redis.call('XTRIM', KEYS[1], 'MINID', '~', floor) end
return 0
";

/// Why Redis did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    #[error("it does not exist")]
    Missing,
    #[error("{0}")]
    Away(String),
}

impl Failure {
    /// As an error about `what`.
    pub(super) fn about(self, what: &dyn fmt::Display) -> BusError {
        match self {
            Self::Missing => BusError::NotFound(what.to_string()),
            Self::Away(why) => BusError::Unavailable(why),
        }
    }
}

impl From<RedisError> for Failure {
    fn from(err: RedisError) -> Self {
        let text = err.to_string();
        // Of these errors the client makes no kinds.
        if text.contains("NOGROUP") || text.contains("no such key") {
            Self::Missing
        } else {
            Self::Away(text)
        }
    }
}

/// One region's Redis.
pub(super) struct Redis {
    link: RedisLink,
    publish: Script,
    take: Script,
    release: Script,
    read: Script,
    trim: Script,
}

/// The keys of one group's place in one topic.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) stream: String,
    pub(super) lease: String,
    pub(super) group: String,
}

/// What became of an attempt to take a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was free: others may have had it in between.
    Anew,
    /// It was this consumer's, and stayed so all the while.
    Kept,
    /// Another consumer has it.
    Others,
}

/// Who reads, and for how long each reading keeps the lease.
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) lease: Duration,
}

/// What was read while the lease was held.
pub(super) struct Batch {
    pub(super) entries: Vec<RawEntry>,
    /// There is nothing after these, up to this id.
    pub(super) newest: Option<StreamId>,
}

impl Redis {
    /// Connects by itself, now and after every loss.
    pub(super) fn new(target: &RedisTarget) -> Self {
        Self {
            link: RedisLink::new(target, PATIENCE, "bus"),
            publish: Script::new(PUBLISH),
            take: Script::new(TAKE),
            release: Script::new(RELEASE),
            read: Script::new(READ),
            trim: Script::new(TRIM),
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Result<T, Failure> {
        Ok(self.link.in_time(call).await?)
    }

    /// Makes the stream and the group exist.
    pub(super) async fn ensure(&self, place: &Place) -> Result<(), Failure> {
        let mut create = redis::cmd("XGROUP");
        create
            .arg("CREATE")
            .arg(&place.stream)
            .arg(&place.group)
            .arg("$")
            .arg("MKSTREAM");
        let mut link = self.link.clone();
        match self.in_time(create.exec_async(&mut link)).await {
            Err(Failure::Away(why)) if why.contains("BUSYGROUP") => Ok(()),
            done => done,
        }
    }

    /// Fails with [`Failure::Missing`] when there is no such stream or group.
    pub(super) async fn look_up(&self, place: &Place) -> Result<(), Failure> {
        let mut ask = redis::cmd("XPENDING");
        ask.arg(&place.stream).arg(&place.group);
        let mut link = self.link.clone();
        self.in_time(ask.exec_async(&mut link)).await
    }

    /// Adds all the events, in order, or none of them.
    pub(super) async fn publish(&self, stream: &str, events: &[Event]) -> Result<(), Failure> {
        let mut call = self.publish.key(stream);
        for event in events {
            super::entry::add(&mut call, event);
        }
        let mut link = self.link.clone();
        let added: bool = self.in_time(call.invoke_async(&mut link)).await?;
        if added { Ok(()) } else { Err(Failure::Missing) }
    }

    /// Takes the lease under a new token, after which no call with an older one reads any more.
    pub(super) async fn take(
        &self,
        place: &Place,
        who: &str,
        token: &Token<'_>,
    ) -> Result<Taken, Failure> {
        let mut call = self.take.key(&place.lease);
        call.arg(who).arg(token.text).arg(millis(token.lease));
        let mut link = self.link.clone();
        let taken: u8 = self.in_time(call.invoke_async(&mut link)).await?;
        Ok(match taken {
            0 => Taken::Others,
            1 => Taken::Anew,
            _ => Taken::Kept,
        })
    }

    pub(super) async fn release(&self, place: &Place, who: &str) -> Result<(), Failure> {
        let mut call = self.release.key(&place.lease);
        call.arg(who);
        let mut link = self.link.clone();
        self.in_time(call.invoke_async(&mut link)).await
    }

    /// Renews the lease and reads: `>` what no consumer was given, else what was given and not
    /// acknowledged, after an id. `None` when the lease was lost.
    pub(super) async fn read(
        &self,
        place: &Place,
        token: &Token<'_>,
        from: &str,
        count: usize,
    ) -> Result<Option<Batch>, Failure> {
        let mut call = self.read.key(&place.stream);
        call.key(&place.lease)
            .arg(token.text)
            .arg(millis(token.lease))
            .arg(&place.group)
            .arg(ACTIVE)
            .arg(count)
            .arg(from);
        let mut link = self.link.clone();
        let answer = self.in_time(call.invoke_async(&mut link)).await?;
        let (held, entries, newest): (bool, Vec<RawEntry>, Option<String>) = answer;
        Ok(held.then(|| Batch {
            entries,
            newest: newest.and_then(|id| id.parse().ok()),
        }))
    }

    pub(super) async fn ack(&self, place: &Place, ids: &[StreamId]) -> Result<(), Failure> {
        let mut call = redis::cmd("XACK");
        call.arg(&place.stream).arg(&place.group);
        for id in ids {
            call.arg(id.to_string());
        }
        let mut link = self.link.clone();
        self.in_time(call.exec_async(&mut link)).await
    }

    pub(super) async fn trim(&self, stream: &str) -> Result<(), Failure> {
        let call = self.trim.key(stream);
        let mut link = self.link.clone();
        self.in_time(call.invoke_async(&mut link)).await
    }

    /// A connection on which a wait holds nobody else up.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        Ok(self.link.separate(BLOCK + PATIENCE).await?)
    }
}

/// Waits a while for an entry after an id, and answers whether there is one.
pub(super) async fn arrival(
    mut connection: MultiplexedConnection,
    stream: String,
    after: StreamId,
) -> Result<bool, Failure> {
    let mut wait = redis::cmd("XREAD");
    wait.arg("COUNT")
        .arg(1)
        .arg("BLOCK")
        .arg(millis(BLOCK))
        .arg("STREAMS")
        .arg(stream)
        .arg(after.to_string());
    let came: Value = wait.query_async(&mut connection).await?;
    Ok(came != Value::Nil)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
