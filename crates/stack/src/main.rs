//! `infrachat-stack`: both regions as separate processes.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, ensure};
use clap::Parser;
use infrachat_stack::{Bus, Plan, Ports, Services, Stack};
use tokio::sync::mpsc;

/// Runs InfraChat's two regions as separate processes, as in production but on emulators and Redis: a
/// gatekeeper, a switchboard and two chat-shards each. A process that ends is started again.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// What carries events.
    #[arg(long, env = "INFRACHAT_BUS", default_value = "pubsub")]
    bus: Bus,
    /// First port of us-west1: Gatekeeper, then Switchboard, then two shards. asia-northeast1 starts
    /// ten above. Metrics are served a thousand above each.
    #[arg(long, env = "INFRACHAT_FIRST_PORT", default_value_t = 8001,
        value_parser = clap::value_parser!(u16).range(1..=64_000))]
    first_port: u16,
    /// The Pub/Sub emulator, "host:port".
    #[arg(long, env = "PUBSUB_EMULATOR_HOST", default_value = "localhost:8085")]
    pubsub: String,
    /// The Firestore emulator, "host:port".
    #[arg(
        long,
        env = "FIRESTORE_EMULATOR_HOST",
        default_value = "localhost:8080"
    )]
    firestore: String,
    /// Redis, which the regions share.
    #[arg(
        long,
        env = "REDIS_URL",
        default_value = "redis://localhost:6379",
        hide_env_values = true
    )]
    redis: String,
    /// Which log lines the processes write, as in `RUST_LOG`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log: String,
    /// Further arguments for the shards, after "--", such as --publish-per-second 1000.
    #[arg(last = true)]
    shard_args: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    infrachat_runtime::exit_code(run(Options::parse()).await)
}

async fn run(options: Options) -> anyhow::Result<()> {
    let keys = tempfile::tempdir().context("making a folder for the signing keys")?;
    let plan = Plan {
        programs: programs()?,
        ports: [
            Ports::from(options.first_port),
            Ports::from(options.first_port + 10),
        ],
        bus: options.bus,
        services: Services {
            pubsub: options.pubsub,
            firestore: options.firestore,
            redis: options.redis,
        },
        keys: keys.path().to_owned(),
        log: options.log,
        metrics: true,
        args: Vec::new(),
        shard_args: options.shard_args,
        advertised: BTreeMap::new(),
    };
    let (lines, said) = mpsc::unbounded_channel();
    let printing = tokio::spawn(print(said));
    let outcome = keep_running(&plan, lines).await;
    // Everything that was said is printed before the end.
    printing.await?;
    outcome
}

async fn keep_running(
    plan: &Plan,
    lines: mpsc::UnboundedSender<(String, String)>,
) -> anyhow::Result<()> {
    let stopped = infrachat_runtime::signals::shutdown();
    tokio::pin!(stopped);
    let mut stack = tokio::select! {
        started = Stack::start(plan, lines) => started?,
        () = &mut stopped => return Ok(()),
    };
    println!("{}", banner(plan));
    let kept = tokio::select! {
        kept = stack.keep_up() => kept,
        () = &mut stopped => Ok(()),
    };
    println!("stopping ...");
    let ended = stack.stop().await;
    kept?;
    for (name, status) in ended {
        let status = status?;
        ensure!(status.success(), "{name} did not stop well: {status}");
    }
    Ok(())
}

/// The programs are beside this one.
fn programs() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("finding the programs")?;
    let folder = this.parent().context("finding the programs")?;
    Ok(folder.to_owned())
}

/// Each line after the name of who said it, each in its own colour.
async fn print(mut said: mpsc::UnboundedReceiver<(String, String)>) {
    const COLOURS: [AnsiColor; 6] = [
        AnsiColor::Cyan,
        AnsiColor::Green,
        AnsiColor::Yellow,
        AnsiColor::Magenta,
        AnsiColor::Blue,
        AnsiColor::BrightCyan,
    ];
    let mut names: Vec<String> = Vec::new();
    while let Some((name, line)) = said.recv().await {
        let known = names.iter().position(|known| *known == name);
        let place = known.unwrap_or_else(|| {
            names.push(name.clone());
            names.len() - 1
        });
        let style = Style::new().fg_color(Some(COLOURS[place % COLOURS.len()].into()));
        anstream::println!("{style}{name:<27}{style:#} {line}");
    }
}

fn banner(plan: &Plan) -> String {
    let carried = match plan.bus {
        Bus::Pubsub => "Pub/Sub",
        Bus::RedisStreams => "Redis Streams",
    };
    let mut lines = vec![format!(
        "\nInfraChat is running: two regions of four processes, on {carried}, Firestore and Redis (Ctrl-C)."
    )];
    for service in plan.services() {
        let metrics = service.metrics.unwrap_or_default();
        lines.push(format!(
            "  {:<27} {:<16} metrics: {metrics}",
            service.name, service.address
        ));
    }
    lines.push("\nChat, in other terminals:".to_owned());
    for (user, region) in ["alice", "bob", "charlie"].iter().zip([0, 0, 1]) {
        let port = plan.ports[region].gatekeeper;
        lines.push(format!("  make chat USER={user} SERVER=localhost:{port}"));
    }
    lines.push(String::new());
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
