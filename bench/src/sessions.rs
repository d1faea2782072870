//! Many sessions that do nothing: what each costs, and how fast they come.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
    task::JoinSet,
    time::Instant,
};

use crate::{
    http2,
    process::{file_limit, kernel_tcp_memory},
    report::{self, Table},
    target::{Infrachat, Shard, Subscriber, Wire, hello},
};

/// Clients that arrive at the same moment, when nothing else is said.
const AT_ONCE: usize = 64;
/// What is freed late is freed by then.
const SETTLING: Duration = Duration::from_secs(2);

/// What is measured of idle sessions.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct IdleOptions {
    /// How many sessions.
    #[arg(long, value_delimiter = ',', default_values_t = [5_000, 20_000])]
    pub(crate) sessions: Vec<usize>,
}

/// How far clients go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// A connection on which nothing was said.
    Connection,
    /// HTTP/2 was agreed on.
    Http2,
    /// A session.
    Session,
    /// A session in a channel.
    Joined,
}

#[derive(Debug, Serialize)]
struct IdleRow {
    sessions: usize,
    stage: Stage,
    /// Memory of the server, bytes each.
    server: f64,
    /// Memory that the kernel holds for both ends, bytes each.
    kernel: f64,
}

/// Measures each stage with a server of its own.
pub(crate) async fn idle(options: &IdleOptions) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    // A server has other files open as well.
    let most = usize::try_from(file_limit().saturating_sub(1_000)).unwrap_or(usize::MAX);
    for sessions in &options.sessions {
        let sessions = &most.min(*sessions);
        for stage in [
            Stage::Connection,
            Stage::Http2,
            Stage::Session,
            Stage::Joined,
        ] {
            report::progress(&format!("idle: {sessions} × {stage:?}"));
            let infrachat = Infrachat::start().await?;
            let memory = || anyhow::Ok((infrachat.server.memory()?, kernel_tcp_memory()?));
            let before = memory()?;
            let held = arrive(&infrachat, *sessions, AT_ONCE, stage).await?;
            tokio::time::sleep(SETTLING).await;
            let after = memory()?;
            let each = |after: u64, before: u64| (after as f64 - before as f64) / *sessions as f64;
            rows.push(IdleRow {
                sessions: *sessions,
                stage,
                server: each(after.0, before.0),
                kernel: each(after.1, before.1),
            });
            drop(held);
        }
    }
    println!(
        "\nIdle: memory of the server by how far its clients have come, KB each (kernel: both ends)\n"
    );
    let mut table = Table::new(&[
        "clients",
        "a connection",
        "+ HTTP/2",
        "+ session",
        "+ joined",
        "kernel",
    ]);
    for rows in rows.chunks(4) {
        let mut last = 0.0;
        let parts = rows.iter().map(|row| {
            let part = row.server - last;
            last = row.server;
            format!("{:.1} ({:.1})", part / 1024.0, row.server / 1024.0)
        });
        let parts: Vec<_> = parts.collect();
        let kernel = rows.last().map_or(0.0, |row| row.kernel);
        let first = rows.first().map_or(0, |row| row.sessions);
        table.row(
            std::iter::once(first.to_string())
                .chain(parts)
                .chain([format!("{:.1}", kernel / 1024.0)]),
        );
    }
    table.print();
    report::write("idle", options, &rows)
}

/// What is measured of sessions that come.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct ArrivalsOptions {
    /// How many sessions.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) sessions: usize,
}

#[derive(Debug, Serialize)]
struct ArrivalsRow {
    at_once: usize,
    seconds: f64,
    per_second: f64,
    cpu_us_each: f64,
    /// Attempts beyond the first.
    retried: u64,
}

/// Measures a steady stream of arrivals, and all at once after everybody was cut off.
pub(crate) async fn arrivals(options: &ArrivalsOptions) -> anyhow::Result<()> {
    let infrachat = Infrachat::start().await?;
    let mut rows = Vec::new();
    for at_once in [AT_ONCE, options.sessions] {
        report::progress(&format!(
            "arrivals: {} sessions, {at_once} at once",
            options.sessions
        ));
        let (began, cpu) = (Instant::now(), infrachat.server.cpu()?);
        let held = arrive(&infrachat, options.sessions, at_once, Stage::Joined).await?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = infrachat.server.cpu()?.saturating_sub(cpu);
        rows.push(ArrivalsRow {
            at_once,
            seconds,
            per_second: options.sessions as f64 / seconds,
            cpu_us_each: cpu.as_secs_f64() * 1e6 / options.sessions as f64,
            retried: held.retried,
        });
        // All hang up in the same moment, as when a shard goes away.
        drop(held);
        tokio::time::sleep(SETTLING).await;
    }
    println!(
        "\nArrivals: {} sessions, until all have joined\n",
        options.sessions
    );
    let mut table = Table::new(&[
        "at once",
        "seconds",
        "sessions/s",
        "server CPU-µs each",
        "retried",
    ]);
    for row in &rows {
        table.row([
            row.at_once.to_string(),
            format!("{:.2}", row.seconds),
            format!("{:.0}", row.per_second),
            format!("{:.0}", row.cpu_us_each),
            row.retried.to_string(),
        ]);
    }
    table.print();
    report::write("arrivals", options, &rows)
}

/// Clients that came, and stay for as long as this lives.
#[derive(Debug)]
struct Held {
    retried: u64,
    _clients: Vec<Subscriber>,
}

async fn arrive(
    infrachat: &Infrachat,
    count: usize,
    at_once: usize,
    stage: Stage,
) -> anyhow::Result<Held> {
    let places = Arc::new(Semaphore::new(at_once));
    let mut coming = JoinSet::new();
    for number in 0..count {
        let (places, shard) = (Arc::clone(&places), Arc::clone(&infrachat.shard));
        let token = infrachat.token(number).to_owned();
        coming.spawn(async move {
            let _place = places.acquire_owned().await?;
            let mut retried = 0;
            loop {
                match come(&shard, &token, stage).await {
                    Ok(client) => return anyhow::Ok((client, retried)),
                    Err(err) if retried >= 10 => return Err(err),
                    Err(_) => {
                        retried += 1;
                        tokio::time::sleep(Duration::from_millis(100 * retried)).await;
                    }
                }
            }
        });
    }
    let mut held = Held {
        retried: 0,
        _clients: Vec::with_capacity(count),
    };
    while let Some(came) = coming.join_next().await {
        let (client, retried) = came??;
        held.retried += retried;
        held._clients.push(client);
    }
    Ok(held)
}

/// A client that has come so far.
async fn come(shard: &Shard, token: &str, stage: Stage) -> anyhow::Result<Subscriber> {
    match stage {
        Stage::Connection => {
            let stream = shard.connect().await?;
            let wire = Wire::Plain;
            Ok(Subscriber { stream, wire })
        }
        Stage::Http2 => agree(shard).await,
        // Whatever it says first, it says in a session.
        Stage::Session => shard.open(&[hello(token)], |_| Ok(true)).await,
        Stage::Joined => shard.subscribe(token).await,
    }
}

/// A connection on which the other side has spoken HTTP/2.
async fn agree(shard: &Shard) -> anyhow::Result<Subscriber> {
    let mut stream = shard.connect().await?;
    let mut out = BytesMut::new();
    let mut connection = http2::Connection::new(shard.windows, &mut out);
    http2::ping(&mut out, 1);
    stream.write_all(&out.split()).await?;
    let mut bytes = vec![0; 4096];
    let read = stream.read(&mut bytes).await?;
    anyhow::ensure!(read > 0, "the shard hung up");
    connection.feed(&bytes[..read], &mut out, |_| {})?;
    stream.write_all(&out.split()).await?;
    let wire = Wire::Http2(Box::new(connection));
    Ok(Subscriber { stream, wire })
}
