//! The `gatekeeper` binary.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use infrachat_bus::{FabricConfig, MemoryFabric};
use infrachat_gatekeeper::{Config, Dependencies, Gatekeeper};
use infrachat_identity::{KeyRing, MemoryLimiter, MemoryRevocations, SigningKey};
use infrachat_metadata::{MemoryMetadata, Metadata};
use infrachat_types::Region;
use tokio_util::sync::CancellationToken;

/// Registration and sign-in.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    config: Config,
    /// Where users and sign-ins are kept.
    #[arg(long, env = "INFRACHAT_METADATA")]
    metadata: MetadataKind,
    /// A file with the Ed25519 key that signs access tokens, PKCS#8 PEM. Without one, a key is made
    /// that ends with the process, and its tokens with it.
    #[arg(long, env = "INFRACHAT_SIGNING_KEY")]
    signing_key: Option<PathBuf>,
    /// Files with further keys to publish: the previous one, or the next.
    #[arg(long, env = "INFRACHAT_PUBLISHED_KEYS", value_delimiter = ',')]
    published_keys: Vec<PathBuf>,
    /// Which log lines to write, as in `RUST_LOG`.
    #[arg(long, env = "INFRACHAT_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MetadataKind {
    /// In this process, for this region alone, gone when it ends: for trying it.
    Memory,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    infrachat_runtime::telemetry::init(&options.log);
    let keys = keys(&options)?;
    let dependencies = match options.metadata {
        MetadataKind::Memory => in_memory(&options.config.region, keys),
    };
    let gatekeeper = Gatekeeper::bind(options.config, dependencies).await?;
    tracing::info!(listen = %gatekeeper.address(), "serving");
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        infrachat_runtime::signals::shutdown().await;
        signalled.cancel();
    });
    gatekeeper.run(stop).await?;
    Ok(())
}

fn in_memory(region: &Region, keys: KeyRing) -> Dependencies {
    let store: Arc<dyn Metadata> = Arc::new(MemoryMetadata::new());
    let fabric = MemoryFabric::new(FabricConfig::default());
    Dependencies {
        stores: BTreeMap::from([(region.clone(), store)]),
        bus: Arc::new(fabric.bus(region.as_str())),
        limiter: Arc::new(MemoryLimiter::new()),
        revocations: Arc::new(MemoryRevocations::new()),
        keys,
    }
}

fn keys(options: &Options) -> anyhow::Result<KeyRing> {
    let read = |path: &PathBuf| {
        let at = || format!("the key in {}", path.display());
        let pem = std::fs::read_to_string(path).with_context(at)?;
        SigningKey::from_pem(&pem).with_context(at)
    };
    let signing = match &options.signing_key {
        Some(path) => read(path)?,
        None => {
            tracing::warn!("no --signing-key: access tokens end with this process");
            SigningKey::generate()?
        }
    };
    let mut published = options.published_keys.iter().map(read);
    published.try_fold(KeyRing::new(signing), |ring, key| Ok(ring.publish(key?)))
}
