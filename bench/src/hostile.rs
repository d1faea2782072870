//! Clients that use the protocol against the server: what they cost the others, and the shard.

mod attack;

use std::{cell::Cell, convert::Infallible, time::Duration};

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::Instant;

use self::attack::{Attack, Attackers, Place, channel_name};
use crate::{
    listening::{Listening, Pace},
    process::kernel_tcp_memory,
    report::{self, Table},
    slow::Steady,
    target::{Infrachat, Session, Shard},
};

/// Before the attack, so that everything has grown to its size.
const WARM: u64 = 2;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What is measured.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Options {
    /// Sessions in the channel.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) connections: usize,
    /// Messages a second, over all senders.
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u64,
    /// Sessions that send.
    #[arg(long, default_value_t = 10)]
    pub(crate) senders: usize,
    /// Seconds of each attack.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,
    /// Connections that attack; each is made again when it is cut off.
    #[arg(long, default_value_t = 8)]
    pub(crate) attackers: usize,
    /// Channels that each attacker joins.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) channels: usize,
}

#[derive(Debug, Serialize)]
struct Row {
    attack: Attack,
    /// Of the others.
    p50_ms: f64,
    p99_ms: f64,
    /// Of the server.
    cpu_seconds_a_second: f64,
    /// Most memory of the server and of the kernel that came with the attack.
    grown_bytes: u64,
    /// Attackers' connections that the server has ended.
    ended: u64,
}

/// Runs all attacks, prints the table, and writes the figures.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for attack in Attack::ALL {
        report::progress(&format!("hostile clients: {}", attack.name()));
        rows.push(measure(attack, options).await?);
    }
    print(options, &rows);
    report::write("hostile", options, &rows)
}

async fn measure(attack: Attack, options: &Options) -> anyhow::Result<Row> {
    let infrachat = Infrachat::start_limited(&[]).await?;
    let place = prepare(attack, &infrachat, options).await?;
    let readers = infrachat.subscribe(options.connections).await?;
    let mut senders = Vec::new();
    for number in 0..options.senders {
        senders.push(Session::open(&infrachat.shard, infrachat.token(number)).await?);
    }
    let readers = Listening::start(readers, Pace::AtOnce, Instant::now());
    let load = |seconds| Steady {
        rate: options.rate,
        seconds,
        size: options.size,
    };
    let mut said = load(WARM).run(&senders, &readers).await?;
    readers.until(said * readers.count()).await?;
    readers.forget_latency();

    let memory = || anyhow::Ok(infrachat.server.memory()? + kernel_tcp_memory()?);
    let (before, cpu, began) = (memory()?, infrachat.server.cpu()?, Instant::now());
    let attackers = Attackers::start(attack, place, options.attackers)?;
    let most = Cell::new(before);
    let looking = async {
        let looked: anyhow::Result<Infallible> = loop {
            match memory() {
                Ok(now) => most.set(most.get().max(now)),
                Err(err) => break Err(err),
            }
            tokio::time::sleep(LOOK).await;
        };
        looked
    };
    said += tokio::select! {
        said = load(options.seconds).run(&senders, &readers) => said?,
        failed = looking => match failed? {},
    };
    let cpu = infrachat.server.cpu()?.saturating_sub(cpu);
    let cpu_seconds_a_second = cpu.as_secs_f64() / began.elapsed().as_secs_f64();
    // However late: what the others say arrives.
    readers.until(said * readers.count()).await?;
    let ended = attackers.stop()?;
    let latency = readers.latency();
    let millis = |quantile| latency.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Row {
        attack,
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        cpu_seconds_a_second,
        grown_bytes: most.get() - before,
        ended,
    })
}

/// Creates the attackers' channels.
async fn prepare(
    attack: Attack,
    infrachat: &Infrachat,
    options: &Options,
) -> anyhow::Result<Place> {
    let others = Shard::clone(&infrachat.shard);
    // Of a few, some are the same shard's.
    let count = match attack {
        Attack::Joins => options.channels,
        _ => options.channels.min(30),
    };
    let names: Vec<_> = (0..count).map(channel_name).collect();
    let channels = infrachat.region.create_all(&names).await?;
    let mut here = channels.into_iter();
    let own = here.find(|shard| shard.endpoint == others.endpoint);
    Ok(Place {
        own: own.context("no channel is on the same shard: ask for more --channels")?,
        others,
        channels: count,
        token: infrachat.token(0).to_owned(),
    })
}

fn print(options: &Options, rows: &[Row]) {
    println!(
        "\nHostile clients: {} sessions, {} messages/s by {} senders; {} connections attack\n",
        options.connections, options.rate, options.senders, options.attackers
    );
    let mut table = Table::new(&[
        "attack",
        "others' p50 ms",
        "p99 ms",
        "ratio",
        "server CPU-s/s",
        "memory, MB",
        "ended",
    ]);
    let alone = rows.first().map_or(f64::NAN, |none| none.p99_ms);
    for row in rows {
        table.row([
            row.attack.name().to_owned(),
            format!("{:.1}", row.p50_ms),
            format!("{:.1}", row.p99_ms),
            format!("{:.2}", row.p99_ms / alone),
            format!("{:.2}", row.cpu_seconds_a_second),
            format!("{:.1}", row.grown_bytes as f64 / 1024.0 / 1024.0),
            row.ended.to_string(),
        ]);
    }
    table.print();
}
