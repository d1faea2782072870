//! What goes wrong, and when: every choice from one seed.

use std::{sync::atomic::Ordering, time::Duration};

use infrachat_e2e::REGIONS;
use tokio::time::{Instant, sleep};

use crate::{
    dice::Dice,
    presence::Mood,
    world::{SLOTS, World},
};

/// How long things go wrong.
const LENGTH: Duration = Duration::from_secs(45);
/// What came before a shard listened is no hole to it, by clocks that disagree.
const LISTENED: Duration = Duration::from_secs(18);
/// How long events get lost.
const LOSING: Duration = Duration::from_secs(4);
/// By then what comes after a hole has come, and the hole is filled.
const FILLED: Duration = Duration::from_secs(4);

/// Something that is to end at some time.
enum Ends {
    Away { region: usize, slot: usize },
    Link,
    Bus { region: usize },
    Store { region: usize },
    Presence { region: usize },
}

/// Lets things go wrong for a while, then mends them all.
pub(crate) async fn rage(world: &mut World, dice: &mut Dice) {
    let began = Instant::now();
    let mut ends: Vec<(Instant, Ends)> = Vec::new();
    let mut next = began;
    loop {
        let now = Instant::now();
        let over = now >= began + LENGTH;
        let (due, later): (Vec<_>, Vec<_>) =
            ends.into_iter().partition(|(at, _)| over || *at <= now);
        ends = later;
        for (_, what) in due {
            end(world, what).await;
        }
        if over {
            for shard in world.regions.iter().flat_map(|region| &region.shards) {
                shard.iter().for_each(|shard| shard.life.mend());
            }
            return world.settled().await;
        }
        if now >= next {
            let (what, time) = begin(world, dice).await;
            world
                .happened
                .push(format!("{:?}: {what} {time:?}", began.elapsed()));
            if let Some(what) = time.1 {
                ends.push((Instant::now() + time.0, what));
            }
            next = Instant::now() + dice.millis(200, 3_000);
        }
        let wake = ends.iter().map(|(at, _)| *at).min();
        let wake = wake.map_or(next, |at| at.min(next));
        tokio::time::sleep_until(wake.min(began + LENGTH)).await;
    }
}

/// Once everybody has listened for a while and nothing else is wrong, so that every hole can be noticed and
/// filled, lets the bus lose events for a while.
pub(crate) async fn lose_events(world: &World) {
    sleep(LISTENED).await;
    world.losses.on.store(true, Ordering::Relaxed);
    sleep(LOSING).await;
    world.losses.on.store(false, Ordering::Relaxed);
    sleep(FILLED).await;
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away { region, slot } => write!(f, "{} shard {slot}", REGIONS[*region]),
            Self::Link => write!(f, "the link"),
            Self::Bus { region } | Self::Store { region } | Self::Presence { region } => {
                write!(f, "{}", REGIONS[*region])
            }
        }
    }
}

async fn begin(world: &mut World, dice: &mut Dice) -> (&'static str, (Duration, Option<Ends>)) {
    let (region, slot) = (dice.of(REGIONS.len()), dice.of(SLOTS));
    let away = Some(Ends::Away { region, slot });
    let running = world.regions[region].shards[slot].as_ref();
    match dice.of(13) {
        0 | 1 if running.is_some() => {
            world.crash(region, slot);
            ("a shard crashes", (dice.millis(100, 9_000), away))
        }
        2 if running.is_some() => {
            world.stop_shard(region, slot).await;
            ("a shard is stopped", (dice.millis(100, 3_000), away))
        }
        3 | 4 if let Some(shard) = running => {
            let (life, time) = (shard.life.clone(), dice.millis(500, 12_000));
            tokio::spawn(async move { life.cut_off(time).await });
            ("a shard is cut off from everything", (time, None))
        }
        5 if let Some(shard) = running => {
            let (life, time) = (shard.life.clone(), dice.millis(500, 9_000));
            tokio::spawn(async move { life.renews_late(time).await });
            ("a shard can't renew its lease", (time, None))
        }
        6 if let Some(shard) = running => {
            shard.road.cut();
            ("a shard's connections break", (Duration::ZERO, None))
        }
        7 => {
            world.fabric.cut(REGIONS[0], REGIONS[1]);
            let time = dice.millis(500, 15_000);
            ("the regions are cut off", (time, Some(Ends::Link)))
        }
        8 => {
            world.fabric.set_down(REGIONS[region], true);
            let time = dice.millis(200, 5_000);
            ("a region's bus is away", (time, Some(Ends::Bus { region })))
        }
        9 => {
            world.regions[region].store.set_unavailable(true);
            let time = dice.millis(200, 7_000);
            ("a store is away", (time, Some(Ends::Store { region })))
        }
        10 => {
            let latency = dice.millis(50, 1_500);
            world.regions[region].store.set_latency(latency);
            let time = dice.millis(1_000, 7_000);
            ("a store is slow", (time, Some(Ends::Store { region })))
        }
        11 => {
            let mood = match dice.of(3) {
                0 => Mood::Late(dice.millis(50, 1_500)),
                1 => Mood::Away,
                _ => Mood::Silent,
            };
            world.regions[region].presence.set(mood);
            let time = dice.millis(1_000, 15_000);
            (
                "presence is late, away or silent",
                (time, Some(Ends::Presence { region })),
            )
        }
        _ => {
            sleep(dice.millis(1, 500)).await;
            ("nothing", (Duration::ZERO, None))
        }
    }
}

async fn end(world: &mut World, what: Ends) {
    match what {
        Ends::Away { region, slot } => {
            if world.regions[region].shards[slot].is_none() {
                world.start_shard(region, slot).await;
            }
        }
        Ends::Link => world.fabric.heal(REGIONS[0], REGIONS[1]),
        Ends::Bus { region } => world.fabric.set_down(REGIONS[region], false),
        Ends::Presence { region } => world.regions[region].presence.set(Mood::Well),
        Ends::Store { region } => {
            let store = &world.regions[region].store;
            store.set_latency(Duration::ZERO);
            store.set_unavailable(false);
        }
    }
}
