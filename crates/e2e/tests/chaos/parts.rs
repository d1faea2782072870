//! Switchboard, Gatekeeper, Redis and Firestore fail.

use infrachat_e2e::{ASIA, WEST};

use crate::{
    load::{Load, channels},
    rounds,
    world::World,
};

const BOTH: [usize; 2] = [WEST, ASIA];
const PAUSED: &str = r#"{"firestore": {"paused": true}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_talks_does_not_need_switchboard_or_gatekeeper() {
    let mut world = World::start(&[]).await;
    let load = Load::start(&world).await;
    for round in 0..rounds() {
        for program in ["us-west1 switchboard", "us-west1 gatekeeper"] {
            world.kill(program).await;
            load.goes_on(&BOTH, &BOTH).await;
        }
        // The other region's take new users meanwhile.
        world.client(ASIA, &format!("newcomer-{round}")).await;
        for program in ["us-west1 switchboard", "us-west1 gatekeeper"] {
            world.restart(program).await;
        }
        let newcomer = world.client(WEST, &format!("newcomer-{round}")).await;
        let name = infrachat_e2e::channel(&channels()[0]);
        let joined = newcomer.join(&name, infrachat_client::JoinOptions::default());
        joined.await.expect("joins");
    }
    println!(
        "switchboard and gatekeeper killed, {} times: {}",
        rounds(),
        load.settle(&world).await
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_do_not_need_redis_and_signing_in_survives_an_empty_one() {
    let mut world = World::start(&[]).await;
    let load = Load::start(&world).await;
    for round in 0..rounds() {
        world.ground.redis.stop().expect("killed");
        load.goes_on(&BOTH, &BOTH).await;
        world.ground.redis.start_empty().await.expect("starts");
        load.goes_on(&BOTH, &BOTH).await;
        let newcomer = world.client(WEST, &format!("newcomer-{round}")).await;
        let name = infrachat_e2e::channel(&channels()[0]);
        let joined = newcomer.join(&name, infrachat_client::JoinOptions::default());
        joined.await.expect("joins");
    }
    println!(
        "Redis killed and emptied, {} times: {}",
        rounds(),
        load.settle(&world).await
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_store_delays_and_loses_nothing() {
    let world = World::start(&[]).await;
    let load = Load::start(&world).await;
    for _ in 0..rounds() {
        let since = world.lines().len();
        world
            .ground
            .firestore
            .set_faults(PAUSED)
            .await
            .expect("paused");
        // Until every shard has stopped serving, since it can't renew its lease.
        for region in infrachat_e2e::REGIONS {
            for slot in 0..2 {
                let shard = format!("{region} shard-{slot}");
                world
                    .says(&shard, "serving nothing until it is renewed", since)
                    .await;
            }
        }
        world
            .ground
            .firestore
            .clear_faults()
            .await
            .expect("resumed");
        load.goes_on(&BOTH, &BOTH).await;
    }
    println!(
        "Firestore frozen, {} times: {}",
        rounds(),
        load.settle(&world).await
    );
    world.stop().await;
}
