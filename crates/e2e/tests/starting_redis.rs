//! What the programs say of a Redis that does not let them in, and how they get in.
#![allow(clippy::expect_used)]

use std::{path::PathBuf, process::Stdio, time::Duration};

use axum::{Json, Router, http::StatusCode, routing::post};
use infrachat_e2e::{program, refusal};
use infrachat_test_services::{Authority, RedisGuard, RedisServer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

/// Nothing takes this long: it only bounds a test that fails.
const AT_LAST: Duration = Duration::from_secs(60);
const SECRET: &str = "correct-horse";

async fn guarded(password: Option<&str>, authority: Option<&Authority>) -> RedisServer {
    let guard = RedisGuard {
        password: password.map(str::to_owned),
        certificate: authority.map(|it| it.certify("127.0.0.1").expect("certifies")),
    };
    let server = RedisServer::start_guarded(guard).await;
    server.expect("redis-server starts")
}

fn with(server: &RedisServer, user: &str) -> String {
    server.url.replace("://", &format!("://{user}@"))
}

/// A program of us-west1 whose only server is a Redis.
fn told(name: &str, redis: &str) -> Command {
    let mut command = Command::new(program(name));
    command
        .args(["--region", "us-west1"])
        .args(["--regions", "us-west1,asia-northeast1"])
        .args(["--listen", "127.0.0.1:0"])
        .args(["--metadata", "memory", "--state", "redis"])
        .env("INFRACHAT_BUS", "memory")
        .env("REDIS_URL", redis)
        .env("NO_COLOR", "1")
        .kill_on_drop(true);
    match name {
        "gatekeeper" => command.args(["--endpoints", "us-west1=here:1,here:2"]),
        _ => command.args(["--issuers", "https://me=http://127.0.0.1:9/keys"]),
    };
    if name == "chat-shard" {
        command.args(["--shard", "us-west1-shard-0", "--partitions", "2"]);
    }
    command
}

/// Runs a program until it serves, and answers what it said up to then.
async fn serves(mut command: Command) -> (Child, String) {
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let mut said = String::new();
    let serving = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            said = format!("{said}{line}\n");
            if line.contains("serving") {
                return true;
            }
        }
        false
    };
    let serving = timeout(AT_LAST, serving).await;
    assert_eq!(serving, Ok(true), "it does not serve: {said}");
    (child, said)
}

/// Whether there is a warning, but for the one that nobody answers with keys.
fn warns(said: &str) -> bool {
    let mut lines = said.lines();
    lines.any(|line| line.contains("WARN") && !line.contains("the key set"))
}

#[tokio::test]
async fn a_wrong_or_missing_password_ends_every_program_and_is_not_shown() {
    let server = guarded(Some(SECRET), None).await;
    for name in ["gatekeeper", "switchboard", "chat-shard"] {
        let said = refusal(&mut told(name, &with(&server, ":wrong-staple"))).await;
        assert!(said.contains("(REDIS_URL) can't be used"), "{said}");
        assert!(said.contains("correct user and password"), "{said}");
        assert!(!said.contains("staple"), "the password is shown: {said}");
    }
    let said = refusal(&mut told("switchboard", &server.url)).await;
    assert!(said.contains("redis://:password@host:port"), "{said}");
    let (_child, said) = serves(told("switchboard", &with(&server, ":correct-horse"))).await;
    assert!(!warns(&said), "{said}");
    assert!(!said.contains("horse"), "the password is shown: {said}");
}

#[tokio::test]
async fn the_redis_of_the_bus_is_asked_too() {
    let [home, away] = [guarded(None, None).await, guarded(Some(SECRET), None).await];
    let mut command = told("switchboard", &home.url);
    let urls = |password: &str| {
        let away = with(&away, &format!(":{password}"));
        format!("us-west1={},asia-northeast1={away}", home.url)
    };
    command
        .args(["--bus", "redis-streams", "--create-topics"])
        .env("INFRACHAT_BUS_REDIS_URLS", urls("wrong-staple"));
    let said = refusal(&mut command).await;
    assert!(said.contains("(INFRACHAT_BUS_REDIS_URLS) can't"), "{said}");
    assert!(!said.contains("staple"), "the password is shown: {said}");
    command.env("INFRACHAT_BUS_REDIS_URLS", urls(SECRET));
    serves(command).await;
}

#[tokio::test]
async fn a_redis_that_is_away_costs_a_warning() {
    let mut server = guarded(None, None).await;
    server.stop().expect("stops");
    let (_child, said) = serves(told("switchboard", &with(&server, ":any-staple"))).await;
    assert!(said.contains("Redis is away"), "{said}");
    assert!(!said.contains("staple"), "the password is shown: {said}");
}

/// A file for a test.
fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, text).expect("writes");
    file
}

#[tokio::test]
async fn a_certificate_is_checked_against_the_authority_that_is_given() {
    let authority = Authority::new().expect("an authority");
    let folder = tempfile::tempdir().expect("a folder");
    let ca = file(&folder, "ca.pem", &authority.pem);
    let none = file(&folder, "none.pem", "not a certificate");
    let server = guarded(Some(SECRET), Some(&authority)).await;
    let url = with(&server, ":correct-horse");
    let mut trusting = told("switchboard", &url);
    trusting.arg("--redis-ca").arg(&ca);
    let (_child, said) = serves(trusting).await;
    assert!(!warns(&said), "{said}");

    let said = refusal(&mut told("switchboard", &url)).await;
    assert!(said.contains("authority that is trusted"), "{said}");
    let missing = folder.path().join("missing.pem");
    let plain = url.replace("rediss://", "redis://");
    let cases = [
        (&url, &missing, "missing.pem"),
        (&url, &none, "no certificate in it"),
        (&plain, &ca, "REDIS_URL, INFRACHAT_REDIS_CA"),
    ];
    for (url, ca, expected) in cases {
        let said = refusal(told("switchboard", url).arg("--redis-ca").arg(ca)).await;
        assert!(said.contains(expected), "{expected:?} in {said}");
        assert!(!said.contains("horse"), "the password is shown: {said}");
    }
}

/// Google's token service, which answers everybody the same. Where it is.
async fn token_service(status: StatusCode, answer: Value) -> String {
    let answering = post(async move || (status, Json(answer)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let app = Router::new().route("/token", answering);
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/token")
}

#[tokio::test]
async fn an_access_token_gets_in_where_redis_asks_for_one() {
    let authority = Authority::new().expect("an authority");
    let folder = tempfile::tempdir().expect("a folder");
    let ca = file(&folder, "ca.pem", &authority.pem);
    let server = guarded(Some("ya29.good-staple"), Some(&authority)).await;
    let token = |token: &str| {
        let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
        token_service(StatusCode::OK, answer)
    };
    let program = |url: &str, token_service: &str| {
        let credentials = json!({
            "type": "authorized_user", "client_id": "test", "client_secret": "test",
            "refresh_token": "test", "token_uri": token_service,
        });
        let credentials = file(&folder, "credentials.json", &credentials.to_string());
        let mut command = told("switchboard", url);
        command
            .env("INFRACHAT_REDIS_AUTH", "iam")
            .env("INFRACHAT_REDIS_CA", &ca)
            .env("GOOGLE_APPLICATION_CREDENTIALS", credentials);
        command
    };
    let good = token("ya29.good-staple").await;
    let (_child, said) = serves(program(&server.url, &good)).await;
    assert!(!warns(&said), "{said}");
    assert!(!said.contains("staple"), "the token is shown: {said}");

    let bad = token("ya29.bad-staple").await;
    let said = refusal(&mut program(&server.url, &bad)).await;
    assert!(said.contains("dbConnectionUser"), "{said}");
    assert!(!said.contains("staple"), "the token is shown: {said}");
    let none = token_service(StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"})).await;
    let said = refusal(&mut program(&server.url, &none)).await;
    assert!(said.contains("no access token"), "{said}");
    let said = refusal(&mut program(&with(&server, ":any-staple"), &good)).await;
    assert!(
        said.contains("REDIS_URL, INFRACHAT_REDIS_AUTH=iam"),
        "{said}"
    );
    let mut plain = program(&server.url.replace("rediss", "redis"), &good);
    let said = refusal(plain.env_remove("INFRACHAT_REDIS_CA")).await;
    assert!(said.contains("over TLS only"), "{said}");
}
