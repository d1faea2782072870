//! `infrachat-bench`: what InfraChat costs, beside NATS, Redis and a bare TCP write, in one run.

mod channels;
mod fanout;
mod growth;
mod hostile;
mod http2;
mod listening;
mod path;
mod process;
mod report;
mod scan;
mod sessions;
mod slow;
mod target;

use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

/// Measures InfraChat against its peers on this machine: servers as processes of their own, the load
/// from this one, processor time and memory from the operating system.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// One message to many connections: processor time of the server per delivery, and latency.
    Fanout(fanout::Options),
    /// Sessions that don't read, or read slowly: what they cost the others, and the shard.
    SlowReaders(slow::Options),
    /// Deliveries a CPU-second as a channel's members grow.
    Growth(growth::Options),
    /// What a delivery costs with more and more channels.
    Channels(channels::Options),
    /// Memory of a session that does nothing, by what it is made of.
    Idle(sessions::IdleOptions),
    /// Sessions accepted a second, and everybody at once.
    Arrivals(sessions::ArrivalsOptions),
    /// A message's way from who says it to who hears it, step by step, from the traces of the servers.
    Path(path::Options),
    /// Runs both regions in one process that sends its spans.
    #[command(hide = true)]
    TracedServer(path::embedded::Options),
    /// Clients that use the protocol against the server: what they cost the others, and the shard.
    Hostile(hostile::Options),
    /// Runs the bare TCP server that the others are compared with.
    #[command(hide = true)]
    RawServer {
        #[arg(long)]
        port: u16,
    },
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Bench::RawServer { port } = options.bench {
        return target::raw::serve(port);
    }
    if let Bench::TracedServer(options) = options.bench {
        return path::embedded::serve(options);
    }
    process::raise_file_limit();
    // One thread, so that a server on two cores has one to itself.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, run(options.bench))
}

async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Fanout(options) => fanout::run(&options).await,
        Bench::SlowReaders(options) => slow::run(&options).await,
        Bench::Growth(options) => growth::run(&options).await,
        Bench::Channels(options) => channels::run(&options).await,
        Bench::Idle(options) => sessions::idle(&options).await,
        Bench::Arrivals(options) => sessions::arrivals(&options).await,
        Bench::Hostile(options) => hostile::run(&options).await,
        Bench::Path(options) => path::run(&options).await,
        Bench::RawServer { .. } | Bench::TracedServer(_) => Ok(()),
    }
}
