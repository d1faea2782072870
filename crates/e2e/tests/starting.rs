//! What the programs say when they can't start, and what they do when something is away.
#![allow(clippy::expect_used)]

use std::time::Duration;

use infrachat_e2e::{Ground, code, eventually, refusal};
use infrachat_proto::gatekeeper::v1::{
    RegisterRequest, gatekeeper_service_client::GatekeeperServiceClient,
};
use infrachat_stack::{Plan, Ports, Process, Service, Services};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::TcpListener, process::Command, sync::mpsc};

/// Nothing takes this long: it only bounds a test that fails.
const AT_LAST: Duration = Duration::from_secs(60);

/// A program of us-west1 on port 0, with a key of its own.
fn service(ground: &Ground, name: &str, services: Services) -> Service {
    let ports = || Ports {
        gatekeeper: 0,
        switchboard: 0,
        shards: vec![0],
    };
    let plan = Plan {
        services,
        shard_args: vec!["--partitions".to_owned(), "2".to_owned()],
        ..ground.plan_on([ports(), ports()])
    };
    let all = plan.services().into_iter();
    let mut service = all
        .filter(|service| service.name.starts_with("us-west1"))
        .find(|service| service.name.ends_with(name))
        .expect("a service of the plan");
    let key = service.args.iter().position(|arg| arg == "--signing-key");
    if let Some(key) = key {
        service.args.drain(key..=key + 1);
    }
    service
}

/// Runs a program that must end by itself, and not well.
async fn fails(service: &Service) -> String {
    refusal(Command::new(&service.program).args(&service.args)).await
}

fn without(mut service: Service, flag: &str) -> Service {
    service.args.retain(|arg| arg != flag);
    service
}

/// A flag's value, changed.
fn with(mut service: Service, flag: &str, value: &str) -> Service {
    match service.args.iter().position(|arg| arg == flag) {
        Some(at) => value.clone_into(&mut service.args[at + 1]),
        None => service.args.extend([flag.to_owned(), value.to_owned()]),
    }
    service
}

#[tokio::test]
async fn an_emulator_that_is_not_there_is_named_with_what_to_do() {
    let ground = Ground::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nowhere = closed.local_addr().expect("an address").to_string();
    drop(closed);
    for name in ["gatekeeper", "switchboard", "shard-0"] {
        let mut services = ground.services();
        services.pubsub = nowhere.clone();
        let said = fails(&service(&ground, name, services)).await;
        assert!(
            said.contains(&format!("{nowhere} (PUBSUB_EMULATOR_HOST)")),
            "{said}"
        );
        assert!(said.contains("make emulators"), "{said}");
    }
    let mut services = ground.services();
    services.firestore = nowhere.clone();
    let said = fails(&service(&ground, "gatekeeper", services)).await;
    assert!(said.contains("FIRESTORE_EMULATOR_HOST"), "{said}");
}

#[tokio::test]
async fn a_missing_topic_is_named_with_what_to_do() {
    let ground = Ground::start().await;
    let shard = without(
        service(&ground, "shard-0", ground.services()),
        "--create-topics",
    );
    let said = fails(&shard).await;
    assert!(said.contains("does not exist: create it"), "{said}");
    // Of all that are missing, the one that was asked for first is named.
    assert!(said.contains("@us-west1"), "which one: {said}");
}

#[tokio::test]
async fn a_subscription_that_keeps_no_order_is_refused() {
    let ground = Ground::start().await;
    let project = "projects/infrachat";
    let topic = format!("{project}/topics/us-west1.messages-0");
    let created = ground.pubsub.create(&format!("/v1/{topic}"), "{}").await;
    created.expect("creates the topic");
    let path = format!("/v1/{project}/subscriptions/us-west1.messages-0.us-west1");
    let body = format!(r#"{{"topic": "{topic}"}}"#);
    let created = ground.pubsub.create(&path, &body).await;
    created.expect("creates the subscription");
    let said = fails(&service(&ground, "shard-0", ground.services())).await;
    assert!(said.contains("it keeps no order: delete it"), "{said}");
}

#[tokio::test]
async fn a_firestore_that_never_answers_holds_up_no_start_and_calls_say_unavailable() {
    let ground = Ground::start().await;
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut services = ground.services();
    services.firestore = mute.local_addr().expect("an address").to_string();
    let listen = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listen.local_addr().expect("an address").to_string();
    drop(listen);
    let mut service = with(
        service(&ground, "gatekeeper", services),
        "--listen",
        &address,
    );
    service.address.clone_from(&address);
    let (lines, _said) = mpsc::unbounded_channel();
    let mut gatekeeper = Process::start(&service, &lines).expect("starts");
    gatekeeper.serving(AT_LAST).await.expect("serves");
    let endpoint = format!("http://{address}");
    let mut client = GatekeeperServiceClient::connect(endpoint)
        .await
        .expect("connects");
    let request = RegisterRequest {
        user: "alice".to_owned(),
        password: "correct horse battery".to_owned(),
    };
    let answer = tokio::time::timeout(AT_LAST, client.register(request)).await;
    assert_eq!(code(answer.expect("in time")), "unavailable");
}

#[tokio::test]
async fn a_slow_firestore_makes_nothing_fail() {
    let ground = Ground::start().await;
    let slow = r#"{"firestore": {"latency_ms": 150, "jitter_ms": 100}}"#;
    ground
        .firestore
        .set_faults(slow)
        .await
        .expect("sets faults");
    let listen = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listen.local_addr().expect("an address").to_string();
    drop(listen);
    let mut service = with(
        service(&ground, "gatekeeper", ground.services()),
        "--listen",
        &address,
    );
    service.address.clone_from(&address);
    let (lines, _said) = mpsc::unbounded_channel();
    let mut gatekeeper = Process::start(&service, &lines).expect("starts");
    gatekeeper.serving(AT_LAST).await.expect("serves");
    eventually("a user registers", async || {
        let endpoint = format!("http://{address}");
        let Ok(mut client) = GatekeeperServiceClient::connect(endpoint).await else {
            return false;
        };
        let request = RegisterRequest {
            user: "alice".to_owned(),
            password: "correct horse battery".to_owned(),
        };
        client.register(request).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn wrong_values_are_refused_with_the_reason() {
    let ground = Ground::start().await;
    let services = ground.services();
    let shard = || service(&ground, "shard-0", services.clone());
    let gatekeeper = || service(&ground, "gatekeeper", services.clone());
    let mut no_redis = shard();
    let url = no_redis.args.iter().position(|arg| arg == "--redis-url");
    let url = url.expect("has a Redis");
    no_redis.args.drain(url..=url + 1);
    let cases = [
        (with(shard(), "--region", "Mars"), "--region"),
        (
            with(shard(), "--region", "europe-west1"),
            "not among --regions",
        ),
        (with(shard(), "--partitions", "60"), "power of two"),
        (with(shard(), "--bus", "carrier-pigeon"), "possible values"),
        (
            with(shard(), "--lease-ttl-ms", "1500"),
            "--lease-renewal-ms",
        ),
        (with(shard(), "--max-body-bytes", "0"), "--max-body-bytes"),
        (with(shard(), "--issuers", "nobody"), "ISSUER=URL"),
        (with(shard(), "--issuers", "me=ftp://here"), "only http"),
        (
            with(shard(), "--pubsub-emulator", "us-west1="),
            "region=value",
        ),
        (with(shard(), "--shard", "Shard 1"), "--shard"),
        (
            with(shard(), "--listen", "nowhere"),
            "can't listen on nowhere",
        ),
        (no_redis, "--redis-url"),
        (
            with(gatekeeper(), "--endpoints", "us-west1"),
            "gatekeeper-host:port",
        ),
        (
            with(gatekeeper(), "--signing-key", "/none.pem"),
            "/none.pem",
        ),
        (with(gatekeeper(), "--redis-url", "http://here"), "redis://"),
    ];
    for (service, expected) in cases {
        let said = fails(&service).await;
        assert!(said.contains(expected), "{expected:?} in {said}");
    }
}

#[tokio::test]
async fn a_program_that_is_told_to_stop_while_it_starts_ends_well() {
    let ground = Ground::start().await;
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    for name in ["gatekeeper", "switchboard", "shard-0"] {
        let mut services = ground.services();
        services.redis = format!("redis://{address}");
        let service = service(&ground, name, services);
        let mut program = Command::new(&service.program)
            .args(&service.args)
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let (_waits, _) = silent.accept().await.expect("it connects");
        let pid = program.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.and_then(Pid::from_raw).expect("it runs");
        kill_process(pid, Signal::TERM).expect("is told");
        let ended = tokio::time::timeout(AT_LAST, program.wait()).await;
        let status = ended.expect("ends").expect("is waited for");
        assert!(status.success(), "{name}: {status}");
    }
}
