//! The `chat-shard` program.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use infrachat_backends::{BackendOptions, Backends, VerifierOptions};
use infrachat_runtime::{signals, telemetry};
use infrachat_shard::{Dependencies, Shard, ShardConfig};
use infrachat_types::WallClock;

/// ChatShard: holds the clients' sessions, and carries their messages.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    config: ShardConfig,
    #[command(flatten)]
    backends: BackendOptions,
    #[command(flatten)]
    verifier: VerifierOptions,
    #[command(flatten)]
    telemetry: telemetry::Options,
}

#[tokio::main]
async fn main() -> ExitCode {
    infrachat_runtime::exit_code(run(Options::parse()).await)
}

async fn run(options: Options) -> anyhow::Result<()> {
    let stop = signals::stop();
    let process = telemetry::Process {
        service: "chat-shard",
        region: options.backends.region.to_string(),
        shard: Some(options.config.shard.to_string()),
        project: options.backends.project.clone(),
    };
    let _telemetry = telemetry::start(&options.telemetry, &process).await?;
    let Some(shard) = stop.run_until_cancelled(Box::pin(bind(options))).await else {
        return Ok(());
    };
    let shard = shard?;
    tracing::info!(listen = %shard.address(), "serving");
    shard.run(stop).await?;
    Ok(())
}

/// Ready to serve.
async fn bind(options: Options) -> anyhow::Result<Shard> {
    let backends = Backends::connect(&options.backends).await?;
    let dependencies = Dependencies {
        region: backends.region,
        stores: backends.stores,
        bus: backends.bus,
        presence: backends.presence,
        verifier: Arc::new(options.verifier.verifier()?),
        revocations: backends.revocations,
        clock: WallClock::default(),
    };
    Ok(Shard::bind(options.config, dependencies).await?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Options::command().debug_assert();
    }
}
