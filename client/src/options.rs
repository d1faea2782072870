//! What a client is told at the start.

use std::{fmt, time::Duration};

use infrachat_types::{Region, SlowReaderPolicy, UserName};

use crate::{Backoff, Network};

/// A password, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignIn {
    /// Sign in a user that exists.
    #[default]
    Login,
    /// Sign in, and register the user when there is none of that name.
    LoginOrRegister,
    /// Register a new user; refused with `user_exists` when the name is taken.
    Register,
}

/// How a client behaves. [`Options::new`] fills in what is usual.
#[derive(Debug, Clone)]
pub struct Options {
    /// "host:port" of a Gatekeeper. Port 443 and `https://` mean TLS.
    pub server: String,
    /// Who signs in.
    pub user: UserName,
    /// Their password, kept to sign in anew when a sign-in can't be refreshed.
    pub password: Password,
    /// How to sign in.
    pub sign_in: SignIn,
    /// Program and version, for the servers' logs.
    pub client: String,
    /// How long signing in waits where it is told to wait.
    pub sign_in_deadline: Duration,
    /// How long a message is tried before it fails.
    pub publish_deadline: Duration,
    /// How long a join or another call is tried before it fails.
    pub call_deadline: Duration,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Regions to go to, in this order, while the own one is of no help; none: it is waited for.
    pub fallback_regions: Vec<Region>,
    /// How long a region is tried before the next one is.
    pub failover_after: Duration,
    /// How often to send a heartbeat; `None` leaves it to the shard.
    pub heartbeat: Option<Duration>,
    /// Events that wait for the application; beyond, the stream is not read.
    pub event_buffer: usize,
    /// Messages that may wait for their acknowledgement in all channels together.
    pub max_waiting: usize,
    /// Seeds the waits' jitter; `None` takes a random one.
    pub seed: Option<u64>,
    /// How servers are reached.
    pub network: Network,
}

impl Options {
    /// The usual behaviour, for a user who exists.
    pub fn new(server: impl Into<String>, user: UserName, password: Password) -> Self {
        Self {
            server: server.into(),
            user,
            password,
            sign_in: SignIn::Login,
            client: concat!("infrachat-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            sign_in_deadline: Duration::from_secs(15),
            publish_deadline: Duration::from_secs(30),
            call_deadline: Duration::from_secs(15),
            backoff: Backoff::default(),
            fallback_regions: Vec::new(),
            failover_after: Duration::from_secs(10),
            heartbeat: None,
            event_buffer: 256,
            max_waiting: 65_536,
            seed: None,
            network: Network::default(),
        }
    }
}

/// How to join a channel.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinOptions {
    /// How many recent messages to receive first.
    pub recent: u32,
    /// What to do when this client can't keep up; `None` leaves it to the channel.
    pub slow_reader: Option<SlowReaderPolicy>,
}
