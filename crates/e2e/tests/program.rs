//! The `infrachat` program as scripts use it, and real days replayed through the whole stack.
#![allow(clippy::expect_used)]

use std::{
    path::Path,
    process::{Output, Stdio},
};

use infrachat_e2e::{ASIA, TestStack, WEST, program};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Runs the program to its end, with a home of its own for what it remembers.
async fn infrachat(
    stack: &TestStack,
    region: usize,
    user: &str,
    args: &[&str],
    input: &str,
) -> Output {
    let home = std::env::temp_dir().join(format!(
        "infrachat-{}",
        stack.regions[WEST].gatekeeper.port()
    ));
    let mut child = Command::new(program("infrachat"))
        .args(args)
        .env(
            "INFRACHAT_SERVER",
            stack.regions[region].gatekeeper.to_string(),
        )
        .env("INFRACHAT_USER", user)
        .env("XDG_STATE_HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(input.as_bytes())
        .await
        .expect("takes its input");
    drop(stdin);
    child.wait_with_output().await.expect("ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn log(day: &str) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/ubuntu-irc")
        .join(day);
    data.to_str().expect("UTF-8").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_real_days_at_once_reach_every_member_once_and_in_order() {
    let stack = TestStack::start().await;
    let days = [log("2006-06-01.txt"), log("2008-04-27.txt")];
    let args = [
        "replay", "--json", "--speed", "max", "--file", &days[0], "--file", &days[1],
    ];
    let output = infrachat(&stack, WEST, "replay", &args, "").await;
    let report = text(&output.stdout);
    assert!(
        output.status.success(),
        "{report}\n{}",
        text(&output.stderr)
    );
    assert!(report.contains(r#""passed":true"#), "{report}");
    for nothing in ["missing", "duplicated", "out_of_order", "echoed", "failed"] {
        assert!(
            report.contains(&format!("\"{nothing}\":0,")),
            "{nothing} in {report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_go_through_pipes_from_one_region_to_the_other() {
    let stack = TestStack::start().await;
    let sent = infrachat(
        &stack,
        WEST,
        "alice",
        &["send", "--create", "--json", "#general"],
        "one\ntwo\n",
    )
    .await;
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    assert_eq!(text(&sent.stdout).lines().count(), 2);
    let args = [
        "tail", "#general", "--recent", "10", "--count", "2", "--json",
    ];
    // The other region has both a moment later; tail waits for them.
    let tailed = infrachat(&stack, ASIA, "bob", &args, "").await;
    assert!(tailed.status.success(), "{}", text(&tailed.stderr));
    let lines = text(&tailed.stdout);
    let bodies: Vec<_> = lines
        .lines()
        .map(|line| line.contains(r#""body":"one""#))
        .collect();
    assert_eq!(bodies, [true, false], "{lines}");
    assert!(lines.contains(r#""sender":"alice""#) && lines.contains(r#""region":"us-west1""#));
}

#[tokio::test]
async fn exit_codes_tell_scripts_what_went_wrong() {
    let stack = TestStack::start().await;
    let code = async |user: &str, args: &[&str]| {
        let output = infrachat(&stack, WEST, user, args, "").await;
        (output.status.code(), text(&output.stderr))
    };
    let (status, said) = code("alice", &["send", "#nowhere", "hello"]).await;
    assert_eq!(status, Some(4), "no such channel: {said}");
    let (status, said) = code("alice", &["send"]).await;
    assert_eq!(status, Some(2), "no channel given: {said}");
    let (status, said) = code(
        "alice",
        &["--server", "127.0.0.1:9", "send", "#general", "hello"],
    )
    .await;
    assert_eq!(status, Some(5), "nobody listens: {said}");
    let (status, said) = code("alice", &["send", "--create", "#general", "hello"]).await;
    assert_eq!(status, Some(0), "{said}");
    let wrong =
        std::env::temp_dir().join(format!("wrong-{}", stack.regions[WEST].gatekeeper.port()));
    std::fs::write(&wrong, "not the password\n").expect("writes");
    let wrong = wrong.to_str().expect("UTF-8");
    let (status, said) = code(
        "alice",
        &["--password-file", wrong, "send", "#general", "hello"],
    )
    .await;
    assert_eq!(status, Some(3), "the wrong password: {said}");
}

#[tokio::test]
async fn explain_tells_who_serves_a_channel_in_each_region_and_why() {
    let stack = TestStack::start().await;
    let said = infrachat(
        &stack,
        WEST,
        "alice",
        &["send", "--create", "#general", "hello"],
        "",
    );
    assert!(said.await.status.success());
    let args = ["explain", "--json", "#general"];
    let explained = infrachat(&stack, ASIA, "bob", &args, "").await;
    assert!(explained.status.success(), "{}", text(&explained.stderr));
    let lines = text(&explained.stdout);
    let views: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(views.len(), 2, "{lines}");
    assert_eq!(views[0]["region"], "asia-northeast1", "the asked one first");
    for view in &views {
        let region = view["region"].as_str().expect("a region");
        let running = stack.regions.iter().find(|r| r.region.as_str() == region);
        let shards = &running.expect("one of them").shards;
        let owner = shards
            .iter()
            .find(|shard| view["shard"] == shard.shard.as_str());
        let owner = owner.unwrap_or_else(|| panic!("a shard of {region}: {view}"));
        assert_eq!(view["endpoint"], owner.address.to_string());
        assert!(
            view["reason"]
                .as_str()
                .expect("a reason")
                .contains("rendezvous")
        );
        assert_eq!(view["exists"], true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_canary_hears_itself_through_every_pair_of_regions() {
    let stack = TestStack::start().await;
    let args = ["canary", "--json", "--rounds", "5", "--every-ms", "50"];
    let canary = infrachat(&stack, WEST, "canary", &args, "").await;
    let lines = text(&canary.stdout);
    assert!(canary.status.success(), "{lines}\n{}", text(&canary.stderr));
    let pairs: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(pairs.len(), 4, "{lines}");
    for pair in &pairs {
        assert_eq!(
            (&pair["sent"], &pair["heard"]),
            (&5.into(), &5.into()),
            "{pair}"
        );
        assert_eq!(
            (&pair["lost"], &pair["duplicated"]),
            (&0.into(), &0.into()),
            "{pair}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_canary_says_when_something_is_lost() {
    let stack = TestStack::start().await;
    // The channel exists in both regions before they are cut off from each other.
    let said = infrachat(
        &stack,
        WEST,
        "alice",
        &["send", "--create", "#canary", "hello"],
        "",
    );
    assert!(said.await.status.success());
    let heard = infrachat(
        &stack,
        ASIA,
        "bob",
        &["tail", "#canary", "--recent", "1", "--count", "1"],
        "",
    );
    assert!(heard.await.status.success());
    stack.cut();
    let args = [
        "canary",
        "--json",
        "--rounds",
        "2",
        "--every-ms",
        "50",
        "--deadline-ms",
        "500",
    ];
    let canary = infrachat(&stack, WEST, "canary", &args, "").await;
    let lines = text(&canary.stdout);
    assert_eq!(
        canary.status.code(),
        Some(6),
        "{lines}\n{}",
        text(&canary.stderr)
    );
    let lost = lines
        .lines()
        .filter(|line| line.contains(r#""lost":2"#))
        .count();
    assert_eq!(lost, 2, "each region misses what the other says: {lines}");
}
