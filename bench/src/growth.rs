//! Whether a delivery costs the same however many there are of it.

use serde::Serialize;

use crate::{
    fanout::{self, Load},
    report::{self, Table},
    target::Target,
};

/// What is measured.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Options {
    /// Sessions in the channel.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 10_000])]
    pub(crate) members: Vec<usize>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    members: usize,
    load: Load,
    deliveries_per_cpu_second: f64,
}

/// Runs the fan-out to InfraChat for each number of members.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for members in &options.members {
        report::progress(&format!("growth: {members} members"));
        let fanout = fanout::Options {
            connections: *members,
            size: 150,
            seconds: options.seconds,
            rounds: 1,
            targets: vec![Target::Infrachat],
        };
        for (load, figures) in fanout::measure(Target::Infrachat, &fanout).await? {
            rows.push(Row {
                members: *members,
                load,
                deliveries_per_cpu_second: 1e6 / figures.cpu_us_per_delivery,
            });
        }
    }
    println!("\nGrowth: deliveries a CPU-second of the server\n");
    let mut table = Table::new(&["members", "one at a time", "bursts of 16", "flood"]);
    for rows in rows.chunks(Load::ALL.len()) {
        let figures = rows
            .iter()
            .map(|row| format!("{:.0}", row.deliveries_per_cpu_second));
        let members = rows.first().map_or(0, |row| row.members);
        table.row(std::iter::once(members.to_string()).chain(figures));
    }
    table.print();
    report::write("growth", options, &rows)
}
