//! Every metric of the contract is exported, nothing else is, and the numbers move.

use std::{collections::BTreeSet, time::Duration};

use infrachat_client::{Client, Options, Password};
use infrachat_e2e::{ASIA, REGIONS, Scrape, WEST, user};

use crate::{
    contract::{Contract, Identity},
    world::{World, say},
};

/// Nothing takes this long: it only bounds a test that fails.
const AT_LAST: Duration = Duration::from_secs(30);

/// Of services that are pushed their control events, and so take none from the bus.
const PULLED: [&str; 4] = [
    "infrachat_bus_deliveries_total",
    "infrachat_bus_nacks_total",
    "infrachat_bus_unacknowledged_events",
    "infrachat_bus_consumer_restarts_total",
];

type Moved = (&'static str, &'static [(&'static str, &'static str)]);

/// What two people who talk over two regions move in Gatekeeper.
const GATEKEEPER: &[Moved] = &[
    (
        "infrachat_auth_requests_total",
        &[("call", "register"), ("outcome", "ok")],
    ),
    (
        "infrachat_auth_requests_total",
        &[("call", "login"), ("outcome", "bad_credentials")],
    ),
    ("infrachat_auth_seconds_count", &[("call", "register")]),
    ("infrachat_password_hash_seconds_count", &[]),
    (
        "infrachat_bus_publishes_total",
        &[("topic", "control"), ("outcome", "ok")],
    ),
    (
        "infrachat_bus_publish_seconds_count",
        &[("topic", "control")],
    ),
    (
        "infrachat_control_events_total",
        &[("kind", "user_changed"), ("outcome", "applied")],
    ),
    ("infrachat_push_requests_total", &[("outcome", "accepted")]),
    ("infrachat_redis_seconds_count", &[("use", "limits")]),
    (
        "infrachat_firestore_seconds_count",
        &[("operation", "read")],
    ),
    (
        "infrachat_firestore_seconds_count",
        &[("operation", "commit")],
    ),
    ("infrachat_connections", &[]),
    ("infrachat_build_info", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_start_time_seconds", &[]),
];

/// In Switchboard.
const SWITCHBOARD: &[Moved] = &[
    ("infrachat_resolves_total", &[("outcome", "ok")]),
    ("infrachat_resolve_seconds_count", &[]),
    ("infrachat_token_verifications_total", &[("outcome", "ok")]),
    ("infrachat_key_fetches_total", &[("outcome", "ok")]),
    ("infrachat_redis_seconds_count", &[("use", "revocations")]),
    (
        "infrachat_control_events_total",
        &[("kind", "channel_changed"), ("outcome", "applied")],
    ),
    ("infrachat_shards", &[("state", "active")]),
    ("infrachat_partitions", &[]),
    ("infrachat_connections", &[]),
];

/// In the shards of a region together.
const SHARDS: &[Moved] = &[
    ("infrachat_sessions", &[]),
    ("infrachat_sessions_opened_total", &[]),
    (
        "infrachat_sessions_closed_total",
        &[("code", "client_left")],
    ),
    ("infrachat_joins_total", &[("outcome", "joined")]),
    ("infrachat_channels", &[]),
    ("infrachat_publishes_total", &[("outcome", "acked")]),
    ("infrachat_publish_ack_seconds_count", &[]),
    ("infrachat_published_bytes_total", &[]),
    (
        "infrachat_deliveries_total",
        &[("source_region", "us-west1")],
    ),
    (
        "infrachat_deliveries_total",
        &[("source_region", "asia-northeast1")],
    ),
    (
        "infrachat_delivery_seconds_count",
        &[("source_region", "us-west1")],
    ),
    (
        "infrachat_delivery_seconds_count",
        &[("source_region", "asia-northeast1")],
    ),
    ("infrachat_fanout_seconds_count", &[]),
    ("infrachat_frames_sent_total", &[]),
    ("infrachat_duplicates_dropped_total", &[("cause", "own")]),
    (
        "infrachat_bus_publishes_total",
        &[("topic", "messages"), ("outcome", "ok")],
    ),
    (
        "infrachat_bus_deliveries_total",
        &[("topic", "messages"), ("source_region", "us-west1")],
    ),
    (
        "infrachat_bus_deliveries_total",
        &[("topic", "messages"), ("source_region", "asia-northeast1")],
    ),
    ("infrachat_ownership_changes_total", &[("change", "taken")]),
    ("infrachat_lease_renewals_total", &[("outcome", "ok")]),
    ("infrachat_lease_renewal_seconds_count", &[]),
    (
        "infrachat_history_write_seconds_count",
        &[("outcome", "ok")],
    ),
    ("infrachat_history_written_total", &[]),
    ("infrachat_history_backlog_max_bytes", &[]),
    ("infrachat_stable_seconds_count", &[]),
    ("infrachat_sessions_max", &[]),
    ("infrachat_token_verifications_total", &[("outcome", "ok")]),
    ("infrachat_key_fetches_total", &[("outcome", "ok")]),
    ("infrachat_redis_seconds_count", &[("use", "presence")]),
    (
        "infrachat_firestore_seconds_count",
        &[("operation", "commit")],
    ),
    (
        "infrachat_firestore_seconds_count",
        &[("operation", "query")],
    ),
    ("infrachat_connections", &[]),
];

/// The processes of a region that are of a service, and what each exports.
async fn scrapes(
    world: &World,
    region: &'static str,
    service: &str,
) -> Vec<(Option<String>, Scrape)> {
    let mut found = Vec::new();
    for process in world.plan.services() {
        if process.name.starts_with(region) && process.program.ends_with(service) {
            let address = process.metrics.expect("it serves metrics");
            let slot = process.name.split_once("shard-").map(|(_, slot)| slot);
            let shard = slot.map(|slot| format!("{region}-shard-{slot}"));
            found.push((shard, Scrape::of(&address).await));
        }
    }
    assert!(!found.is_empty(), "{service} runs");
    found
}

/// What is missing: metrics that should have moved.
async fn unmoved(world: &World) -> Vec<String> {
    let mut unmoved = Vec::new();
    for region in REGIONS {
        let of_services = [
            ("gatekeeper", GATEKEEPER),
            ("switchboard", SWITCHBOARD),
            ("chat-shard", SHARDS),
        ];
        for (service, expected) in of_services {
            let scrapes = scrapes(world, region, service).await;
            let sum = |(name, labels): &Moved| -> f64 {
                scrapes
                    .iter()
                    .map(|(_, scrape)| scrape.sum(name, labels))
                    .sum()
            };
            let still = expected.iter().filter(|moved| sum(moved) <= 0.0);
            unmoved.extend(still.map(|moved| format!("{region} {service}: {moved:?}")));
        }
    }
    unmoved
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_export_what_the_contract_says_and_nothing_else() {
    let world = World::start("warn", &[]).await;
    let people = [
        world.person(WEST, "alice").await,
        world.person(WEST, "carol").await,
        world.person(ASIA, "bob").await,
        world.person(ASIA, "dave").await,
    ];
    let [alice, carol, bob, dave] = &people;
    say(alice, "hello from the west", &[carol, bob, dave]).await;
    say(bob, "hello from asia", &[dave, alice, carol]).await;
    for region in [WEST, ASIA] {
        let wrong = Options::new(
            world.plan.gatekeeper(region),
            user("alice"),
            Password::new("not it, never"),
        );
        Client::connect(wrong)
            .await
            .expect_err("the password is wrong");
        // One who comes and goes.
        world
            .person(region, &format!("visitor{region}"))
            .await
            .close()
            .await;
    }

    let mut left = Vec::new();
    let moving = async {
        loop {
            left = unmoved(&world).await;
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let moved = tokio::time::timeout(AT_LAST, moving).await;
    assert!(moved.is_ok(), "these did not move: {left:#?}");

    let contract = Contract::read();
    let mut problems = Vec::new();
    for region in REGIONS {
        for service in ["gatekeeper", "switchboard", "chat-shard"] {
            for (shard, scrape) in scrapes(&world, region, service).await {
                let who = Identity {
                    service,
                    region,
                    shard: shard.as_deref(),
                    regions: &REGIONS,
                };
                let what = |problem| format!("{region} {service}: {problem}");
                problems.extend(contract.problems(&scrape, &who).into_iter().map(what));
                let exported: BTreeSet<&str> = scrape.families.keys().map(String::as_str).collect();
                let missing = contract.names(service).into_iter().filter(|name| {
                    let pushed = service != "chat-shard" && PULLED.contains(name);
                    !exported.contains(name) && !pushed
                });
                problems.extend(missing.map(|name| what(format!("{name} is not exported"))));
            }
        }
        let owned: f64 = scrapes(&world, region, "chat-shard")
            .await
            .iter()
            .map(|(_, scrape)| scrape.sum("infrachat_partitions_owned", &[]))
            .sum();
        assert!(
            (owned - 64.0).abs() < f64::EPSILON,
            "{region} serves {owned} partitions"
        );
    }
    problems.sort();
    problems.dedup();
    assert!(problems.is_empty(), "{problems:#?}");
    world.stop().await;
}
