//! Revocations in Redis or Valkey.
//!
//! Users are spread over a fixed number of slots. All keys of a slot carry the same hash tag, so a
//! script finds them on one node of a cluster:
//!
//! | key, after `{<prefix>:revocations:<slot>}:` | what | lives |
//! |---|---|---|
//! | `<user> <family>` | `issued_until` of one; the family is empty for all of the user's | until its `forget_after` |
//! | `whole` | the run of the server that was filled | a day |
//! | `filling:<fill>` | the run of the server that is being filled | a minute |
//!
//! A run is one life of one server process, up to its next eviction of keys. So a server that was
//! emptied, that made room, that was restarted with whatever it had saved, or that replaced another
//! with what had been replicated to it by then, is not taken for whole.

use std::{fmt, future::Future};

use infrachat_redis_link::{RedisLink, RedisTarget};
use infrachat_types::{TokenFamilyId, UnixMillis, UserName};
use redis::Script;

use super::{Revocation, RevocationsUnavailable};
use crate::{Claims, REDIS_PATIENCE};

/// How many slots there are: part of the format of what is stored.
const SLOTS: u64 = 16;
/// Revocations in one call of a script, which holds up all other calls.
const AT_ONCE: usize = 500;
/// The end of the year 9999. Redis refuses to keep anything for much longer.
const LATEST: UnixMillis = 253_402_300_799_000;

/// The server's run: what the other scripts begin with.
const RUN: &str = r"
local life = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local run = life .. ' ' .. string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)')
";

/// Revocations; `issued_until` and `forget_after` of each. The later of each holds.
const ADD: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, entry in ipairs(KEYS) do
  local issued_until, forget_after = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local before = redis.call('GET', entry)
  if before then
    issued_until = math.max(issued_until, tonumber(before))
    forget_after = math.max(forget_after, now + redis.call('PTTL', entry))
  end
  if forget_after >= now then
    redis.call('SET', entry, issued_until)
    redis.call('PEXPIREAT', entry, forget_after)
  end
end
";

/// Whether the slot is whole, and revocations that may be there.
const ASK: &str = r"
local found = redis.call('MGET', unpack(KEYS))
found[1] = found[1] == run and 1 or 0
return found
";

/// A fill of the slot.
const BEGIN: &str = r"
redis.call('SET', KEYS[1], run, 'PX', 60000)
";

/// A fill of the slot, and what says that it is whole. Answers whether all that was added since the
/// fill began is still there.
const FINISH: &str = r"
if redis.call('GET', KEYS[1]) ~= run then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], run, 'PX', 86400000)
return 1
";

/// A region's revocations, in its Redis: fast and shared, but not to be relied on alone.
///
/// It gives no answer, rather than a wrong one, while it is not known to be whole: it must have been
/// filled, by [`RedisRevocations::fill`], since its server was last started or emptied, or evicted
/// keys.
///
/// Every call to Redis answers within half a second, with an error when Redis does not.
pub struct RedisRevocations {
    link: RedisLink,
    prefix: String,
    add: Script,
    ask: Script,
    begin: Script,
    finish: Script,
}

impl RedisRevocations {
    /// Revocations in a Redis, under keys that start with the prefix. It connects by itself, at the
    /// first call and after every loss, and needs no Redis to be there yet.
    #[must_use]
    pub fn new(redis: &RedisTarget, prefix: &str) -> Self {
        let with_run = |script| Script::new(&format!("{RUN}{script}"));
        Self {
            link: RedisLink::new(redis, REDIS_PATIENCE, "revocations"),
            prefix: prefix.to_owned(),
            add: Script::new(ADD),
            ask: with_run(ASK),
            begin: with_run(BEGIN),
            finish: with_run(FINISH),
        }
    }

    fn key(&self, slot: u64, name: &str) -> String {
        format!("{{{}:revocations:{slot}}}:{name}", self.prefix)
    }

    async fn call<T: redis::FromRedisValue>(
        &self,
        call: &redis::ScriptInvocation<'_>,
    ) -> Result<T, RevocationsUnavailable> {
        let mut link = self.link.clone();
        let answer = self.link.in_time(call.invoke_async(&mut link)).await;
        answer.map_err(|err| RevocationsUnavailable(err.to_string()))
    }

    /// Adds to what is there, whether that is whole or not. Of one sign-in's, or one user's, the
    /// later times hold.
    ///
    /// # Errors
    /// When Redis does not answer; any of them may have been added.
    pub async fn add(&self, revocations: &[Revocation]) -> Result<(), RevocationsUnavailable> {
        for slot in 0..SLOTS {
            let of_slot = revocations.iter().filter(|one| slot_of(&one.user) == slot);
            let of_slot: Vec<_> = of_slot.collect();
            for some in of_slot.chunks(AT_ONCE) {
                let mut call = self.add.prepare_invoke();
                for one in some {
                    call.key(self.key(slot, &entry(&one.user, one.family.as_ref())))
                        .arg(one.issued_until.min(LATEST))
                        .arg(one.forget_after.min(LATEST));
                }
                let () = self.call(&call).await?;
            }
        }
        Ok(())
    }

    /// Whether a token that verified is revoked.
    ///
    /// # Errors
    /// When Redis does not answer, or does not know of the token and is not whole.
    pub async fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsUnavailable> {
        let slot = slot_of(&claims.user);
        let mut call = self.ask.key(self.key(slot, "whole"));
        for family in [None, Some(&claims.family)] {
            call.key(self.key(slot, &entry(&claims.user, family)));
        }
        let (whole, user, family): (bool, Option<i64>, Option<i64>) = self.call(&call).await?;
        let mut issued_until = [user, family].into_iter().flatten();
        match (issued_until.any(|until| claims.issued_at <= until), whole) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => Err(RevocationsUnavailable(
                "Redis was emptied or restarted, or is full, and was not filled again".to_owned(),
            )),
        }
    }

    /// Makes it whole with all revocations of the region, which are listed once this has begun.
    ///
    /// What was kept where it is listed before it was added here is never missing from what is then
    /// called whole, whatever happens at the same time: other fills, revocations, losses.
    ///
    /// # Errors
    /// When Redis does not answer or loses its content meanwhile, or when they can't be listed.
    pub async fn fill<F>(&self, list: impl FnOnce() -> F) -> Result<(), RevocationsUnavailable>
    where
        F: Future<Output = Result<Vec<Revocation>, RevocationsUnavailable>>,
    {
        let fill = format!("filling:{:032x}", rand::random::<u128>());
        for slot in 0..SLOTS {
            let () = self.call(&self.begin.key(self.key(slot, &fill))).await?;
        }
        self.add(&list().await?).await?;
        for slot in 0..SLOTS {
            let mut call = self.finish.key(self.key(slot, &fill));
            let kept: bool = self.call(call.key(self.key(slot, "whole"))).await?;
            if !kept {
                return Err(RevocationsUnavailable(
                    "Redis lost its content while it was filled".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RedisRevocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRevocations")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// FNV-1a over the name: part of the format of what is stored.
fn slot_of(user: &UserName) -> u64 {
    let hash = user
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    hash % SLOTS
}

/// What one is called in its slot: with a space, which no other key there has.
fn entry(user: &UserName, family: Option<&TokenFamilyId>) -> String {
    format!("{user} {}", family.map_or("", TokenFamilyId::as_str))
}
