//! The `gatekeeper` program.

use std::{num::NonZeroU32, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use infrachat_backends::{BackendOptions, Backends};
use infrachat_gatekeeper::{Config, Dependencies, Gatekeeper};
use infrachat_identity::{KeyRing, SigningKey};
use infrachat_runtime::{signals, telemetry};

/// Gatekeeper: registers users, signs them in, and hands out access tokens.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    backends: BackendOptions,
    /// A file with the Ed25519 key that signs access tokens, PKCS#8 PEM. Without one, a key is made
    /// that ends with the process, and its tokens with it.
    #[arg(long, env = "INFRACHAT_SIGNING_KEY", value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// Files with further keys to publish, comma-separated: the previous one, or the next.
    #[arg(
        long,
        env = "INFRACHAT_PUBLISHED_KEYS",
        value_name = "FILE,…",
        value_delimiter = ','
    )]
    published_keys: Vec<PathBuf>,
    /// How many Gatekeepers run in this region at most: while Redis is away each allows that part of
    /// every rate limit.
    #[arg(long, env = "INFRACHAT_GATEKEEPERS", default_value = "4")]
    gatekeepers: NonZeroU32,
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
        service: "gatekeeper",
        region: options.backends.region.to_string(),
        shard: None,
        project: options.backends.project.clone(),
    };
    let _telemetry = telemetry::start(&options.telemetry, &process).await?;
    let Some(gatekeeper) = stop.run_until_cancelled(Box::pin(bind(options))).await else {
        return Ok(());
    };
    let gatekeeper = gatekeeper?;
    tracing::info!(listen = %gatekeeper.address(), "serving");
    gatekeeper.run(stop).await?;
    Ok(())
}

/// Ready to serve.
async fn bind(options: Options) -> anyhow::Result<Gatekeeper> {
    let keys = keys(&options)?;
    let backends = Backends::connect(&options.backends).await?;
    let dependencies = Dependencies {
        limiter: backends.limiter(options.gatekeepers),
        region: backends.region,
        stores: backends.stores,
        bus: backends.bus,
        revocations: backends.revocations,
        keys,
        hearing: backends.hearing,
    };
    Ok(Gatekeeper::bind(options.config, dependencies).await?)
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Options::command().debug_assert();
    }
}
