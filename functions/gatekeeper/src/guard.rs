//! Who calls, and how often they may.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use infrachat_identity::{Quota, RateLimiter, RetryAfter};
use infrachat_types::UserName;
use tonic::metadata::MetadataMap;

use crate::{Config, counted::COUNTED};

/// What limits are counted by: an IPv4 address, or the /64 of an IPv6 address, which is what one
/// subscriber has.
pub(crate) fn caller(
    peer: Option<SocketAddr>,
    metadata: &MetadataMap,
    trusted_proxies: usize,
) -> String {
    let forwarded = trusted_proxies
        .checked_sub(1)
        .and_then(|from_right| forwarded_for(metadata, from_right));
    match forwarded.or(peer.map(|peer| peer.ip())) {
        None => "unknown".to_owned(),
        Some(address) => match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        },
    }
}

/// Counted from the right, since whatever is further left is the client's own claim.
fn forwarded_for(metadata: &MetadataMap, from_right: usize) -> Option<IpAddr> {
    let values: Vec<_> = metadata
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let index = values.len().checked_sub(from_right + 1)?;
    values[index].trim().parse().ok()
}

/// The limits.
#[derive(Debug)]
pub(crate) struct Guard {
    limiter: Arc<dyn RateLimiter>,
    registrations: Quota,
    sign_ins: Quota,
    account: Quota,
    refreshes: Quota,
}

impl Guard {
    pub(crate) fn new(limiter: Arc<dyn RateLimiter>, config: &Config) -> Self {
        Self {
            limiter,
            registrations: Quota::per_minute(config.registrations_per_minute_per_address),
            sign_ins: Quota::per_minute(config.sign_ins_per_minute_per_address),
            account: Quota::per_minute(config.sign_ins_per_minute_per_account),
            refreshes: Quota::per_minute(config.refreshes_per_minute_per_address),
        }
    }

    pub(crate) async fn registration(&self, caller: &str) -> Result<(), RetryAfter> {
        let key = format!("register:{caller}");
        let checked = self.limiter.check(&key, self.registrations).await;
        checked.inspect_err(|_| COUNTED.registrations_limited.increment(1))
    }

    pub(crate) async fn sign_in(&self, caller: &str) -> Result<(), RetryAfter> {
        let key = format!("sign-in:{caller}");
        let checked = self.limiter.check(&key, self.sign_ins).await;
        checked.inspect_err(|_| COUNTED.sign_ins_limited.increment(1))
    }

    /// Counted before the password is looked at, and whether it is right or not: guesses that are
    /// made at the same time can't outrun the count.
    pub(crate) async fn account(&self, user: &UserName) -> Result<(), RetryAfter> {
        let key = format!("account:{user}");
        let checked = self.limiter.check(&key, self.account).await;
        checked.inspect_err(|_| COUNTED.accounts_limited.increment(1))
    }

    pub(crate) async fn refresh(&self, caller: &str) -> Result<(), RetryAfter> {
        let key = format!("refresh:{caller}");
        let checked = self.limiter.check(&key, self.refreshes).await;
        checked.inspect_err(|_| COUNTED.refreshes_limited.increment(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(peer: &str, forwarded: &[&str], trusted: usize) -> String {
        let mut metadata = MetadataMap::new();
        for value in forwarded {
            metadata.append("x-forwarded-for", value.parse().expect("a value"));
        }
        caller(Some(peer.parse().expect("an address")), &metadata, trusted)
    }

    #[test]
    fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
        let claimed = &["6.6.6.6, 1.2.3.4", "10.0.0.1"];
        assert_eq!(called("9.9.9.9:1", claimed, 0), "9.9.9.9");
        assert_eq!(called("9.9.9.9:1", claimed, 1), "10.0.0.1");
        assert_eq!(called("9.9.9.9:1", claimed, 2), "1.2.3.4");
        assert_eq!(called("9.9.9.9:1", claimed, 4), "9.9.9.9");
        assert_eq!(called("9.9.9.9:1", &["nonsense"], 1), "9.9.9.9");
    }

    #[test]
    fn neighbours_in_a_64_are_one_caller() {
        let one = called("[2001:db8:1:2::1]:5", &[], 0);
        assert_eq!(one, called("[2001:db8:1:2:ffff::9]:5", &[], 0));
        assert_ne!(one, called("[2001:db8:1:3::1]:5", &[], 0));
        assert_eq!(called("[::ffff:1.2.3.4]:5", &[], 0), "1.2.3.4");
    }
}
