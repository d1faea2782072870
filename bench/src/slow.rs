//! Readers that don't keep up: what they cost the others, and the shard.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::bail;
use bytes::BytesMut;
use infrachat_proto::chat::v1::{self as chat, server_event::Kind};
use prost::Message as _;
use serde::Serialize;
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, MissedTickBehavior, timeout},
};

use crate::{
    http2::{Messages, Windows},
    listening::{Listening, Pace},
    process::kernel_tcp_memory,
    report::{self, Table},
    scan::stamped,
    target::{Answers, Infrachat, Session, Subscriber},
};

/// Between two batches of messages.
const TICK: Duration = Duration::from_millis(10);
/// Fewer stalled readers can't be told apart from everything else that takes memory.
const ENOUGH: f64 = 50.0;
/// A reader that hears nothing for this long has heard everything.
const SILENCE: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Options {
    /// Sessions in the channel.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) connections: usize,
    /// Messages a second, over all senders, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    pub(crate) rates: Vec<u64>,
    /// Deliveries a second at most: at higher rates there are fewer sessions.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) deliveries: u64,
    /// Sessions that send.
    #[arg(long, default_value_t = 100)]
    pub(crate) senders: usize,
    /// Seconds of each flood.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,
}

/// What the stalled are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Case {
    /// There are none, and nobody reads slowly.
    AllRead,
    /// There are none.
    NoneStalled,
    DropOldest,
    Disconnect,
    /// With windows as large as HTTP/2 has them.
    HugeWindow,
    /// In a shard that has little memory beside what its sessions take: it takes nothing in when that is
    /// used, and hands back to the bus what that delivers.
    Nack,
}

impl Case {
    const ALL: [Self; 6] = [
        Self::AllRead,
        Self::NoneStalled,
        Self::DropOldest,
        Self::Disconnect,
        Self::HugeWindow,
        Self::Nack,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::AllRead => "none, and none slow",
            Self::NoneStalled => "none",
            Self::DropOldest => "drop_oldest",
            Self::Disconnect => "disconnect",
            Self::HugeWindow => "drop_oldest, 2 GB windows",
            Self::Nack => "drop_oldest, nack",
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    case: Case,
    rate: u64,
    connections: usize,
    p50_ms: f64,
    p99_ms: f64,
    /// Messages that were acknowledged.
    acked: u64,
    /// Messages that were refused.
    refused: u64,
    /// Of the deliveries to others than the slow, how many were skipped: they were told so.
    others_missed: f64,
    /// Memory of the server that came with the flood.
    grown_server_bytes: i64,
    /// Memory of the kernel, for both ends of all connections.
    grown_kernel_bytes: i64,
    /// Messages that the stalled neither got nor were told to have missed.
    unaccounted: i64,
    /// How many of the stalled were cut off.
    disconnected: usize,
}

/// Runs all cases, prints the table, and writes the figures.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for rate in &options.rates {
        for case in Case::ALL {
            report::progress(&format!(
                "slow readers: {rate} messages/s, {}",
                case.label()
            ));
            rows.push(measure(case, *rate, options).await?);
        }
    }
    print(options, &rows);
    anyhow::ensure!(
        rows.iter().all(|row| row.unaccounted == 0),
        "slow readers were not told of everything that they missed"
    );
    report::write("slow-readers", options, &rows)
}

async fn measure(case: Case, rate: u64, options: &Options) -> anyhow::Result<Row> {
    let connections = options
        .connections
        .min(usize::try_from(options.deliveries / rate)?);
    let budget = memory_budget(connections + options.senders).to_string();
    let infrachat = match case {
        Case::Nack => Infrachat::start_with(&["--memory-budget-bytes", &budget]).await?,
        _ => Infrachat::start().await?,
    };
    let usual = (*infrachat.shard).clone();
    let mut stalled_at = usual.clone();
    // What is sent to them is to stay with the server's kernel. With much less room than this, kernels
    // take seconds to notice that there is some again.
    stalled_at.receive_buffer = Some(32 * 1024);
    match case {
        Case::AllRead | Case::NoneStalled | Case::DropOldest | Case::Nack => {}
        Case::Disconnect => stalled_at.slow_reader = chat::SlowReaderPolicy::Disconnect,
        Case::HugeWindow => {
            stalled_at.windows = Windows {
                stream: i32::MAX as u32,
                connection: i32::MAX as u32,
            };
        }
    }
    let tenth = connections / 10;
    let (slow_ones, stalled_ones) = match case {
        Case::AllRead => (0, 0),
        Case::NoneStalled => (tenth, 0),
        _ => (tenth, tenth),
    };
    let (mut eager, mut slow, mut stalled) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..connections {
        let token = infrachat.token(number);
        if number < stalled_ones {
            stalled.push(stalled_at.subscribe(token).await?);
        } else if number < stalled_ones + slow_ones {
            slow.push(usual.subscribe(token).await?);
        } else {
            eager.push(usual.subscribe(token).await?);
        }
    }
    let mut senders = Vec::new();
    for number in 0..options.senders {
        senders.push(Session::open(&usual, infrachat.token(number)).await?);
    }
    let began = Instant::now();
    let eager = Listening::start(eager, Pace::AtOnce, began);
    // A tenth of what comes: about 350 bytes a message.
    let share = usize::try_from(rate)? * 350 / 10 / 10;
    let slow = Listening::start(slow, Pace::Slowly(share, Duration::from_millis(100)), began);
    let memory = || anyhow::Ok([infrachat.server.memory()?, kernel_tcp_memory()?]);
    let before = memory()?;
    let load = Steady {
        rate,
        seconds: options.seconds,
        size: options.size,
    };
    load.run(&senders, &eager).await?;
    eager.settled().await;
    let mut grown = [0; 2];
    for (grown, (before, after)) in grown.iter_mut().zip(before.into_iter().zip(memory()?)) {
        *grown = i64::try_from(after)? - i64::try_from(before)?;
    }
    let latency = eager.latency();
    let sum = |of: fn(&Answers) -> &AtomicU64| {
        let counts = senders.iter().map(|sender| of(&sender.answers));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    };
    let (acked, refused): (u64, u64) = (sum(|all| &all.acked), sum(|all| &all.refused));
    drop(slow);
    let (mut unaccounted, mut disconnected) = (0, 0);
    for reader in stalled {
        let end = read_out(reader, acked).await?;
        if end.closed {
            disconnected += 1;
        } else {
            unaccounted += i64::try_from(acked)? - i64::try_from(end.accounted)?;
        }
    }
    let millis = |quantile| latency.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Row {
        case,
        rate,
        connections,
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        acked,
        refused,
        others_missed: 1.0 - eager.deliveries() as f64 / (acked * eager.count()) as f64,
        grown_server_bytes: grown[0],
        grown_kernel_bytes: grown[1],
        unaccounted,
        disconnected,
    })
}

/// So little that what is said has to wait for memory: what sessions take, and some more.
fn memory_budget(sessions: usize) -> usize {
    // As the shard counts a session, and no less than it starts with.
    ((sessions + 50) * 24 * 1024 * 10 / 9).max(1024 * 1024)
}

/// So many messages a second of so many bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steady {
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
    pub(crate) size: usize,
}

impl Steady {
    /// Says as many messages as asked for, evenly; answers how many.
    pub(crate) async fn run(self, senders: &[Session], clock: &Listening) -> anyhow::Result<u64> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let ticks_per_second = 100;
        let total = self.rate * self.seconds;
        let mut said = 0;
        for tick in 1..=ticks_per_second * self.seconds {
            ticks.tick().await;
            while said < total * tick / (ticks_per_second * self.seconds) {
                let sender = usize::try_from(said)? % senders.len();
                let text = stamped(clock.now(), self.size);
                senders[sender].say(crate::target::CHANNEL, &text).await?;
                said += 1;
            }
        }
        Ok(said)
    }
}

/// How far a reader came that did not read until now.
#[derive(Debug, Default)]
struct End {
    /// Messages that it got, or was told to have missed.
    accounted: u64,
    closed: bool,
}

async fn read_out(reader: Subscriber, said: u64) -> anyhow::Result<End> {
    let Subscriber {
        mut stream,
        mut wire,
    } = reader;
    let (mut messages, mut out) = (Messages::default(), BytesMut::new());
    let mut bytes = vec![0; 64 * 1024];
    let mut end = End::default();
    while end.accounted < said && !end.closed {
        let read = match timeout(SILENCE, stream.read(&mut bytes)).await {
            Ok(read) => read.unwrap_or(0),
            Err(_) => break,
        };
        if read == 0 {
            end.closed = true;
            break;
        }
        let fed = wire.feed(&bytes[..read], &mut out, |data| messages.feed(data));
        while let Some(batch) = messages.next() {
            for event in chat::ServerBatch::decode(batch)?.events {
                match event.kind {
                    Some(Kind::Message(_)) => end.accounted += 1,
                    Some(Kind::Gap(gap)) => end.accounted += gap.missed,
                    Some(Kind::Close(close)) if close.code == "slow_consumer" => end.closed = true,
                    Some(Kind::Close(close)) => bail!("closed: {}", close.reason),
                    _ => {}
                }
            }
        }
        end.closed |= fed.is_err();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &out.split()).await?;
    }
    Ok(end)
}

fn print(options: &Options, rows: &[Row]) {
    for rate in &options.rates {
        let rows: Vec<_> = rows.iter().filter(|row| row.rate == *rate).collect();
        let [alone, none_stalled, ..] = rows[..] else {
            continue;
        };
        println!(
            "\nSlow readers: {} sessions, {rate} messages/s by {} senders; a tenth stalled, a tenth reads a tenth\n",
            alone.connections, options.senders
        );
        let mut table = Table::new(&[
            "the stalled",
            "acked/s",
            "refused",
            "others' p50 ms",
            "p99 ms",
            "ratio",
            "skipped",
            "a stalled reader, KB (kernel)",
            "unaccounted",
            "cut off",
        ]);
        let stalled = (alone.connections / 10) as f64;
        for row in &rows {
            let each = |of: fn(&Row) -> i64| (of(row) - of(none_stalled)) as f64 / stalled / 1024.0;
            let server = each(|row| row.grown_server_bytes);
            let kernel = each(|row| row.grown_kernel_bytes);
            table.row([
                row.case.label().to_owned(),
                (row.acked / options.seconds).to_string(),
                row.refused.to_string(),
                format!("{:.1}", row.p50_ms),
                format!("{:.1}", row.p99_ms),
                format!("{:.2}", row.p99_ms / alone.p99_ms),
                format!("{:.1} %", row.others_missed * 100.0),
                match row.case {
                    Case::AllRead | Case::NoneStalled => "–".to_owned(),
                    // What the server needs for the flood itself is more than what so few take.
                    _ if stalled < ENOUGH => "–".to_owned(),
                    _ => format!("{:.0} ({kernel:.0})", server + kernel),
                },
                row.unaccounted.to_string(),
                row.disconnected.to_string(),
            ]);
        }
        table.print();
    }
}
