//! Where channels live.

use std::{sync::Arc, time::Duration};

use infrachat_identity::MemoryRevocations;
use infrachat_metadata::{Channels as _, MemoryMetadata, Routing as _};
use infrachat_switchboard::Config;
use infrachat_types::{ErrorCode, Visibility};

use crate::world::{ASIA, WEST, World, channel, eventually, lease, uncached};

#[tokio::test]
async fn a_channel_resolves_to_the_recorded_owner() {
    let world = World::start().await;
    let partition = world.serve(1, "#general").await;
    let record = channel("#general", WEST, Visibility::Public);
    world.west.create_channel(record).await.expect("created");

    let route = world.resolve("#general").await;
    assert_eq!(route.code, "");
    assert_eq!(route.partition, partition);
    assert_eq!(route.shard, "us-west1-shard-1");
    assert_eq!(route.endpoint, "shard-1.example:7003");
    assert_eq!(route.epoch, 1);
    assert!(route.exists);
    assert_eq!(
        route.reason,
        format!(
            "partition {partition} of 64; owner us-west1-shard-1 since epoch 1 (rendezvous choice among 1 live shard); \
             home region us-west1 as recorded"
        )
    );
}

#[tokio::test]
async fn a_channel_that_does_not_exist_has_its_place_and_its_home_by_name() {
    let world = World::start().await;
    world.serve(0, "#nowhere").await;
    let route = world.resolve("#nowhere").await;
    let regions = [ASIA, WEST].map(str::to_owned);
    assert!(!route.exists);
    assert_eq!(route.endpoint, "shard-0.example:7003");
    assert_eq!(
        Some(route.home_region.as_str()),
        infrachat_routing::home_region("#nowhere", &regions)
    );
}

#[tokio::test]
async fn the_recorded_home_holds_whatever_the_name_hashes_to() {
    let world = World::start().await;
    for home in [WEST, ASIA] {
        let name = format!("#home-{home}");
        world
            .west
            .copy_channel(channel(&name, home, Visibility::Public))
            .await
            .expect("copied");
        assert_eq!(world.resolve(&name).await.home_region, home);
    }
}

#[tokio::test]
async fn a_shard_whose_lease_runs_out_is_no_owner_and_the_answer_says_when_to_ask_again() {
    let lease_ttl = Duration::from_millis(50);
    let world = World::with(Config {
        lease_ttl,
        ..uncached()
    })
    .await;
    world.serve(0, "#general").await;
    let route = eventually("the lease runs out", async || {
        Some(world.resolve("#general").await).filter(|route| !route.code.is_empty())
    })
    .await;
    assert_eq!(route.code, ErrorCode::NoOwner.as_str());
    assert!(route.retry_after_ms > 0);
    assert_eq!((route.shard.as_str(), route.endpoint.as_str()), ("", ""));
    assert!(route.reason.contains("no live shard"), "{}", route.reason);
}

#[tokio::test]
async fn a_new_owner_is_the_answer_after_a_takeover() {
    let world = World::start().await;
    world.serve(0, "#general").await;
    assert_eq!(world.resolve("#general").await.shard, "us-west1-shard-0");
    let former = lease(0);
    world
        .west
        .end_lease(&former.shard, &former.incarnation)
        .await
        .expect("ended");
    assert_eq!(
        world.resolve("#general").await.code,
        ErrorCode::NoOwner.as_str()
    );
    world.serve(1, "#general").await;
    let route = world.resolve("#general").await;
    assert_eq!((route.shard.as_str(), route.epoch), ("us-west1-shard-1", 2));
}

#[tokio::test]
async fn bad_names_are_refused_one_by_one_while_the_others_are_answered_in_order() {
    let world = World::start().await;
    world.serve(0, "#general").await;
    let asked = ["general", "#general", "#Bad Name", ""];
    let routes = world.try_resolve(&asked).await.expect("routes");
    let answers: Vec<_> = routes
        .iter()
        .map(|r| (r.channel.as_str(), r.code.as_str()))
        .collect();
    let bad = ErrorCode::BadChannelName.as_str();
    assert_eq!(
        answers,
        [
            ("general", bad),
            ("#general", ""),
            ("#Bad Name", bad),
            ("", bad)
        ]
    );
    assert_eq!(routes[0].retry_after_ms, 0);
    assert!(routes[0].reason.contains("'#'"), "{}", routes[0].reason);
}

#[tokio::test]
async fn a_thousand_channels_are_answered_and_one_more_is_refused() {
    let world = World::start().await;
    let names: Vec<_> = (0..=1_000).map(|n| format!("#channel-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let routes = world.try_resolve(&names[..1_000]).await.expect("routes");
    assert!(
        routes
            .iter()
            .map(|route| &route.channel)
            .eq(&names[..1_000])
    );
    let refusal = world.try_resolve(&names).await.expect_err("too many");
    assert_eq!(refusal.code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn while_the_store_is_away_the_last_known_routes_are_served_and_said_to_be_so() {
    let world = World::start().await;
    world.serve(1, "#general").await;
    let record = channel("#general", ASIA, Visibility::Public);
    world.west.copy_channel(record).await.expect("copied");
    let before = world.resolve("#general").await;

    world.west.set_unavailable(true);
    let during = world.resolve("#general").await;
    assert_eq!(
        (
            &during.code,
            &during.endpoint,
            during.epoch,
            during.exists,
            &during.home_region
        ),
        (
            &before.code,
            &before.endpoint,
            before.epoch,
            before.exists,
            &before.home_region
        )
    );
    assert!(
        during.reason.contains("the store does not answer"),
        "{}",
        during.reason
    );
    let unseen = world.resolve("#never-asked-for").await;
    assert!(
        unseen.reason.contains("can't be looked up"),
        "{}",
        unseen.reason
    );

    world.west.set_unavailable(false);
    assert_eq!(world.resolve("#general").await, before);
}

#[tokio::test]
async fn routes_that_were_never_known_are_unavailable_for_now() {
    let west = Arc::new(MemoryMetadata::new());
    west.set_unavailable(true);
    let world = World::over(west, uncached(), Arc::new(MemoryRevocations::new())).await;
    let refusal = world
        .try_resolve(&["#general"])
        .await
        .expect_err("nothing is known");
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    assert!(refusal.retry_after.is_some());
    world.west.set_unavailable(false);
    world
        .try_resolve(&["#general"])
        .await
        .expect("the store is back");
}
