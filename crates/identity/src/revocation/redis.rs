//! Revocations in Redis or Valkey.
//!
//! Users are spread over a fixed number of slots. All keys of a slot carry the same hash tag, so a
//! script finds them on one node of a cluster:
//!
//! | key | what |
//! |---|---|
//! | `{<prefix>:revocations:<slot>}` | sorted set of the slot's revocations, by `forget_after` |
//! | `… :<user> <family>` | `issued_until` of one; the family is empty for all of the user's |
//!
//! Every key lives until the `forget_after` of what is in it.

use std::fmt;

use async_trait::async_trait;
use infrachat_types::{TokenFamilyId, UserName};
use redis::Script;

use super::{Revocation, Revocations, RevocationsUnavailable};
use crate::{
    Claims,
    redis::{BadRedisUrl, Link, in_time},
};

/// How many slots there are: part of the format of what is stored.
const SLOTS: u64 = 16;

/// The index and one revocation; what to call it in the index, `issued_until` and `forget_after`.
/// The later of each holds. What the index lists past its time is taken out of it.
const REVOKE: &str = r"
local index, entry = KEYS[1], KEYS[2]
local member, issued_until, forget_after = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. now)
local until_before = redis.call('GET', entry)
local forget_before = redis.call('ZSCORE', index, member)
if until_before and forget_before then
  issued_until = math.max(issued_until, tonumber(until_before))
  forget_after = math.max(forget_after, tonumber(forget_before))
end
if forget_after < now then return end
redis.call('SET', entry, issued_until)
redis.call('PEXPIREAT', entry, forget_after)
redis.call('ZADD', index, forget_after, member)
local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
redis.call('PEXPIREAT', index, last[2])
";

/// The index; each member, `issued_until` and `forget_after`.
const ALL: &str = r"
local index = KEYS[1]
local all = {}
local members = redis.call('ZRANGE', index, 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
  local issued_until = redis.call('GET', index .. ':' .. members[i])
  if issued_until then
    all[#all + 1] = {members[i], issued_until, members[i + 1]}
  end
end
return all
";

/// A region's revocations, in its Redis.
///
/// Every call answers within a second, with an error when Redis does not. A Redis that lost its
/// content knows no revocations: fill it again before it is asked.
pub struct RedisRevocations {
    link: Link,
    prefix: String,
    revoke: Script,
    all: Script,
}

impl RedisRevocations {
    /// Revocations in the Redis at `redis://…`, or over TLS at `rediss://…`, under keys that start
    /// with the prefix. Certificates are checked against those of the system, or of `SSL_CERT_FILE`.
    ///
    /// It connects by itself, now and after every loss, and needs no Redis to be there yet. Call it
    /// within a Tokio runtime.
    ///
    /// # Errors
    /// When the URL can't be understood.
    pub fn connect(url: &str, prefix: &str) -> Result<Self, BadRedisUrl> {
        Ok(Self {
            link: Link::new(url)?,
            prefix: prefix.to_owned(),
            revoke: Script::new(REVOKE),
            all: Script::new(ALL),
        })
    }

    fn index(&self, slot: u64) -> String {
        format!("{{{}:revocations:{slot}}}", self.prefix)
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
fn slot(user: &UserName) -> u64 {
    let hash = user
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    hash % SLOTS
}

fn member(user: &UserName, family: Option<&TokenFamilyId>) -> String {
    format!("{user} {}", family.map_or("", TokenFamilyId::as_str))
}

fn parse((member, issued_until, forget_after): &(String, i64, i64)) -> Option<Revocation> {
    let (user, family) = member.split_once(' ')?;
    Some(Revocation {
        user: UserName::new(user).ok()?,
        family: (!family.is_empty()).then(|| TokenFamilyId::from_text(family)),
        issued_until: *issued_until,
        forget_after: *forget_after,
    })
}

#[async_trait]
impl Revocations for RedisRevocations {
    async fn revoke(&self, revocation: Revocation) -> Result<(), RevocationsUnavailable> {
        let index = self.index(slot(&revocation.user));
        let member = member(&revocation.user, revocation.family.as_ref());
        let mut call = self.revoke.key(&index);
        call.key(format!("{index}:{member}"))
            .arg(member)
            .arg(revocation.issued_until)
            .arg(revocation.forget_after);
        let mut connection = self.link.connection();
        in_time(call.invoke_async(&mut connection))
            .await
            .map_err(RevocationsUnavailable)
    }

    async fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsUnavailable> {
        let index = self.index(slot(&claims.user));
        let mut ask = redis::cmd("MGET");
        for family in [None, Some(&claims.family)] {
            ask.arg(format!("{index}:{}", member(&claims.user, family)));
        }
        let mut connection = self.link.connection();
        let issued_until: Vec<Option<i64>> = in_time(ask.query_async(&mut connection))
            .await
            .map_err(RevocationsUnavailable)?;
        Ok(issued_until
            .into_iter()
            .flatten()
            .any(|until| claims.issued_at <= until))
    }

    async fn all(&self) -> Result<Vec<Revocation>, RevocationsUnavailable> {
        let mut all = Vec::new();
        for slot in 0..SLOTS {
            let call = self.all.key(self.index(slot));
            let mut connection = self.link.connection();
            let listed: Vec<_> = in_time(call.invoke_async(&mut connection))
                .await
                .map_err(RevocationsUnavailable)?;
            // What can't be read was not written here, and revokes nothing.
            all.extend(listed.iter().filter_map(parse));
        }
        Ok(all)
    }
}
