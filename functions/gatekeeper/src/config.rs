//! What can be configured, and the defaults.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use infrachat_types::Region;

const ACCESS_TOKEN: Duration = Duration::from_secs(10 * 60);
const REFRESH_TOKEN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const REFRESH_GRACE: Duration = Duration::from_secs(10);

const fn count(count: u32) -> NonZeroU32 {
    match NonZeroU32::new(count) {
        Some(count) => count,
        None => NonZeroU32::MIN,
    }
}

const REGISTRATIONS: NonZeroU32 = count(20);
const SIGN_INS: NonZeroU32 = count(60);
const SIGN_INS_OF_ACCOUNT: NonZeroU32 = count(10);
const REFRESHES: NonZeroU32 = count(600);

/// Gatekeeper's configuration: on the command line, in the environment, or from code.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where to listen, "host:port"; port 0 picks a free one.
    #[arg(long, env = "INFRACHAT_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: String,
    /// Where clients reach each region: "us-west1=gatekeeper:port,switchboard:port;…".
    #[arg(long, env = "INFRACHAT_ENDPOINTS", value_delimiter = ';')]
    pub endpoints: Vec<RegionEndpoints>,
    /// The `iss` of the access tokens; by default `https://gatekeeper.<region>.infrachat`.
    #[arg(long, env = "INFRACHAT_ISSUER")]
    pub issuer: Option<String>,
    /// How long an access token lasts, in seconds.
    #[arg(long = "access-token-seconds", env = "INFRACHAT_ACCESS_TOKEN_SECONDS",
        value_parser = seconds, default_value = "600")]
    pub access_token: Duration,
    /// How long a refresh token lasts when it is not used, in seconds.
    #[arg(long = "refresh-token-seconds", env = "INFRACHAT_REFRESH_TOKEN_SECONDS",
        value_parser = seconds, default_value = "2592000")]
    pub refresh_token: Duration,
    /// How long a used refresh token is taken once more, for a client that never got the answer, in
    /// seconds. Later, it revokes the sign-in.
    #[arg(long = "refresh-grace-seconds", env = "INFRACHAT_REFRESH_GRACE_SECONDS",
        value_parser = seconds, default_value = "10")]
    pub refresh_grace: Duration,
    /// Registrations a minute from one address.
    #[arg(long, env = "INFRACHAT_REGISTRATIONS_PER_MINUTE_PER_ADDRESS",
        default_value_t = REGISTRATIONS)]
    pub registrations_per_minute_per_address: NonZeroU32,
    /// Sign-ins a minute from one address.
    #[arg(long, env = "INFRACHAT_SIGN_INS_PER_MINUTE_PER_ADDRESS", default_value_t = SIGN_INS)]
    pub sign_ins_per_minute_per_address: NonZeroU32,
    /// Sign-ins a minute to one account, right password or wrong.
    #[arg(long, env = "INFRACHAT_SIGN_INS_PER_MINUTE_PER_ACCOUNT",
        default_value_t = SIGN_INS_OF_ACCOUNT)]
    pub sign_ins_per_minute_per_account: NonZeroU32,
    /// Refreshes and sign-outs a minute from one address.
    #[arg(long, env = "INFRACHAT_REFRESHES_PER_MINUTE_PER_ADDRESS", default_value_t = REFRESHES)]
    pub refreshes_per_minute_per_address: NonZeroU32,
    /// How many proxies in front append to `X-Forwarded-For`: the client's address is the entry that
    /// the outermost of them wrote. 0: the header is not believed.
    #[arg(long, env = "INFRACHAT_TRUSTED_PROXIES", default_value_t = 0)]
    pub trusted_proxies: usize,
}

impl Default for Config {
    /// As without any flag, but on a free port of the loopback interface.
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            endpoints: Vec::new(),
            issuer: None,
            access_token: ACCESS_TOKEN,
            refresh_token: REFRESH_TOKEN,
            refresh_grace: REFRESH_GRACE,
            registrations_per_minute_per_address: REGISTRATIONS,
            sign_ins_per_minute_per_address: SIGN_INS,
            sign_ins_per_minute_per_account: SIGN_INS_OF_ACCOUNT,
            refreshes_per_minute_per_address: REFRESHES,
            trusted_proxies: 0,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

/// Where clients reach a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionEndpoints {
    /// Which.
    pub region: Region,
    /// Its Gatekeeper, "host:port".
    pub gatekeeper: String,
    /// Its Switchboard, "host:port".
    pub switchboard: String,
}

/// The text is not a region with its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not valid: write region=gatekeeper-host:port,switchboard-host:port")]
pub struct BadEndpoints(String);

impl FromStr for RegionEndpoints {
    type Err = BadEndpoints;

    fn from_str(text: &str) -> Result<Self, BadEndpoints> {
        let bad = || BadEndpoints(text.to_owned());
        let (region, endpoints) = text.split_once('=').ok_or_else(bad)?;
        let (gatekeeper, switchboard) = endpoints.split_once(',').ok_or_else(bad)?;
        let has_port = |endpoint: &str| {
            endpoint
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !has_port(gatekeeper) || !has_port(switchboard) || switchboard.contains(',') {
            return Err(bad());
        }
        Ok(Self {
            region: Region::new(region).map_err(|_| bad())?,
            gatekeeper: gatekeeper.to_owned(),
            switchboard: switchboard.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        let command = Config::augment_args(clap::Command::new("gatekeeper"));
        let matches = command.try_get_matches_from([&["gatekeeper"], args].concat())?;
        Config::from_arg_matches(&matches)
    }

    #[test]
    fn the_defaults_are_the_same_on_the_command_line_and_in_code() {
        let mut parsed = parse(&[]).expect("parses");
        parsed.listen = "127.0.0.1:0".to_owned();
        let made = Config::default();
        assert_eq!(format!("{parsed:?}"), format!("{made:?}"));
    }

    #[test]
    fn endpoints_are_written_in_one_line() {
        let line = "us-west1=a:1,b:2;asia-northeast1=c:3,[::1]:4";
        let config = parse(&["--endpoints", line]).expect("parses");
        assert_eq!(config.endpoints.len(), 2);
        assert_eq!(config.endpoints[1].region.as_str(), "asia-northeast1");
        assert_eq!(config.endpoints[1].gatekeeper, "c:3");
        assert_eq!(config.endpoints[1].switchboard, "[::1]:4");
        for bad in ["", "us-west1", "us-west1=a:1", "us-west1=a,b", "X=a:1,b:2"] {
            assert!(bad.parse::<RegionEndpoints>().is_err(), "{bad}");
        }
    }
}
