//! Many sessions lose their shard at once, and all of them come back: without a stampede.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use infrachat_client::{Client, Event, JoinOptions, NewChannel};
use infrachat_e2e::{Scrape, WEST, channel};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tokio::task::JoinSet;

use crate::{
    distribution::print_distribution,
    is_long, rounds,
    usher::Usher,
    world::{World, within},
};

/// Few, so that signing in is not what is tried.
const USERS: usize = 20;
const CHANNELS: usize = 8;
/// Between two messages in one channel.
const PAUSE: Duration = Duration::from_secs(1);
/// Sessions that come in at the same time before the story begins.
const AT_ONCE: usize = 64;
/// Most times that a session asks where its channel is, until it is back: each wait is longer than the last.
const ASKED: usize = 16;

/// What one session was told.
#[derive(Debug, Default)]
struct Told {
    heard: Vec<usize>,
    /// Streams that ended, and why; and channels joined.
    disconnected: Vec<(Instant, String)>,
    joined: Vec<Instant>,
    wrong: Vec<String>,
}

struct Session {
    client: Client,
    channel: String,
    told: Arc<Mutex<Told>>,
}

impl Session {
    fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock().expect("whole"))
    }
}

fn channels() -> impl Iterator<Item = String> {
    (0..CHANNELS).map(|number| format!("#crowd-{number}"))
}

async fn listen(client: Client, told: Arc<Mutex<Told>>) {
    while let Some(event) = client.next_event().await {
        let mut told = told.lock().expect("whole");
        match event {
            Event::Message(message) => {
                let body = String::from_utf8_lossy(&message.body);
                told.heard.push(body.parse().expect("a number"));
            }
            Event::Disconnected { reason, .. } => {
                told.disconnected.push((Instant::now(), reason));
            }
            Event::Joined { recovered, .. } => {
                told.joined.push(Instant::now());
                if !recovered && told.joined.len() > 1 {
                    told.wrong.push("something was missed".to_owned());
                }
            }
            Event::Gap { .. } | Event::Error { .. } | Event::Left { .. } => {
                told.wrong.push(format!("{event:?}"));
            }
            Event::Closed { code, .. } if code != "closed" => told.wrong.push(code),
            _ => {}
        }
    }
}

/// Sessions, their sockets on both sides, and what the programs have open besides.
fn allow_sockets() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("as many as may be");
}

async fn enter(world: &World, usher: &Usher, count: usize) -> Vec<Session> {
    let names: Vec<_> = channels().collect();
    let entering = (0..count).map(|number| {
        let channel_name = names[number % CHANNELS].clone();
        let mut options = world.options(WEST, &format!("crowd-{}", number / CHANNELS % USERS));
        options.server.clone_from(&usher.address);
        // Each is told of few things at a time.
        options.event_buffer = 256;
        async move {
            let client = Client::connect(options).await.expect("signs in");
            let told = Arc::default();
            tokio::spawn(listen(client.clone(), Arc::clone(&told)));
            let name = channel(&channel_name);
            let joined = client.join(&name, JoinOptions::default());
            joined.await.expect("joins");
            Session {
                client,
                channel: channel_name,
                told,
            }
        }
    });
    stream::iter(entering)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// Says numbers in every channel until it is enough; answers how many in each.
async fn cry(crier: Client, enough: Arc<AtomicBool>) -> usize {
    let mut every = tokio::time::interval(PAUSE);
    let mut answers = JoinSet::new();
    let mut number = 0;
    while !enough.load(Ordering::Acquire) {
        every.tick().await;
        for name in channels() {
            let answer = crier.publish(&channel(&name), number.to_string());
            answers.spawn(answer);
        }
        number += 1;
    }
    for answer in answers.join_all().await {
        answer.expect("acknowledged");
    }
    number
}

/// What Switchboard and Gatekeeper were asked so far.
async fn asked(world: &mut World) -> (f64, f64) {
    let mut scrapes = Vec::new();
    for program in ["us-west1 switchboard", "us-west1 gatekeeper"] {
        let metrics = world.stack.process(program).service.metrics.clone();
        scrapes.push(Scrape::of(&metrics.expect("it serves metrics")).await);
    }
    let resolves = scrapes[0].sum("infrachat_resolves_total", &[]);
    (
        resolves,
        scrapes[1].sum("infrachat_auth_requests_total", &[]),
    )
}

/// Most that happened within any tenth of a second.
fn peak(times: &[Instant]) -> usize {
    let mut times = times.to_vec();
    times.sort_unstable();
    let windows = times.iter().enumerate().map(|(first, at)| {
        let until = *at + Duration::from_millis(100);
        times.partition_point(|other| *other < until) - first
    });
    windows.max().unwrap_or_default()
}

async fn comes_back(signal: Signal) {
    allow_sockets();
    let count = if is_long() { 5_000 } else { 300 };
    let mut world = World::with_metrics().await;
    let usher = Usher::start(world.gatekeeper(WEST)).await;
    let crier = world.client(WEST, "crier").await;
    for name in channels().map(|name| channel(&name)) {
        let created = crier.create_channel(&name, NewChannel::default());
        created.await.expect("created");
        let joined = crier.join(&name, JoinOptions::default());
        joined.await.expect("joins");
    }
    let began = Instant::now();
    let sessions = enter(&world, &usher, count).await;
    println!("{count} sessions came in within {:.1?}", began.elapsed());
    let enough = Arc::new(AtomicBool::new(false));
    let crying = tokio::spawn(cry(crier.clone(), Arc::clone(&enough)));
    for round in 0..rounds() {
        world.served(WEST).await;
        let victim = format!("us-west1 shard-{}", round % 2);
        let (resolves, auths) = asked(&mut world).await;
        let (logins, refreshes) = (usher.logins(), usher.refreshes());
        let (then, lines) = (Instant::now(), world.lines().len());
        let heard = |session: &Session| session.told(|told| told.heard.last().copied());
        let before = sessions.iter().filter_map(heard).max().unwrap_or_default();
        let process = world.stack.process(&victim);
        process.signal(signal);
        process.wait().await.expect("ends");

        within("everyone hears what is said after that", async || {
            let back = |session: &Session| {
                session.told(|told| {
                    let lost = told.disconnected.last().filter(|(at, _)| *at > then);
                    let joined = told.joined.last();
                    assert_eq!(told.wrong, Vec::<String>::new());
                    // Nobody has noticed anything yet, as long as nothing said later was heard.
                    let hears = told.heard.last().is_some_and(|last| *last > before + 3);
                    hears && lost.is_none_or(|(lost, _)| joined.is_some_and(|joined| joined > lost))
                })
            };
            sessions.iter().all(back)
        })
        .await;
        let first = |told: &Told| told.joined.iter().find(|at| **at > then).copied();
        let after: Vec<Instant> = sessions
            .iter()
            .filter_map(|session| session.told(first))
            .collect();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for session in &sessions {
            session.told(|told| {
                let lost = told.disconnected.iter().filter(|(at, _)| *at > then);
                lost.for_each(|(_, reason)| *reasons.entry(reason.clone()).or_default() += 1);
            });
        }
        let (resolves_after, auths_after) = asked(&mut world).await;
        // What is counted comes in whole numbers.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let resolved = (resolves_after - resolves) as usize;
        assert!(!after.is_empty(), "{victim} had no sessions");
        println!(
            "{victim} ended by {signal:?}: {} of {count} sessions came back, at most {} within 100 ms; {resolved} \
             channels were asked for; {} sign-ins and {} refreshes, of which Gatekeeper saw {}",
            after.len(),
            peak(&after),
            usher.logins() - logins,
            usher.refreshes() - refreshes,
            auths_after - auths,
        );
        println!("  streams ended: {reasons:?}");
        let said = world.lines();
        let mut said = said.iter().skip(lines);
        if said.any(|(_, line)| line.contains("serving nothing until it is renewed")) {
            println!("  the lease of another shard ran out meanwhile");
        }
        let times = after.iter().map(|at| *at - then).collect();
        print_distribution("  back after", times);
        assert_eq!(usher.logins(), logins, "who has tokens signs in nowhere");
        assert!(
            resolved <= ASKED * after.len(),
            "{resolved} questions of {} sessions",
            after.len()
        );
        world.restart(&victim).await;
    }
    enough.store(true, Ordering::Release);
    let said = crying.await.expect("cried");
    let all: Vec<_> = (0..said).collect();
    let hears_all = |session: &Session| session.told(|told| told.heard.last() == all.last());
    within("everyone heard all of it", async || {
        sessions.iter().all(hears_all)
    })
    .await;
    for session in &sessions {
        session.told(|told| {
            assert_eq!(told.heard, all, "in {}", session.channel);
            assert_eq!(told.wrong, Vec::<String>::new());
        });
    }
    println!("{said} messages in each channel, each heard once by every session, in order");
    let closing = sessions.iter().map(|session| session.client.close());
    stream::iter(closing)
        .buffer_unordered(AT_ONCE)
        .count()
        .await;
    crier.close().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_whose_shard_is_killed_comes_back_without_a_stampede() {
    comes_back(Signal::KILL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_whose_shard_is_stopped_comes_back_without_a_stampede() {
    comes_back(Signal::TERM).await;
}
