//! Whether a delivery costs the same however many channels there are.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    fanout::Load,
    listening::{Listening, Pace},
    report::{self, Table},
    scan::stamped,
    target::{Infrachat, Session, Shard},
};

/// Sessions in each channel.
const MEMBERS: usize = 10;
/// Sessions on a shard; each is in as many channels as it takes.
const SESSIONS: usize = 100;
/// Bytes of a message's text.
const SIZE: usize = 150;

/// What is measured.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Options {
    /// Channels, of ten members each, that are spoken in by turns.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1_000, 10_000])]
    pub(crate) channels: Vec<usize>,
    /// Seconds of each load.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    channels: usize,
    deliveries_per_cpu_second: f64,
}

/// Measures each number of channels on a server of its own.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for channels in &options.channels {
        report::progress(&format!("growth: {channels} channels"));
        rows.push(Row {
            channels: *channels,
            deliveries_per_cpu_second: measure(*channels, options.seconds).await?,
        });
    }
    println!("\nGrowth: deliveries a CPU-second of the server, {MEMBERS} members a channel\n");
    let mut table = Table::new(&["channels", "deliveries"]);
    for row in &rows {
        let figure = format!("{:.0}", row.deliveries_per_cpu_second);
        table.row([row.channels.to_string(), figure]);
    }
    table.print();
    report::write("channels", options, &rows)
}

async fn measure(channels: usize, seconds: u64) -> anyhow::Result<f64> {
    let infrachat = Infrachat::start_with(&["--max-channels", "100000"]).await?;
    let names: Vec<_> = (0..channels)
        .map(|number| format!("#bench-{number}"))
        .collect();
    let mut of_shard: BTreeMap<String, Vec<Shard>> = BTreeMap::new();
    for shard in infrachat.region.create_all(&names).await? {
        let endpoint = shard.endpoint.clone();
        of_shard.entry(endpoint).or_default().push(shard);
    }
    report::progress("  the channels are there");
    let (mut subscribers, mut speakers) = (Vec::new(), Vec::new());
    for channels in of_shard.values() {
        let sessions = SESSIONS.min(MEMBERS * channels.len());
        for session in 0..sessions {
            // Every channel has its members one after the other.
            let joins = channels.iter().enumerate().filter(|(number, _)| {
                let first = number * MEMBERS % sessions;
                (first..first + MEMBERS).contains(&session)
            });
            let joins: Vec<_> = joins.map(|(_, shard)| shard.channel.as_str()).collect();
            let token = infrachat.token(session);
            subscribers.push(channels[0].subscribe_all(&joins, token).await?);
        }
        let mut speaker = Session::open(&channels[0], infrachat.token(0)).await?;
        for shard in &channels[1..] {
            speaker.join(shard).await?;
        }
        speakers.push((speaker, channels));
    }
    report::progress("  everybody has joined");
    let listening = Listening::start(subscribers, Pace::AtOnce, Instant::now());
    listening.settled().await;
    let places = speakers.iter().flat_map(|(speaker, channels)| {
        let here = channels.iter();
        here.map(move |shard| (speaker, shard))
    });
    let places: Vec<_> = places.collect();
    let mut turns = places.iter().cycle();
    let (window, step) = Load::Flood.window();
    let mut said = 0;
    let mut figure = 0.0;
    // First everything grows to its size, and comes into the caches.
    for time in [Duration::from_millis(500), Duration::from_secs(seconds)] {
        let (before, cpu) = (listening.deliveries(), infrachat.server.cpu()?);
        let end = Instant::now() + time;
        while Instant::now() < end {
            for (speaker, shard) in turns.by_ref().take(usize::try_from(step)?) {
                let text = stamped(listening.now(), SIZE);
                speaker.say(&shard.channel, &text).await?;
            }
            said += step;
            let arrived = (said + step).saturating_sub(window) * MEMBERS as u64;
            listening.until(arrived).await?;
        }
        listening.until(said * MEMBERS as u64).await?;
        let cpu = infrachat.server.cpu()?.saturating_sub(cpu);
        figure = (listening.deliveries() - before) as f64 / cpu.as_secs_f64();
    }
    Ok(figure)
}
