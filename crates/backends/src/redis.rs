//! The Redis servers: how they are called, and whether they let us in.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures::future::try_join_all;
use infrachat_redis_link::{BadTarget, NoAnswer, RedisTarget, Tokens};

use crate::{BackendOptions, BusKind, ConnectError, RedisAuth, Regional, StateKind};

/// How long the start waits for what a Redis says.
const PATIENCE: Duration = Duration::from_secs(3);

/// The Redis servers that were chosen.
pub(crate) struct RedisServers {
    /// This region's, for presence, revocations and rate limits.
    pub(crate) state: Option<RedisTarget>,
    /// Each region's, for events.
    pub(crate) bus: BTreeMap<String, RedisTarget>,
}

impl RedisServers {
    /// Those of the options. One that is away costs a warning.
    ///
    /// # Errors
    /// When one is not named, or can't come right by itself.
    pub(crate) async fn reach(options: &BackendOptions) -> Result<Self, ConnectError> {
        let mut callers = Callers::new(options);
        let state = match (options.state, &options.redis_url) {
            (StateKind::Memory, _) => None,
            (StateKind::Redis, Some(url)) => Some(callers.target(url, "REDIS_URL")?),
            (StateKind::Redis, None) => {
                return Err(ConnectError::Missing(
                    "--state redis needs --redis-url (REDIS_URL): where this region's Redis is"
                        .to_owned(),
                ));
            }
        };
        let mut bus = BTreeMap::new();
        if options.bus == BusKind::RedisStreams {
            for region in &options.regions {
                let (urls, variable) = match &options.bus_redis_urls {
                    Some(urls) => (Some(urls.clone()), "INFRACHAT_BUS_REDIS_URLS"),
                    None => (options.redis_url.clone().map(Regional::All), "REDIS_URL"),
                };
                let url = urls.as_ref().and_then(|urls| urls.of(region));
                let url = url.ok_or_else(|| {
                    ConnectError::Missing(format!(
                        "--bus redis-streams needs --bus-redis-urls with the Redis of {region}, or --redis-url for all regions"
                    ))
                })?;
                bus.insert(region.to_string(), callers.target(url, variable)?);
            }
        }
        callers.probe().await?;
        Ok(Self { state, bus })
    }
}

/// Who calls, the same everywhere, and the servers that are called, by URL.
struct Callers<'a> {
    options: &'a BackendOptions,
    tokens: Option<Tokens>,
    targets: BTreeMap<String, (&'static str, RedisTarget)>,
}

impl<'a> Callers<'a> {
    fn new(options: &'a BackendOptions) -> Self {
        Self {
            options,
            tokens: None,
            targets: BTreeMap::new(),
        }
    }

    fn target(&mut self, url: &str, variable: &'static str) -> Result<RedisTarget, ConnectError> {
        if let Some((_, target)) = self.targets.get(url) {
            return Ok(target.clone());
        }
        let bad = |reason| bad(variable, reason);
        let mut target = RedisTarget::new(url).map_err(bad)?;
        if let Some(file) = &self.options.redis_ca {
            let pem = read(file)?;
            target = target.with_authorities(&pem).map_err(bad)?;
        }
        if self.options.redis_auth == RedisAuth::Iam {
            let tokens = self.tokens.get_or_insert_with(Tokens::google);
            target = target.with_tokens(tokens.clone()).map_err(bad)?;
        }
        let known = (variable, target.clone());
        self.targets.insert(url.to_owned(), known);
        Ok(target)
    }

    async fn probe(&self) -> Result<(), ConnectError> {
        try_join_all(self.targets.values().map(async |(variable, target)| {
            let address = target.address();
            match target.probe(PATIENCE).await {
                Ok(()) => Ok(()),
                Err(NoAnswer::Away(reason)) => {
                    tracing::warn!(%address, %reason, "Redis is away, and used once it is there");
                    Ok(())
                }
                Err(NoAnswer::Refused(reason)) => Err(ConnectError::Refused {
                    variable,
                    address,
                    reason,
                }),
            }
        }))
        .await?;
        Ok(())
    }
}

fn bad(variable: &str, reason: BadTarget) -> ConnectError {
    let other = match reason {
        BadTarget::Url(_) => "",
        BadTarget::Authorities(_) | BadTarget::AuthoritiesWithoutTls => ", INFRACHAT_REDIS_CA",
        BadTarget::TokensWithoutTls | BadTarget::TokensAndPassword => ", INFRACHAT_REDIS_AUTH=iam",
    };
    ConnectError::BadRedis {
        variables: format!("{variable}{other}"),
        reason,
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(file).map_err(|err| ConnectError::Unusable {
        part: "the certificate authority of Redis (INFRACHAT_REDIS_CA)",
        reason: format!("{}: {err}", file.display()),
    })
}
