//! The embedded stack in one thread on paused time, under faults that one seed chooses: shards crash, are
//! cut off and come back, leases are renewed late, the bus duplicates, delays and redelivers, links and
//! buses go away, stores are slow or away, connections break.
//!
//! What must hold: no acknowledged message is missing at a member, none is shown twice, each sender's are in
//! order, no partition is served by two shards at once, no gap and no error is shown, and both regions'
//! histories are equal in the end.
//!
//! A seed chooses what goes wrong and when. Which of two tasks that are ready goes first is not the seed's.
#![allow(clippy::expect_used)]

mod faulty;
mod proxy;
mod storm;
mod world;

use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use clap::Parser;
use infrachat_client::NewChannel;
use infrachat_e2e::{REGIONS, channel, histories_agree, join, listen, talk};
use tokio::time::{sleep, timeout};

use crate::{
    storm::{Dice, rage},
    world::World,
};

/// Users of a region.
const TALKERS: usize = 2;
const CHANNELS: usize = 4;
/// Between messages of a user.
const PAUSE: Duration = Duration::from_millis(150);
/// Of the paused clock: longer than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the tests are told, by the environment: the command line is the test runner's.
#[derive(Debug, Parser)]
struct Settings {
    /// Seeds: one, several, or from one to another: 7 or 1,5,9 or 1-100.
    #[arg(long, env = "INFRACHAT_SEEDS", default_value = "1-8,27")]
    seeds: String,
    /// Which log lines to show.
    #[arg(long, env = "INFRACHAT_LOG", default_value = "off")]
    log: String,
}

fn seeds(text: &str) -> Vec<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    let part = |part: &str| match part.split_once('-') {
        Some((from, to)) => (number(from)..=number(to)).collect(),
        None => vec![number(part)],
    };
    text.split(',').flat_map(part).collect()
}

async fn simulate(seed: u64) -> String {
    let mut dice = Dice::new(seed);
    let mut world = World::start(dice.bus_faults()).await;
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
    format!(
        "{} acknowledged, {} delivered in {} regions",
        world.ledger.acknowledged(),
        world.ledger.delivered(),
        REGIONS.len()
    )
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_doubled_or_reordered() {
    let settings = Settings::try_parse_from([""]).unwrap_or_else(|err| panic!("{err}"));
    infrachat_runtime::telemetry::init(&settings.log);
    for seed in seeds(&settings.seeds) {
        let began = std::time::Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        println!("simulating seed {seed}; to replay it: make simulate SEEDS={seed}");
        let counted = runtime.block_on(simulate(seed));
        println!("  {counted}, {:.1?}", began.elapsed());
        runtime.shutdown_background();
    }
}
