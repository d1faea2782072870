//! A message's way from who says it to who hears it: which step takes how long, and what the shard adds
//! to the bus.

pub(crate) mod embedded;
mod steps;
mod world;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use infrachat_bus::{Event, Subscription, Topic};
use infrachat_runtime::signals;
use infrachat_test_services::Sent;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};

use self::{
    steps::{Journey, Span, Spread, Way},
    world::{Bus, REGIONS, World},
};
use crate::{
    report::{self, Table},
    scan::{Scanner, stamped},
    target::{CHANNEL, Session, Subscriber},
};

/// Bytes of a message's text.
const SIZE: usize = 150;
/// What the shard adds to the text for the bus, about.
const ENVELOPE: usize = 250;
/// Nothing is heard for this long: it never will be.
const STUCK: Duration = Duration::from_secs(15);
/// Servers send spans every 5 seconds.
const SPANS: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Options {
    /// Messages to each reader that count; a second's more come before them.
    #[arg(long, default_value_t = 1_000)]
    messages: usize,
    /// Messages a second; a session may say a hundred.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    rate: u32,
    /// What carries them.
    #[arg(long, value_delimiter = ',', default_value = "embedded,pubsub")]
    on: Vec<Bus>,
}

#[derive(Debug, Serialize)]
struct Row {
    bus: Bus,
    same_region: Way,
    other_region: Way,
    /// A publish by the same bus crate, with nothing else in the process.
    bare_bus: Spread,
}

/// Measures each bus, prints the tables, and writes the figures.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let rows = tokio::select! {
        rows = measure_all(options) => rows?,
        // So that the servers are stopped as well.
        () = signals::shutdown() => bail!("stopped before the end"),
    };
    rows.iter().for_each(|row| print(options, row));
    report::write("path", options, &rows)
}

async fn measure_all(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for bus in &options.on {
        report::progress(&format!("path: {bus}"));
        rows.push(measure(*bus, options).await?);
    }
    Ok(rows)
}

async fn measure(bus: Bus, options: &Options) -> anyhow::Result<Row> {
    let world = World::start(bus).await?;
    let mut ways = Vec::new();
    for (region, name) in REGIONS.iter().enumerate() {
        report::progress(&format!("  from {} to {name}", REGIONS[0]));
        ways.push(Way::of(&journeys(&world, region, options).await?));
    }
    report::progress("  the bus alone");
    let bare_bus = bare(&world, options).await?;
    let other_region = ways.pop().context("two regions were measured")?;
    let same_region = ways.pop().context("two regions were measured")?;
    Ok(Row {
        bus,
        same_region,
        other_region,
        bare_bus,
    })
}

/// Says messages to one reader, and follows each.
async fn journeys(world: &World, region: usize, options: &Options) -> anyhow::Result<Vec<Journey>> {
    let speaker = Session::open(&world.shards[0], &world.token).await?;
    let reader = world.shards[region].subscribe(&world.token).await?;
    let (ear, mut heard_now) = mpsc::unbounded_channel();
    let mut listening = JoinSet::new();
    listening.spawn(listen(reader, ear));
    let first = options.rate as usize;
    let mut said = Vec::with_capacity(first + options.messages);
    let mut pace = pace(options.rate);
    while said.len() < first + options.messages {
        pace.tick().await;
        let now = unix_nanos();
        let text = stamped(now, SIZE);
        speaker.say_in(&traceparent(now), CHANNEL, &text).await?;
        said.push(now);
    }
    let mut heard = HashMap::new();
    while heard.len() < said.len() {
        match timeout(STUCK, heard_now.recv()).await {
            Ok(Some((said, at))) => heard.insert(said, at),
            Ok(None) => match listening.join_next().await {
                Some(Ok(Err(err))) => return Err(err.context("the reader's connection ended")),
                _ => bail!("the reader's connection ended"),
            },
            Err(_) => bail!("{} of {} messages were heard", heard.len(), said.len()),
        };
    }
    let counted: Vec<_> = said[first..]
        .iter()
        .map(|said| (*said, heard[said]))
        .collect();
    report::progress("  heard; the spans come");
    followed(world, &counted).await
}

/// Puts the ways together once all spans have come.
async fn followed(world: &World, messages: &[(u64, u64)]) -> anyhow::Result<Vec<Journey>> {
    let deadline = Instant::now() + SPANS;
    loop {
        let traces = traces(&world.collector.sent());
        let journeys: Vec<_> = messages
            .iter()
            .filter_map(|(said, heard)| {
                Journey::new(traces.get(&u128::from(*said))?, *said, *heard)
            })
            .collect();
        if journeys.len() == messages.len() {
            return Ok(journeys);
        }
        if Instant::now() > deadline {
            bail!(
                "the spans of {} of {} messages came: the servers may have dropped the others",
                journeys.len(),
                messages.len()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What was sent so far, by trace.
fn traces(sent: &[Sent]) -> BTreeMap<u128, Vec<Span>> {
    let mut traces: BTreeMap<u128, Vec<Span>> = BTreeMap::new();
    for sent in sent {
        let span = &sent.span;
        let Ok(trace) = <[u8; 16]>::try_from(span.trace_id.as_slice()) else {
            continue;
        };
        let trace = traces.entry(u128::from_be_bytes(trace)).or_default();
        trace.push(Span {
            name: span.name.clone(),
            id: span.span_id.clone(),
            parent: span.parent_span_id.clone(),
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            duplicate: sent.is_true("infrachat.duplicate"),
        });
    }
    traces
}

/// Tells which message was heard, and when.
async fn listen(reader: Subscriber, ear: mpsc::UnboundedSender<(u64, u64)>) -> anyhow::Result<()> {
    let Subscriber {
        mut stream,
        mut wire,
    } = reader;
    let (mut scanner, mut out) = (Scanner::default(), BytesMut::new());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        let now = unix_nanos();
        if read == 0 {
            bail!("the shard hung up");
        }
        wire.feed(&buffer[..read], &mut out, |data| {
            // Who does not listen any more has heard enough.
            scanner.feed(data, |said| {
                let _ = ear.send((said, now));
            });
        })?;
        stream.write_all(&out.split()).await?;
    }
}

/// How long the bus itself takes to accept what the shard would give it.
async fn bare(world: &World, options: &Options) -> anyhow::Result<Spread> {
    let bus = world.bare_bus().await?;
    let topic = Topic {
        region: REGIONS[0].to_owned(),
        name: "bench".to_owned(),
    };
    let group = "bench".to_owned();
    bus.ensure(&Subscription {
        topic: topic.clone(),
        group,
    })
    .await?;
    let first = options.rate as usize;
    let mut times = Vec::new();
    let mut pace = pace(options.rate);
    for _ in 0..first + options.messages {
        pace.tick().await;
        let event = Event {
            ordering_key: "bench".to_owned(),
            payload: vec![b'x'; SIZE + ENVELOPE].into(),
            attributes: BTreeMap::new(),
        };
        let began = Instant::now();
        bus.publish(&topic, event).await?;
        times.push(u64::try_from(began.elapsed().as_nanos())?);
    }
    Ok(Spread::of(times.into_iter().skip(first)))
}

fn pace(rate: u32) -> Interval {
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Of a trace that is named after the moment, and kept.
fn traceparent(moment: u64) -> String {
    format!("00-{moment:032x}-0000000000000001-01")
}

/// As spans count.
#[expect(
    clippy::disallowed_types,
    reason = "stamps of messages have milliseconds only"
)]
fn unix_nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

fn print(options: &Options, row: &Row) {
    println!(
        "\nThe path of a message on {}: {} messages to each reader, {} a second, {SIZE} bytes\n",
        row.bus, options.messages, options.rate
    );
    let (same, other) = (&row.same_region, &row.other_region);
    let mut table = Table::new(&[
        "µs, p50 / p99 (share of the whole)",
        "same region",
        "other region",
    ]);
    let spread = |time: &Spread| format!("{:.0} / {:.0}", time.p50_us, time.p99_us);
    for (same, other) in same.steps.iter().zip(&other.steps) {
        let cells = [same, other]
            .map(|step| format!("{} ({:.1} %)", spread(&step.time), step.share * 100.0));
        table.row(std::iter::once(same.name.to_owned()).chain(cells));
    }
    let whole = [same, other].map(|way| spread(&way.whole));
    table.row(std::iter::once("said until heard".to_owned()).chain(whole));
    let added =
        [same, other].map(|way| format!("{} ({:.1} %)", spread(&way.shard), way.added * 100.0));
    table.row(std::iter::once("what the shard adds (to the bus's time)".to_owned()).chain(added));
    table.print();
    println!(
        "\nthe bus alone takes {} µs; {} of {} deliveries in the same region began with its answer, which\n\
         came {} µs before the copy; the others with a copy that was quicker than the answer",
        spread(&row.bare_bus),
        same.by_answer,
        same.messages,
        spread(&same.copy_later)
    );
}
