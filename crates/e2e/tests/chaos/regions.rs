//! A whole region is away, or cut off.

use infrachat_e2e::{ASIA, REGIONS, WEST};

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{day::Day, is_long, load::Load, world::World};

/// How long the buses are cut off from each other in the long form.
const CUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_dead_region_go_on_in_the_other_and_both_converge_on_its_return() {
    let mut world = World::start(&[]).await;
    let load = Load::with_fallback(&world).await;
    let mut day = Day::begin(&world).await;
    let mut round = 0;
    while day.goes_on(round) {
        let asia = ["gatekeeper", "switchboard", "shard-0", "shard-1"];
        let asia = asia.map(|program| format!("{} {program}", REGIONS[ASIA]));
        for process in &asia {
            world.kill(process).await;
        }
        load.goes_on(&[WEST], &[WEST]).await;
        load.goes_on(&[WEST, ASIA], &[WEST, ASIA]).await;
        for process in &asia {
            world.restart(process).await;
        }
        world.served(ASIA).await;
        round += 1;
    }
    println!(
        "a region killed, {round} times: {}",
        load.settle(&world).await
    );
    day.verdict().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_cut_off_from_each_other_go_on_and_converge() {
    let world = World::start(&[]).await;
    let load = Load::start(&world).await;
    let mut day = Day::begin(&world).await;
    let mut round = 0;
    while day.goes_on(round) {
        let then = Instant::now();
        world
            .ground
            .pubsub
            .cut(REGIONS[WEST], REGIONS[ASIA])
            .await
            .expect("cut");
        for region in [WEST, ASIA] {
            load.goes_on(&[region], &[region]).await;
        }
        if is_long() {
            // How long it lasts is part of the story, and nothing waits for it.
            sleep_until(then + CUT).await;
            for region in [WEST, ASIA] {
                load.goes_on(&[region], &[region]).await;
            }
        }
        world.ground.pubsub.heal().await.expect("healed");
        load.goes_on(&[WEST, ASIA], &[WEST, ASIA]).await;
        round += 1;
    }
    println!(
        "regions cut off, {round} times: {}",
        load.settle(&world).await
    );
    day.verdict().await;
    world.stop().await;
}
