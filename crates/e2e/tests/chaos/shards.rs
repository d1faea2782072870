//! Shards that crash, freeze, and are restarted.

use std::time::{Duration, Instant};

use infrachat_e2e::{RawSession, Received, WEST};
use infrachat_proto::{chat::v1::server_event::Kind, switchboard::v1::Route};
use infrachat_types::ErrorCode;
use rustix::process::Signal;

use crate::{
    day::Day,
    distribution::print_distribution,
    load::{Load, channels},
    rounds,
    world::{World, within},
};

const SHARDS: [&str; 2] = ["us-west1 shard-0", "us-west1 shard-1"];
/// Longer than any story.
const FOREVER: Duration = Duration::from_secs(3_600);
/// As Kubernetes would, after it noticed.
const NOTICED: Duration = Duration::from_secs(1);

/// The channels that a process serves.
async fn served_by(world: &World, token: &str, process: &str) -> Vec<String> {
    let slot = process.replace(' ', "-");
    let routes = world.routes(WEST, token, &channels()).await;
    let served = routes.expect("routes").into_iter();
    served
        .filter(|route| route.shard == slot)
        .map(|route| route.channel)
        .collect()
}

async fn killed(restarted_after: Option<Duration>) {
    let mut world = World::start(&[]).await;
    let token = world.token(WEST, "watcher").await;
    let load = Load::start(&world).await;
    let mut day = Day::begin(&world).await;
    let (mut again, mut whole) = (Vec::new(), Vec::new());
    let mut round = 0;
    while day.goes_on(round) {
        let victim = SHARDS[round % 2];
        world.served(WEST).await;
        let of_victim = served_by(&world, &token, victim).await;
        assert!(!of_victim.is_empty(), "{victim} serves nothing");
        let then = Instant::now();
        world.kill(victim).await;
        if let Some(after) = restarted_after {
            // How soon it comes back is part of the story, and nothing waits for it.
            tokio::time::sleep(after).await;
            world.restart(victim).await;
        }
        load.goes_on(&[0, 1], &[0, 1]).await;
        let talkers = load.names(WEST);
        for reader in &talkers {
            for channel in &of_victim {
                let others: Vec<_> = talkers
                    .iter()
                    .filter(|name| *name != reader)
                    .cloned()
                    .collect();
                let first = load.ledger.first_heard(reader, &others, channel, then);
                again.push(first.expect("heard") - then);
                whole.extend(
                    load.ledger
                        .last_late(reader, channel, then)
                        .map(|at| at - then),
                );
            }
        }
        if restarted_after.is_none() {
            world.restart(victim).await;
        }
        round += 1;
    }
    let counted = load.settle(&world).await;
    let story = match restarted_after {
        Some(after) => format!("kill -9, restarted after {after:?}"),
        None => "kill -9, not restarted".to_owned(),
    };
    println!("{story}, {round} times: {counted}");
    day.verdict().await;
    print_distribution("  readers of the shard hear their region again", again);
    print_distribution("  something said before the kill came after it", whole);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_killed_and_comes_back_loses_nothing() {
    killed(Some(NOTICED)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_killed_and_stays_away_loses_nothing() {
    killed(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_was_frozen_for_longer_than_its_lease_neither_serves_nor_writes() {
    // Clients notice a frozen shard by its silence.
    let mut world = World::start(&["--heartbeat-interval-ms", "1000"]).await;
    let token = world.token(WEST, "watcher").await;
    let load = Load::start(&world).await;
    for round in 0..rounds() {
        let victim = SHARDS[round % 2];
        world.served(WEST).await;
        let name = served_by(&world, &token, victim).await.remove(0);
        let endpoint = world.stack.process(victim).service.address.clone();
        let mut left_behind = RawSession::hello(&endpoint, &token).await;
        left_behind.join(&name).await;

        world.stack.process(victim).signal(Signal::STOP);
        within("another shard serves what the frozen one did", async || {
            let routes = world
                .routes(WEST, &token, std::slice::from_ref(&name))
                .await;
            routes.is_some_and(|routes| {
                !routes[0].endpoint.is_empty() && routes[0].endpoint != endpoint
            })
        })
        .await;
        load.goes_on(&[0, 1], &[0, 1]).await;
        // It finds this when it wakes up.
        left_behind.publish(&name, "too late").await;
        world.stack.process(victim).signal(Signal::CONT);
        // Or the stream ends, since its heartbeats were missed meanwhile.
        while let Received::Event(kind) = left_behind.receive().await {
            match *kind {
                Kind::Error(error) => {
                    let codes = [ErrorCode::Unavailable, ErrorCode::NotJoined];
                    assert!(
                        codes.map(ErrorCode::as_str).contains(&error.code.as_str()),
                        "{error:?}"
                    );
                    break;
                }
                Kind::Ack(ack) => panic!("a shard that lost its lease acknowledged {ack:?}"),
                // What it had before it was frozen, and where the channel is now.
                _ => {}
            }
        }
        load.goes_on(&[0, 1], &[0, 1]).await;
    }
    println!("frozen, {} times: {}", rounds(), load.settle(&world).await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_reaches_the_store_and_nobody_else_is_counted_out_until_it_answers() {
    // Clients notice it by its silence.
    let world = World::behind_links(&["--heartbeat-interval-ms", "1000"]).await;
    let token = world.token(WEST, "watcher").await;
    let load = Load::start(&world).await;
    let (mut away, mut back) = (Vec::new(), Vec::new());
    for round in 0..rounds() {
        let slot = round % 2;
        world.served(WEST).await;
        let served = served_by(&world, &token, SHARDS[slot]).await;
        assert!(!served.is_empty(), "{} serves nothing", SHARDS[slot]);
        let (since, then) = (world.lines().len(), Instant::now());
        // Who is connected, and who connects, waits.
        world.links[slot].set_delay(FOREVER);
        within(
            "the other shard serves what the silent one did",
            async || {
                let routes = world.routes(WEST, &token, &served).await;
                let moved = |route: &Route| {
                    !route.endpoint.is_empty() && route.endpoint != world.links[slot].address
                };
                routes.is_some_and(|routes| routes.iter().all(moved))
            },
        )
        .await;
        away.push(then.elapsed());
        load.goes_on(&[0, 1], &[0, 1]).await;
        // It lives, and asks.
        world.says(SHARDS[slot], "is counted out", since).await;

        let then = Instant::now();
        world.links[slot].set_delay(Duration::ZERO);
        world.links[slot].break_connections();
        within("it serves again", async || {
            !served_by(&world, &token, SHARDS[slot]).await.is_empty()
        })
        .await;
        back.push(then.elapsed());
        load.goes_on(&[0, 1], &[0, 1]).await;
    }
    println!("silent, {} times: {}", rounds(), load.settle(&world).await);
    print_distribution("  everything it served is with the other", away);
    print_distribution("  once it answers, it serves again", back);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_every_shard_is_restarted_in_turn() {
    let mut world = World::start(&[]).await;
    let load = Load::start(&world).await;
    let shards = ["us-west1", "asia-northeast1"]
        .map(|region| [0, 1].map(|slot| format!("{region} shard-{slot}")));
    let mut day = Day::begin(&world).await;
    let mut away = Vec::new();
    let mut round = 0;
    while day.goes_on(round) {
        for (region, shard) in shards
            .iter()
            .enumerate()
            .flat_map(|(region, shards)| shards.iter().map(move |s| (region, s)))
        {
            let then = Instant::now();
            let process = world.stack.process(shard);
            process.signal(Signal::TERM);
            let status = process.wait().await.expect("ends");
            assert!(status.success(), "{shard} ended with {status}");
            load.goes_on(&[0, 1], &[0, 1]).await;
            let talkers = load.names(region);
            for reader in &talkers {
                let others: Vec<_> = talkers
                    .iter()
                    .filter(|name| *name != reader)
                    .cloned()
                    .collect();
                for channel in channels() {
                    let first = load.ledger.first_heard(reader, &others, &channel, then);
                    away.push(first.expect("heard") - then);
                }
            }
            world.restart(shard).await;
            world.served(region).await;
        }
        round += 1;
    }
    println!(
        "restarted in turn, {round} times: {}",
        load.settle(&world).await
    );
    day.verdict().await;
    print_distribution(
        "  what is said after SIGTERM is first heard, all channels",
        away,
    );
    world.stop().await;
}
