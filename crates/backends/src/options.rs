//! What can be set, the same for every service program.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum};
use infrachat_identity::{BadIssuerUrl, RemoteKeys, TokenVerifier};
use infrachat_types::Region;

use crate::Regional;

/// What carries events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BusKind {
    /// In this process, shared with no other: to try one service alone.
    Memory,
    /// Google Cloud Pub/Sub, or an emulator of it.
    Pubsub,
    /// Streams of each region's Redis or Valkey.
    RedisStreams,
}

/// Where users, channels, history and routing records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetadataKind {
    /// In this process, gone when it ends: to try one service alone.
    Memory,
    /// Firestore, or an emulator of it: one named database a region.
    Firestore,
}

/// Where presence, revocations and rate limits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateKind {
    /// In this process, shared with no other: to try one service alone.
    Memory,
    /// The region's Redis or Valkey.
    Redis,
}

/// How a Redis knows who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RedisAuth {
    /// By the user and the password in the URL, if there are any.
    Url,
    /// By access tokens of the process's Google Cloud identity, as Memorystore does.
    Iam,
}

/// What a service program stands on.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backends")]
pub struct BackendOptions {
    /// The region to serve, such as "us-west1".
    #[arg(long, env = "INFRACHAT_REGION")]
    pub region: Region,
    /// All regions of the deployment, comma-separated, this one among them.
    #[arg(
        long,
        env = "INFRACHAT_REGIONS",
        value_delimiter = ',',
        required = true
    )]
    pub regions: Vec<Region>,
    /// What carries events.
    #[arg(long, env = "INFRACHAT_BUS")]
    pub bus: BusKind,
    /// Where users, channels, history and routing records are kept.
    #[arg(long, env = "INFRACHAT_METADATA")]
    pub metadata: MetadataKind,
    /// Where presence, revocations and rate limits are kept.
    #[arg(long, env = "INFRACHAT_STATE")]
    pub state: StateKind,
    /// The Google Cloud project of Pub/Sub and Firestore.
    #[arg(long, env = "INFRACHAT_PROJECT", default_value = "infrachat")]
    pub project: String,
    /// Firestore's databases, by region: "us-west1=name,asia-northeast1=name"; by default
    /// "infrachat-REGION".
    #[arg(
        long,
        env = "INFRACHAT_FIRESTORE_DATABASES",
        value_name = "REGION=NAME,…"
    )]
    pub firestore_databases: Option<Regional>,
    /// A Pub/Sub emulator to use instead of Google's service; may differ by region.
    #[arg(long, env = "PUBSUB_EMULATOR_HOST", value_name = "HOST:PORT")]
    pub pubsub_emulator: Option<Regional>,
    /// A Firestore emulator to use instead of Google's service.
    #[arg(long, env = "FIRESTORE_EMULATOR_HOST", value_name = "HOST:PORT")]
    pub firestore_emulator: Option<String>,
    /// This region's Redis or Valkey: "redis://…", or "rediss://…" for TLS.
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// How Redis knows who calls: by the user and password of the URL, if it has any, or by access
    /// tokens of this process's Google Cloud identity, as Memorystore does. Tokens need "rediss://".
    #[arg(long, env = "INFRACHAT_REDIS_AUTH", default_value = "url")]
    pub redis_auth: RedisAuth,
    /// A file with the certificate authorities, PEM, that may sign Redis's certificate; by default
    /// those of the system.
    #[arg(long, env = "INFRACHAT_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// With the bus redis-streams: the Redis of each region, "region=url,…"; by default all regions
    /// use this region's.
    #[arg(
        long,
        env = "INFRACHAT_BUS_REDIS_URLS",
        value_name = "REGION=URL,…",
        hide_env_values = true
    )]
    pub bus_redis_urls: Option<Regional>,
    /// Create topics and subscriptions that are missing. On a laptop; in production the
    /// infrastructure does it, and what is missing is an error.
    #[arg(long, env = "INFRACHAT_CREATE_TOPICS")]
    pub create_topics: bool,
    /// With Pub/Sub: take control events by push at /pubsub/push, with tokens of this audience.
    #[arg(
        long,
        env = "INFRACHAT_PUSH_AUDIENCE",
        requires = "push_service_account"
    )]
    pub push_audience: Option<String>,
    /// The service account that pushes.
    #[arg(
        long,
        env = "INFRACHAT_PUSH_SERVICE_ACCOUNT",
        value_name = "EMAIL",
        requires = "push_audience"
    )]
    pub push_service_account: Option<String>,
    /// With --create-topics: where the Pub/Sub emulator reaches this service, "http://host:port"; by
    /// default the address it listens on.
    #[arg(long, env = "INFRACHAT_PUSH_URL", value_name = "URL")]
    pub push_url: Option<String>,
}

/// Whose access tokens are good.
#[derive(Debug, Clone, Args)]
pub struct VerifierOptions {
    /// Whose access tokens are accepted, comma-separated: the issuer, "=", and the URL of its key set.
    #[arg(
        long,
        env = "INFRACHAT_ISSUERS",
        value_name = "ISSUER=URL",
        value_delimiter = ',',
        value_parser = issuer,
        required = true
    )]
    pub issuers: Vec<(String, String)>,
}

fn issuer(text: &str) -> Result<(String, String), String> {
    // An issuer may be a URL with "=" in it, a key set's place hardly.
    let (issuer, url) = text.rsplit_once('=').ok_or("write ISSUER=URL")?;
    Ok((issuer.to_owned(), url.to_owned()))
}

impl VerifierOptions {
    /// Verifies tokens of these issuers, whose keys are fetched from now on.
    ///
    /// # Errors
    /// When a URL is none, or not for HTTP.
    pub fn verifier(&self) -> Result<TokenVerifier, BadIssuerUrl> {
        let keys = RemoteKeys::new(self.issuers.iter().cloned())?.kept_fetched();
        Ok(TokenVerifier::new(Arc::new(keys)))
    }
}
