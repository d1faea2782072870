//! What is done in Redis at once, and by its clock.
//!
//! Each script is given the slot's index as its key, and makes the others from it: they have the same
//! hash tag.

use redis::Script;

/// Functions that the scripts share.
const COMMON: &str = r"
local index = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function names_of(channel) return index .. ':names:' .. channel end
local function until_of(channel) return index .. ':until:' .. channel end
local function seats_of(channel, user) return index .. ':seats:' .. channel .. ' ' .. user end
local function member_of(channel, user, seat) return channel .. ' ' .. user .. ' ' .. seat end

-- Lets a key live for an hour beyond what is in it.
local function keep(key, millis)
  if redis.call('PTTL', key) < millis + 3600000 then
    redis.call('PEXPIRE', key, millis + 3600000)
  end
end

-- A user is there until their last seat expires.
local function settle(channel, user)
  local last = redis.call('ZREVRANGE', seats_of(channel, user), 0, 0, 'WITHSCORES')
  if last[1] then
    redis.call('ZADD', until_of(channel), last[2], user)
    return false
  end
  redis.call('ZREM', until_of(channel), user)
  redis.call('ZREM', names_of(channel), user)
  return true
end
";

/// The seats' time to live, then channel, user and seat of each; whether each user came.
const TAKE: &str = r"
local ttl = tonumber(ARGV[1])
local came = {}
for i = 2, #ARGV, 3 do
  local channel, user, seat = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local before = redis.call('ZSCORE', until_of(channel), user)
  came[#came + 1] = (before and tonumber(before) > now) and 0 or 1
  redis.call('ZADD', index, now + ttl, member_of(channel, user, seat))
  redis.call('ZADD', seats_of(channel, user), now + ttl, seat)
  redis.call('ZADD', names_of(channel), 0, user)
  settle(channel, user)
  for _, key in ipairs({index, seats_of(channel, user), names_of(channel), until_of(channel)}) do
    keep(key, ttl)
  end
end
return came
";

/// Channel, user and seat; whether the user went.
const GIVE_UP: &str = r"
local channel, user, seat = ARGV[1], ARGV[2], ARGV[3]
redis.call('ZREM', index, member_of(channel, user, seat))
if redis.call('ZREM', seats_of(channel, user), seat) == 0 then return 0 end
return settle(channel, user) and 1 or 0
";

/// How many at most; each expired seat, and whether its user went by it.
const SWEEP: &str = r"
local swept = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, ARGV[1])) do
  redis.call('ZREM', index, member)
  local channel, user, seat = string.match(member, '^(%S+) (%S+) (.*)$')
  if channel then
    redis.call('ZREM', seats_of(channel, user), seat)
    swept[#swept + 1] = {member, settle(channel, user) and 1 or 0}
  end
end
return swept
";

/// Channel, where to start and how many at most; each user, and their seats that have not expired,
/// none when all have.
const LIST: &str = r"
local channel = ARGV[1]
local page = {}
local names = redis.call('ZRANGEBYLEX', names_of(channel), ARGV[2], '+', 'LIMIT', 0, ARGV[3])
for _, user in ipairs(names) do
  local seats = redis.call('ZRANGEBYSCORE', seats_of(channel, user), '(' .. now, '+inf')
  page[#page + 1] = {user, seats}
end
return page
";

/// Channel; how many users have a seat that has not expired.
const COUNT: &str = r"
return redis.call('ZCOUNT', until_of(ARGV[1]), '(' .. now, '+inf')
";

pub(super) struct Scripts {
    pub(super) take: Script,
    pub(super) give_up: Script,
    pub(super) sweep: Script,
    pub(super) list: Script,
    pub(super) count: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |body: &str| Script::new(&format!("{COMMON}{body}"));
        Self {
            take: script(TAKE),
            give_up: script(GIVE_UP),
            sweep: script(SWEEP),
            list: script(LIST),
            count: script(COUNT),
        }
    }
}
