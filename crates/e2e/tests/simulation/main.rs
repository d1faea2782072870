//! The embedded stack in one thread on paused time, under faults that one seed chooses: shards crash, are
//! cut off and come back, leases are renewed late, clocks disagree, the bus duplicates, delays, redelivers and
//! loses, links and buses go away, stores are slow or away, presence is silent, connections break.
//!
//! What must hold: no acknowledged message is missing at a member, none is shown twice, each sender's are in
//! order, no partition is served by two shards at once, no gap and no error is shown, both regions' histories
//! are equal in the end, and nothing is held of who has gone.
//!
//! A seed chooses what goes wrong and when, how far each shard's clock is off, and all that would otherwise
//! be chance: each runs in a process of its own, whose randomness and date come from it (`chance`), on a
//! network without a kernel (`net`). So it replays to the same run, event by event (`trace`).
#![allow(clippy::expect_used)]

mod bus;
mod chance;
mod dice;
mod life;
mod net;
mod presence;
mod store;
mod storm;
mod trace;
mod world;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use infrachat_client::NewChannel;
use infrachat_e2e::{REGIONS, channel, histories_agree, join, listen, talk};
use tokio::time::{sleep, timeout};

use crate::{
    dice::Dice,
    storm::{lose_events, rage},
    trace::Trace,
    world::World,
};

/// Users of a region.
const TALKERS: usize = 2;
const CHANNELS: usize = 4;
/// Between messages of a user.
const PAUSE: Duration = Duration::from_millis(150);
/// Of the paused clock: longer than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(90);
/// Of the paused clock: channels that nobody reads are kept for two minutes.
const IDLE: Duration = Duration::from_secs(200);

/// What the tests are told, by the environment: the command line is the test runner's.
#[derive(Debug, Parser)]
struct Settings {
    /// Seeds: one, several, or from one to another: 7 or 1,5,9 or 1-100.
    #[arg(long, env = "INFRACHAT_SEEDS", default_value = "1-12")]
    seeds: String,
    /// Which log lines to show.
    #[arg(long, env = "INFRACHAT_LOG", default_value = "off")]
    log: String,
    /// Where to write what happens, event by event.
    #[arg(long, env = "INFRACHAT_TRACE")]
    trace: Option<PathBuf>,
}

fn settings() -> Settings {
    Settings::try_parse_from([""]).unwrap_or_else(|err| panic!("{err}"))
}

fn seeds(text: &str) -> Vec<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    let part = |part: &str| match part.split_once('-') {
        Some((from, to)) => (number(from)..=number(to)).collect(),
        None => vec![number(part)],
    };
    text.split(',').flat_map(part).collect()
}

async fn simulate(seed: u64, trace: Trace) -> String {
    let mut dice = Dice::new(seed);
    let mut world = World::start(dice.bus_faults(), &mut dice, trace).await;
    let names: Vec<_> = (0..CHANNELS).map(|number| format!("#c{number}")).collect();
    let mut clients = Vec::new();
    for (region, initial) in ["w", "a"].into_iter().enumerate() {
        for number in 0..TALKERS {
            clients.push(world.client(region, &format!("{initial}{number}")).await);
        }
    }
    for name in &names {
        let name = channel(name);
        let created = clients[0].create_channel(&name, NewChannel::default());
        created.await.expect("created");
    }
    let enough = Arc::new(AtomicBool::new(false));
    for client in &clients {
        for name in &names {
            join(client, &channel(name)).await;
        }
        tokio::spawn(listen(client.clone(), Arc::clone(&world.ledger)));
    }
    let talking: Vec<_> = clients
        .iter()
        .map(|client| {
            let (ledger, enough) = (Arc::clone(&world.ledger), Arc::clone(&enough));
            tokio::spawn(talk(client.clone(), names.clone(), PAUSE, ledger, enough))
        })
        .collect();
    rage(&mut world, &mut dice).await;
    lose_events(&world).await;
    enough.store(true, Ordering::Release);
    let talked = timeout(PATIENCE, futures::future::join_all(talking));
    if talked.await.is_err() {
        let records = world.records().await;
        panic!(
            "not everything said is answered after {:#?}: {records}",
            world.happened
        );
    }

    let everyone: Vec<_> = clients
        .iter()
        .map(|client| client.user().to_string())
        .collect();
    let shown = timeout(PATIENCE, async {
        while !world.ledger.missing(&everyone).is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    if shown.await.is_err() {
        let missing = world.ledger.missing(&everyone);
        let first = &missing[..missing.len().min(9)];
        panic!(
            "{} deliveries are missing: {first:#?} after {:#?}",
            missing.len(),
            world.happened
        );
    }
    let faults = world.ledger.faults();
    assert!(faults.is_empty(), "{faults:#?} after {:#?}", world.happened);
    for name in &names {
        let agree = timeout(PATIENCE, async {
            loop {
                if histories_agree(&clients[0], &clients[TALKERS], name, &world.ledger).await {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        let agree = agree.await.is_ok();
        assert!(
            agree,
            "the histories of {name} differ or lack messages after {:#?}",
            world.happened
        );
    }
    for client in &clients {
        client.close().await;
    }
    nothing_is_left(&world, &names).await;
    format!(
        "{} acknowledged, {} delivered in {} regions, {} events lost on the way; {}",
        world.ledger.acknowledged(),
        world.ledger.delivered(),
        REGIONS.len(),
        world.losses.count.load(Ordering::Relaxed),
        world.trace.digest()
    )
}

/// Once everybody has gone, nothing of them stays: sessions, logs, windows, parked deliveries, seats.
async fn nothing_is_left(world: &World, names: &[String]) {
    let emptied = timeout(IDLE, async {
        while !world.left(names).await.is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    if emptied.await.is_err() {
        let left = world.left(names).await;
        panic!("still there: {left:#?} after {:#?}", world.happened);
    }
}

/// What became of a seed: its line, or why it failed.
fn verdict_on(seed: u64) -> Result<String, String> {
    let output = chance::process_of(seed);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix(VERDICT));
    match line {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "seed {seed} failed; to replay it: make simulate SEEDS={seed}\n{said}{why}"
            ))
        }
    }
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_doubled_or_reordered() {
    let waiting = Mutex::new(seeds(&settings().seeds).into_iter());
    let failures = Mutex::new(Vec::new());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next()
    };
    let work = || {
        while let Some(seed) = next() {
            match verdict_on(seed) {
                Ok(line) => println!("seed {seed}: {line}"),
                Err(why) => failures.lock().expect("whole").push(why),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("whole");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "a seed replays exactly on Linux only"
)]
fn a_seed_replays_to_the_same_run() {
    let run = |seed| verdict_on(seed).unwrap_or_else(|why| panic!("{why}"));
    // Shards crash in these, and what they had not acknowledged comes again.
    for seed in [10, 11] {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(10), run(11));
}

/// Begins the line of a seed that went well.
const VERDICT: &str = "verdict: ";

#[test]
#[ignore = "one seed, in a process of its own: started by the other tests"]
fn one_seed() {
    let settings = settings();
    infrachat_runtime::telemetry::init(&settings.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let seed = seeds(&settings.seeds)[0];
    let verdict = runtime.block_on(async {
        let trace = Trace::begin(settings.trace.as_deref());
        simulate(seed, trace).await
    });
    println!("\n{VERDICT}{verdict}");
    runtime.shutdown_background();
}
