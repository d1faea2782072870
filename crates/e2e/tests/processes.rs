//! The programs as separate processes carry real days, and stop when they are told to.
#![allow(clippy::expect_used)]

use std::{path::Path, process::Stdio, time::Duration};

use infrachat_e2e::{Choice, Ground, ports, program};
use infrachat_stack::{Bus, Plan, Process, Service, Stack};
use tokio::{process::Command, sync::mpsc};

/// How long an orderly stop may take; only bounds a test that fails.
const AT_LAST: Duration = Duration::from_secs(60);

fn day(name: &str) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ubuntu-irc");
    data.join(name).to_str().expect("UTF-8").to_owned()
}

/// Plays two days at once, and expects each delivery once and in order.
async fn replays(server: &str) {
    let days = [day("2006-06-01.txt"), day("2008-04-27.txt")];
    let home = tempfile::tempdir().expect("a folder");
    let args = [
        "replay", "--json", "--speed", "max", "--file", &days[0], "--file", &days[1],
    ];
    let replay = Command::new(program("infrachat"))
        .args(args)
        .env("INFRACHAT_SERVER", server)
        .env("INFRACHAT_USER", "replay")
        .env("XDG_STATE_HOME", home.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("runs");
    let report = String::from_utf8_lossy(&replay.stdout);
    let said = String::from_utf8_lossy(&replay.stderr);
    assert!(replay.status.success(), "{report}\n{said}");
    assert!(report.contains(r#""passed":true"#), "{report}");
}

/// Everything in one process.
async fn embedded() {
    let first = ports();
    let service = Service {
        name: "infrachat-local".to_owned(),
        program: program("infrachat-local"),
        args: vec!["--first-port".to_owned(), first.to_string()],
        address: format!("127.0.0.1:{first}"),
        metrics: None,
    };
    let (lines, mut said) = mpsc::unbounded_channel();
    let mut process = Process::start(&service, &lines).expect("starts");
    loop {
        let (_, line) = said.recv().await.expect("says how to chat");
        if line.contains("make chat USER=charlie") {
            break;
        }
    }
    replays(&service.address).await;
    let status = process.stop(AT_LAST).await.expect("ends");
    assert!(status.success(), "{status}");
}

async fn separate(bus: Bus) {
    let ground = Ground::start().await;
    let plan = Plan {
        bus,
        ..ground.plan()
    };
    let (lines, mut said) = mpsc::unbounded_channel();
    let stack = Stack::start(&plan, lines).await.expect("starts");
    replays(&plan.gatekeeper(0)).await;
    for (name, status) in stack.stop().await {
        let status = status.expect("ends");
        let mut all = Vec::new();
        while let Ok((who, line)) = said.try_recv() {
            all.push(format!("{who} {line}"));
        }
        assert!(status.success(), "{name}: {status}\n{}", all.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_carry_two_real_days_and_stop_well() {
    match Choice::of_the_run() {
        Choice::Embedded => embedded().await,
        Choice::Pubsub => separate(Bus::Pubsub).await,
        Choice::RedisStreams => separate(Bus::RedisStreams).await,
    }
}
