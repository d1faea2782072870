//! Both regions in one process, as `infrachat-local` runs them, but with spans that are sent.

use infrachat_local::{LocalConfig, LocalStack, Ports, RegionConfig};
use infrachat_runtime::{signals, telemetry};
use infrachat_types::{Region, WallClock};

use super::world::REGIONS;

/// Where it listens, and who takes its spans.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// First port of the first region; the second starts ten above.
    #[arg(long)]
    first_port: u16,
    #[command(flatten)]
    telemetry: telemetry::Options,
}

/// Serves until it is stopped.
pub(crate) fn serve(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let process = telemetry::Process {
        service: "chat-shard",
        region: String::new(),
        shard: None,
        project: String::new(),
    };
    let _telemetry = telemetry::start(&options.telemetry, &process).await?;
    let mut regions = Vec::new();
    for (region, first) in REGIONS
        .iter()
        .zip([options.first_port, options.first_port + 10])
    {
        regions.push(RegionConfig {
            region: Region::new(region)?,
            ports: Ports {
                gatekeeper: first,
                switchboard: first + 1,
                shards: vec![first + 2, first + 3],
            },
            clock: WallClock::default(),
        });
    }
    let stack = LocalStack::start(LocalConfig::two_regions(regions)).await?;
    signals::shutdown().await;
    stack.stop().await;
    Ok(())
}
