//! A whole region is away, or cut off.

use infrachat_e2e::{ASIA, REGIONS, WEST};

use crate::{load::Load, rounds, world::World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_a_dead_region_go_on_in_the_other_and_both_converge_on_its_return() {
    let mut world = World::start(&[]).await;
    let load = Load::with_fallback(&world).await;
    for _ in 0..rounds() {
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
    }
    println!(
        "a region killed, {} times: {}",
        rounds(),
        load.settle(&world).await
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_cut_off_from_each_other_go_on_and_converge() {
    let world = World::start(&[]).await;
    let load = Load::start(&world).await;
    for _ in 0..rounds() {
        world
            .ground
            .pubsub
            .cut(REGIONS[WEST], REGIONS[ASIA])
            .await
            .expect("cut");
        for region in [WEST, ASIA] {
            load.goes_on(&[region], &[region]).await;
        }
        world.ground.pubsub.heal().await.expect("healed");
        load.goes_on(&[WEST, ASIA], &[WEST, ASIA]).await;
    }
    println!(
        "regions cut off, {} times: {}",
        rounds(),
        load.settle(&world).await
    );
    world.stop().await;
}
