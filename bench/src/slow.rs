//! Readers that don't keep up: what they cost the others, and the shard.

use std::time::Duration;

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
    target::{Infrachat, Session, Subscriber},
};

/// Between two batches of messages.
const TICK: Duration = Duration::from_millis(10);
/// A reader that hears nothing for this long has heard everything.
const SILENCE: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Options {
    /// Sessions in the channel.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) connections: usize,
    /// Messages a second, over all senders.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) rate: u64,
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
    /// There are none.
    AllRead,
    DropOldest,
    Disconnect,
    /// With windows as large as HTTP/2 has them.
    HugeWindow,
}

#[derive(Debug, Serialize)]
struct Row {
    case: Case,
    p50_ms: f64,
    p99_ms: f64,
    /// Messages that others than the slow did not get: they were told so.
    others_missed: u64,
    /// Memory of the server and of the kernel that came with the flood.
    grown_bytes: i64,
    /// Messages that the stalled neither got nor were told to have missed.
    unaccounted: i64,
    /// How many of the stalled were cut off.
    disconnected: usize,
}

/// Runs all cases, prints the table, and writes the figures.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for case in [
        Case::AllRead,
        Case::DropOldest,
        Case::Disconnect,
        Case::HugeWindow,
    ] {
        report::progress(&format!("slow readers: {case:?}"));
        rows.push(measure(case, options).await?);
    }
    print(options, &rows);
    anyhow::ensure!(
        rows.iter().all(|row| row.unaccounted == 0),
        "slow readers were not told of everything that they missed"
    );
    report::write("slow-readers", options, &rows)
}

async fn measure(case: Case, options: &Options) -> anyhow::Result<Row> {
    let infrachat = Infrachat::start().await?;
    let usual = (*infrachat.shard).clone();
    let mut stalled_at = usual.clone();
    // What is sent to them is to stay with the server's kernel. With much less room than this, kernels
    // take seconds to notice that there is some again.
    stalled_at.receive_buffer = Some(32 * 1024);
    match case {
        Case::AllRead | Case::DropOldest => {}
        Case::Disconnect => stalled_at.slow_reader = chat::SlowReaderPolicy::Disconnect,
        Case::HugeWindow => {
            stalled_at.windows = Windows {
                stream: i32::MAX as u32,
                connection: i32::MAX as u32,
            };
        }
    }
    let tenth = match case {
        Case::AllRead => 0,
        _ => options.connections / 10,
    };
    let (mut eager, mut slow, mut stalled) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..options.connections {
        let token = infrachat.token(number);
        if number < tenth {
            stalled.push(stalled_at.subscribe(token).await?);
        } else if number < tenth * 2 {
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
    let share = usize::try_from(options.rate)? * 350 / 10 / 10;
    let slow = Listening::start(slow, Pace::Slowly(share, Duration::from_millis(100)), began);
    let memory = || anyhow::Ok(infrachat.server.memory()? + kernel_tcp_memory()?);
    let before = memory()?;
    let said = flood(&senders, &eager, options).await?;
    eager.settled().await;
    let grown = i64::try_from(memory()?)? - i64::try_from(before)?;
    let latency = eager.latency();
    drop(slow);
    let (mut unaccounted, mut disconnected) = (0, 0);
    for reader in stalled {
        let end = read_out(reader, said).await?;
        if end.closed {
            disconnected += 1;
        } else {
            unaccounted += i64::try_from(said)? - i64::try_from(end.accounted)?;
        }
    }
    let millis = |quantile| latency.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Row {
        case,
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        others_missed: (said * eager.count()).saturating_sub(eager.deliveries()),
        grown_bytes: grown,
        unaccounted,
        disconnected,
    })
}

/// Says as many messages as asked for, evenly; answers how many.
async fn flood(senders: &[Session], clock: &Listening, options: &Options) -> anyhow::Result<u64> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let ticks_per_second = 100;
    let total = options.rate * options.seconds;
    let mut said = 0;
    for tick in 1..=ticks_per_second * options.seconds {
        ticks.tick().await;
        while said < total * tick / (ticks_per_second * options.seconds) {
            let sender = usize::try_from(said)? % senders.len();
            let text = stamped(clock.now(), options.size);
            senders[sender].say(crate::target::CHANNEL, &text).await?;
            said += 1;
        }
    }
    Ok(said)
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
    println!(
        "\nSlow readers: {} sessions, {} messages/s by {} senders; a tenth stalled, a tenth reads a tenth\n",
        options.connections, options.rate, options.senders
    );
    let mut table = Table::new(&[
        "the stalled",
        "others' p50 ms",
        "p99 ms",
        "ratio",
        "missed",
        "memory a stalled reader, KB",
        "unaccounted",
        "cut off",
    ]);
    let Some(alone) = rows.first() else {
        return;
    };
    let stalled = (options.connections / 10) as f64;
    for row in rows {
        let (name, of_stalled) = match row.case {
            Case::AllRead => ("none", false),
            Case::DropOldest => ("drop_oldest", true),
            Case::Disconnect => ("disconnect", true),
            Case::HugeWindow => ("drop_oldest, 2 GB windows", true),
        };
        let more = (row.grown_bytes - alone.grown_bytes) as f64 / stalled / 1024.0;
        table.row([
            name.to_owned(),
            format!("{:.1}", row.p50_ms),
            format!("{:.1}", row.p99_ms),
            format!("{:.2}", row.p99_ms / alone.p99_ms),
            row.others_missed.to_string(),
            if of_stalled {
                format!("{more:.0}")
            } else {
                "–".to_owned()
            },
            row.unaccounted.to_string(),
            row.disconnected.to_string(),
        ]);
    }
    table.print();
}
