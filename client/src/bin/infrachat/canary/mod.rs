//! A probe that talks to itself through every pair of regions.
//!
//! In each region one session speaks and another listens, both of the same user. Each probe names the
//! region it is from and its number; the ledger knows who heard which.

mod ledger;
mod report;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use infrachat_client::{Client, ClientMessageId, Event, Options, RegionAddress};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    args::{Canary, Global},
    exit::Failure,
    session,
};
use ledger::{Hearing, Ledger};

/// Between reports.
const REPORT: Duration = Duration::from_secs(10);
/// Between sign-ins.
const SIGN_IN: Duration = Duration::from_secs(30);

/// A probe's body.
#[derive(Debug, Serialize, Deserialize)]
struct Probe {
    /// Which canary, and which run of it.
    run: String,
    from: String,
    number: u64,
}

/// What the tasks share.
#[derive(Debug)]
struct Run {
    id: String,
    args: Canary,
    ledger: Mutex<Ledger>,
}

impl Run {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn run(global: &Global, args: Canary) -> Result<()> {
    let options = session::options(global, true)?;
    let first = session::connect(options.clone()).await?;
    let regions = first.regions().to_vec();
    first.close().await;
    let home = args.region.clone();
    let home = home.unwrap_or_else(|| regions[0].region.to_string());
    if let Some(listen) = args.metrics_listen {
        report::serve_metrics(listen, &home)?;
    }
    let names: Vec<String> = regions.iter().map(|r| r.region.to_string()).collect();
    report::begin(&names);
    let run = Arc::new(Run {
        id: ClientMessageId::random().to_string(),
        args,
        ledger: Mutex::new(Ledger::new(&names)),
    });
    let mut tasks = JoinSet::new();
    let mut speakers = Vec::new();
    for region in &regions {
        let speaker = signed_in(&options, region, &run).await?;
        let listener = signed_in(&options, region, &run).await?;
        tasks.spawn(listen(
            Arc::clone(&run),
            region.region.to_string(),
            listener,
        ));
        tasks.spawn(drain(speaker.clone()));
        tasks.spawn(sign_in_again(options.clone(), region.clone()));
        speakers.push((region.region.to_string(), speaker));
    }
    let talking = talk(&run, &speakers);
    tokio::select! {
        () = talking => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        Some(ended) = tasks.join_next() => ended.context("a session")??,
    }
    report::print(&run.ledger(), run.args.json)?;
    let good = run.ledger().is_good();
    if good {
        return Ok(());
    }
    let verdict = "a probe was lost, repeated or out of order: see the report above";
    Err(Failure::Verdict(verdict.to_owned()).into())
}

/// A session in a region, in the channel.
async fn signed_in(options: &Options, region: &RegionAddress, run: &Run) -> Result<Client> {
    let mut options = options.clone();
    options.server.clone_from(&region.gatekeeper);
    let client = timed_sign_in(options, region.region.as_str()).await?;
    session::enter(&client, &run.args.channel, 0, true).await?;
    Ok(client)
}

async fn timed_sign_in(options: Options, region: &str) -> Result<Client> {
    let began = Instant::now();
    let signed_in = session::connect(options).await;
    report::signed_in(region, began.elapsed(), signed_in.is_ok());
    signed_in
}

/// Signs in from time to time, as people do.
async fn sign_in_again(mut options: Options, region: RegionAddress) -> Result<()> {
    options.server.clone_from(&region.gatekeeper);
    let mut every = interval(SIGN_IN);
    every.tick().await;
    loop {
        every.tick().await;
        match timed_sign_in(options.clone(), region.region.as_str()).await {
            // Signed out at once, or sign-ins would pile up until they expire.
            Ok(client) => drop(client.sign_out().await),
            Err(err) => tracing::warn!(region = %region.region, "signing in failed: {err:#}"),
        }
    }
}

/// Says something in every region, round after round.
async fn talk(run: &Arc<Run>, speakers: &[(String, Client)]) {
    let mut every = interval(run.args.every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = Instant::now();
    let mut number = 0;
    loop {
        every.tick().await;
        let more = run.args.rounds.is_none_or(|rounds| number < rounds);
        if more {
            number += 1;
            for (region, client) in speakers {
                say(run, region, client, number);
            }
        }
        for ((from, to), count) in run.ledger().give_up(Instant::now(), run.args.deadline) {
            report::lost(&from, &to, count);
        }
        if !more && !run.ledger().is_waiting() {
            return;
        }
        if more && run.args.rounds.is_none() && reported.elapsed() >= REPORT {
            reported = Instant::now();
            if let Err(err) = report::print(&run.ledger(), run.args.json) {
                tracing::warn!(%err, "the report can't be printed");
            }
        }
    }
}

fn say(run: &Arc<Run>, from: &str, client: &Client, number: u64) {
    let probe = Probe {
        run: run.id.clone(),
        from: from.to_owned(),
        number,
    };
    let Ok(body) = serde_json::to_string(&probe) else {
        return;
    };
    run.ledger().said(from, number, Instant::now());
    let publishing = client.publish(&run.args.channel, body);
    let (run, from) = (Arc::clone(run), from.to_owned());
    tokio::spawn(async move {
        match publishing.await {
            Ok(_) => {
                run.ledger().acknowledged(&from, number, Instant::now());
                let to: Vec<String> = {
                    let ledger = run.ledger();
                    let pairs = ledger.counts().map(|(pair, _)| pair);
                    let of_this = pairs.filter(|(said, _)| *said == from);
                    of_this.map(|(_, to)| to.clone()).collect()
                };
                to.iter().for_each(|to| report::sent(&from, to));
            }
            Err(err) => {
                tracing::warn!(from, %err, "a probe was not acknowledged");
                run.ledger().failed(&from, number);
            }
        }
    });
}

/// Hears everything that is said, and how long the session is away when it breaks.
async fn listen(run: Arc<Run>, region: String, client: Client) -> Result<()> {
    let mut broken: Option<Instant> = None;
    while let Some(event) = client.next_event().await {
        match event {
            Event::Message(message) => {
                let Ok(probe) = serde_json::from_slice::<Probe>(&message.body) else {
                    continue;
                };
                if probe.run != run.id {
                    continue;
                }
                let now = Instant::now();
                let heard = run.ledger().heard(&probe.from, &region, probe.number, now);
                match heard {
                    Hearing::First { after, reordered } => {
                        report::heard(&probe.from, &region, after, reordered);
                    }
                    Hearing::Again => report::doubled(&probe.from, &region),
                    Hearing::Unknown => {}
                }
            }
            Event::Disconnected { .. } => {
                broken.get_or_insert_with(Instant::now);
            }
            Event::Joined {
                recovered: true, ..
            } => {
                if let Some(since) = broken.take() {
                    report::recovered(&region, since.elapsed());
                }
            }
            Event::Closed { code, reason } => {
                anyhow::bail!("the session in {region} was closed ({code}): {reason}");
            }
            _ => {}
        }
    }
    anyhow::bail!("the session in {region} ended")
}

/// Reads what a speaker hears, so that its acknowledgements come.
async fn drain(client: Client) -> Result<()> {
    while client.next_event().await.is_some() {}
    anyhow::bail!("a speaker's session ended")
}
