//! One message to many: what a delivery costs the server.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    listening::{Listening, Pace},
    report::{self, Table},
    scan::stamped,
    target::{Publisher, Running, Target},
};

/// How messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Load {
    /// One, and the next once everybody has it.
    Single,
    /// Sixteen, and the next once everybody has them.
    Burst,
    /// As fast as they are read, with 256 on the way.
    Flood,
}

impl Load {
    pub(crate) const ALL: [Self; 3] = [Self::Single, Self::Burst, Self::Flood];

    fn label(self) -> &'static str {
        match self {
            Self::Single => "one at a time",
            Self::Burst => "bursts of 16",
            Self::Flood => "flood",
        }
    }

    /// Messages that may be on the way, and how many of them must have arrived before more are said.
    pub(crate) fn window(self) -> (u64, u64) {
        match self {
            Self::Single => (1, 1),
            Self::Burst => (16, 16),
            Self::Flood => (256, 16),
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Options {
    /// Connections that hear every message.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) connections: usize,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,
    /// Seconds of each load, in each round.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
    /// Rounds over all servers; the median of each figure counts.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Which servers.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "raw,redis,nats,infrachat"
    )]
    pub(crate) targets: Vec<Target>,
}

/// What one load came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    deliveries: u64,
    /// Processor time of the server, microseconds.
    pub(crate) cpu_us_per_delivery: f64,
    deliveries_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Runs all rounds, prints the table, and writes the figures.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut all: BTreeMap<(Target, Load), Vec<Figures>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for target in &options.targets {
            report::progress(&format!(
                "fan-out: round {round} of {}, {target}",
                options.rounds
            ));
            for (load, figures) in measure(*target, options).await? {
                all.entry((*target, load)).or_default().push(figures);
            }
        }
    }
    let figures: Vec<_> = all
        .into_iter()
        .map(|((target, load), rounds)| Row {
            target,
            load,
            figures: median(&rounds),
        })
        .collect();
    print(options, &figures);
    report::write("fanout", options, &figures)
}

#[derive(Debug, Serialize)]
struct Row {
    target: Target,
    load: Load,
    #[serde(flatten)]
    figures: Figures,
}

/// Runs all loads on a server of its own.
pub(crate) async fn measure(
    target: Target,
    options: &Options,
) -> anyhow::Result<Vec<(Load, Figures)>> {
    let mut running = Running::start(target).await?;
    let began = Instant::now();
    let subscribers = running.subscribe(options.connections).await?;
    report::progress(&format!(
        "  {} connections after {:.1} s",
        subscribers.len(),
        began.elapsed().as_secs_f64()
    ));
    let listening = Listening::start(subscribers, Pace::AtOnce, Instant::now());
    let mut publisher = running.publisher().await?;
    let mut figures = Vec::new();
    for load in Load::ALL {
        // Buffers grow to their size, and everything is in the caches.
        for_a_while(
            &listening,
            &mut publisher,
            load,
            (options.size, Duration::from_millis(500)),
        )
        .await?;
        listening.forget_latency();
        let (before, cpu, from) = (
            listening.deliveries(),
            running.server().cpu()?,
            Instant::now(),
        );
        let time = Duration::from_secs(options.seconds);
        for_a_while(&listening, &mut publisher, load, (options.size, time)).await?;
        let deliveries = listening.deliveries() - before;
        let cpu = running.server().cpu()?.saturating_sub(cpu);
        let latency = listening.latency();
        let millis = |quantile| latency.value_at_quantile(quantile) as f64 / 1e6;
        figures.push((
            load,
            Figures {
                deliveries,
                cpu_us_per_delivery: cpu.as_secs_f64() * 1e6 / deliveries as f64,
                deliveries_per_second: deliveries as f64 / from.elapsed().as_secs_f64(),
                p50_ms: millis(0.5),
                p99_ms: millis(0.99),
            },
        ));
    }
    Ok(figures)
}

/// Says messages for some time, and waits until everybody has all of them.
pub(crate) async fn for_a_while(
    listening: &Listening,
    publisher: &mut Publisher,
    load: Load,
    (size, time): (usize, Duration),
) -> anyhow::Result<()> {
    let (window, step) = load.window();
    let before = listening.deliveries();
    let arrived = |messages: u64| before + messages * listening.count();
    let end = Instant::now() + time;
    let mut said = 0;
    while Instant::now() < end {
        for _ in 0..step {
            publisher.say(&stamped(listening.now(), size)).await?;
        }
        said += step;
        listening
            .until(arrived((said + step).saturating_sub(window)))
            .await?;
    }
    listening.until(arrived(said)).await
}

fn median(rounds: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| report::median(rounds.iter().map(figure));
    Figures {
        deliveries: rounds.iter().map(|round| round.deliveries).sum(),
        cpu_us_per_delivery: of(|round| round.cpu_us_per_delivery),
        deliveries_per_second: of(|round| round.deliveries_per_second),
        p50_ms: of(|round| round.p50_ms),
        p99_ms: of(|round| round.p99_ms),
    }
}

fn print(options: &Options, rows: &[Row]) {
    println!(
        "\nFan-out to {} connections, {} bytes; median of {} rounds\n",
        options.connections, options.size, options.rounds
    );
    let mut table = Table::new(&[
        "server CPU-µs a delivery (ratio to raw)",
        "one at a time",
        "bursts of 16",
        "flood",
    ]);
    let of = |target: Target, load: Load| {
        let row = rows
            .iter()
            .find(|row| row.target == target && row.load == load);
        row.map(|row| &row.figures)
    };
    for target in &options.targets {
        let cells = Load::ALL.iter().filter_map(|load| {
            let figures = of(*target, *load)?;
            let cpu = figures.cpu_us_per_delivery;
            Some(match of(Target::Raw, *load) {
                Some(raw) => format!("{cpu:.2} ({:.2})", cpu / raw.cpu_us_per_delivery),
                None => format!("{cpu:.2}"),
            })
        });
        table.row(std::iter::once(target.to_string()).chain(cells));
    }
    table.print();
    for load in Load::ALL {
        println!();
        let mut table = Table::new(&[load.label(), "deliveries/s", "p50 ms", "p99 ms"]);
        for target in &options.targets {
            let Some(figures) = of(*target, load) else {
                continue;
            };
            table.row([
                target.to_string(),
                format!("{:.0}", figures.deliveries_per_second),
                format!("{:.3}", figures.p50_ms),
                format!("{:.3}", figures.p99_ms),
            ]);
        }
        table.print();
    }
}
