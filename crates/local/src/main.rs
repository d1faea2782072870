//! `infrachat-local`: both regions in one process.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use infrachat_bus::FabricConfig;
use infrachat_local::{LocalConfig, LocalStack, Ports, RegionConfig};
use infrachat_shard::Tuning;
use infrachat_types::{Region, WallClock};

// glibc keeps the 19 MiB of every password hash in one of its many arenas: after a few hundred sign-ins
// that is a gigabyte.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs InfraChat with two regions in one process. Nothing is kept when it ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The address to listen on.
    #[arg(long, env = "INFRACHAT_HOST", default_value = "127.0.0.1")]
    host: String,
    /// First port of us-west1: Gatekeeper, then Switchboard, then two shards. asia-northeast1 starts
    /// ten above.
    #[arg(long, env = "INFRACHAT_FIRST_PORT", default_value_t = 8001)]
    first_port: u16,
    /// How long events take from one region to the other, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = parse_delay)]
    cross_region_delay: u64,
    /// Which log lines to write, as in `RUST_LOG`.
    #[arg(long, env = "RUST_LOG", default_value = "warn")]
    log: String,
    /// Sizes, limits and times of the shards.
    #[command(flatten)]
    tuning: Tuning,
}

/// "120", or "120ms".
fn parse_delay(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.trim_end_matches("ms").parse()
}

#[tokio::main]
async fn main() -> ExitCode {
    infrachat_runtime::exit_code(run(Options::parse()).await)
}

async fn run(options: Options) -> anyhow::Result<()> {
    infrachat_runtime::telemetry::init(&options.log);
    let ports = |first: u16| Ports {
        gatekeeper: first,
        switchboard: first + 1,
        shards: vec![first + 2, first + 3],
    };
    let regions = vec![
        RegionConfig {
            region: Region::new("us-west1")?,
            ports: ports(options.first_port),
            clock: WallClock::default(),
        },
        RegionConfig {
            region: Region::new("asia-northeast1")?,
            ports: ports(options.first_port + 10),
            clock: WallClock::default(),
        },
    ];
    let fabric = FabricConfig {
        cross_region_delay: Duration::from_millis(options.cross_region_delay),
        ..FabricConfig::default()
    };
    let config = LocalConfig {
        host: options.host,
        fabric,
        tuning: options.tuning,
        ..LocalConfig::two_regions(regions)
    };
    let stack = LocalStack::start(config).await?;
    println!("{}", banner(&stack));
    infrachat_runtime::signals::shutdown().await;
    println!("stopping ...");
    stack.stop().await;
    Ok(())
}

fn banner(stack: &LocalStack) -> String {
    let mut lines =
        vec!["InfraChat is running: two regions, nothing kept when it stops (Ctrl-C).".to_owned()];
    for region in &stack.regions {
        let shards: Vec<_> = region
            .shards
            .iter()
            .map(|shard| shard.address.to_string())
            .collect();
        lines.push(format!(
            "  {:<16} gatekeeper {}  switchboard {}  shards {}",
            region.region.as_str(),
            region.gatekeeper,
            region.switchboard,
            shards.join(" "),
        ));
    }
    lines.push("\nChat, in other terminals:".to_owned());
    for (user, region) in ["alice", "bob", "charlie"].iter().zip([0, 0, 1]) {
        let port = stack.regions[region].gatekeeper.port();
        lines.push(format!("  make chat USER={user} SERVER=localhost:{port}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Options::command().debug_assert();
    }
}
