//! The canary exports what the contract says, from its start on.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use infrachat_e2e::{REGIONS, Scrape, WEST, ports, program, within};
use tokio::{net::TcpStream, process::Command};

use crate::{
    contract::{Contract, Identity},
    world::{PASSWORD, World},
};

/// Nothing takes this long: it only bounds a test that fails.
const AT_LAST: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_canary_exports_what_the_contract_says_and_nothing_else() {
    let world = World::start("warn", &[]).await;
    let metrics = format!("127.0.0.1:{}", ports());
    let _canary = Command::new(program("infrachat"))
        .args(["canary", "--register", "--every-ms", "100"])
        .args(["--user", "canary", "--metrics-listen", &metrics])
        .args(["--server", &world.plan.gatekeeper(WEST)])
        .env("INFRACHAT_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");

    let pairs = || {
        REGIONS
            .iter()
            .flat_map(|from| REGIONS.map(|to| (*from, to)))
    };
    let mut scrape = Scrape::default();
    within(AT_LAST, "it was heard through all regions", async || {
        if TcpStream::connect(&metrics).await.is_err() {
            return false;
        }
        scrape = Scrape::of(&metrics).await;
        pairs().all(|(from, to)| {
            let pair = [("from_region", from), ("to_region", to)];
            scrape.sum("infrachat_canary_received_total", &pair) > 0.0
        })
    })
    .await;
    // An alert sees the first loss only if the counter was there before, at 0.
    let lost = &scrape.families["infrachat_canary_lost_total"];
    assert_eq!(lost.series.len(), pairs().count());

    let contract = Contract::read();
    let who = Identity {
        service: "canary",
        region: REGIONS[WEST],
        shard: None,
        regions: &REGIONS,
    };
    let problems = contract.problems(&scrape, &who);
    assert!(problems.is_empty(), "{problems:#?}");
    let exported: BTreeSet<&str> = scrape.families.keys().map(String::as_str).collect();
    let mut expected = contract.names("canary");
    // A histogram is there once it was told something: no session has broken here.
    assert!(expected.remove("infrachat_canary_recovery_seconds"));
    assert_eq!(exported, expected);
    world.stop().await;
}
