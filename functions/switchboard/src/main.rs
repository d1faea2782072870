//! The `switchboard` program.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use infrachat_bus::{EventBus, MemoryFabric};
use infrachat_identity::{MemoryRevocations, RemoteKeys, TokenVerifier};
use infrachat_metadata::{MemoryMetadata, Metadata};
use infrachat_switchboard::{Config, Dependencies, Switchboard};
use infrachat_types::Region;
use tokio_util::sync::CancellationToken;

/// Says where channels live.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    config: Config,
    /// The region to serve.
    #[arg(long, env = "INFRACHAT_REGION")]
    region: Region,
    /// All regions of the deployment.
    #[arg(
        long,
        env = "INFRACHAT_REGIONS",
        value_delimiter = ',',
        required = true
    )]
    regions: Vec<Region>,
    /// Whose access tokens are accepted: the issuer, "=", and the URL of its key set.
    #[arg(long, env = "INFRACHAT_ISSUERS", value_delimiter = ',', value_parser = issuer, required = true)]
    issuers: Vec<(String, String)>,
    /// Where the regions' records are kept.
    #[arg(long, env = "INFRACHAT_METADATA", value_enum)]
    metadata: MetadataKind,
    /// What carries the events.
    #[arg(long, env = "INFRACHAT_BUS", value_enum)]
    bus: BusKind,
    /// What to log, as `RUST_LOG` expressions.
    #[arg(long, env = "INFRACHAT_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MetadataKind {
    /// In this process, shared with no other: to try this service alone.
    Memory,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BusKind {
    /// In this process, shared with no other: to try this service alone.
    Memory,
}

fn issuer(text: &str) -> Result<(String, String), String> {
    // An issuer may be a URL with "=" in it, a key set's place hardly.
    let (issuer, url) = text.rsplit_once('=').ok_or("use ISSUER=URL")?;
    Ok((issuer.to_owned(), url.to_owned()))
}

fn store(kind: MetadataKind) -> Arc<dyn Metadata> {
    match kind {
        MetadataKind::Memory => Arc::new(MemoryMetadata::new()),
    }
}

fn bus(kind: BusKind, region: &Region) -> Arc<dyn EventBus> {
    match kind {
        BusKind::Memory => Arc::new(MemoryFabric::default().bus(region.as_str())),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    infrachat_runtime::telemetry::init(&options.log);
    ensure!(
        options.regions.contains(&options.region),
        "--region {} is not among --regions",
        options.region
    );
    let stores: BTreeMap<_, _> = options
        .regions
        .into_iter()
        .map(|region| (region, store(options.metadata)))
        .collect();
    let dependencies = Dependencies {
        bus: bus(options.bus, &options.region),
        region: options.region,
        stores,
        verifier: Arc::new(TokenVerifier::new(Arc::new(RemoteKeys::new(
            options.issuers,
        )?))),
        revocations: Arc::new(MemoryRevocations::new()),
    };
    let switchboard = Switchboard::bind(options.config, dependencies).await?;
    tracing::info!(address = %switchboard.address(), "serving");
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        infrachat_runtime::signals::shutdown().await;
        stopping.cancel();
    });
    switchboard.run(stop).await.context("serving")
}
