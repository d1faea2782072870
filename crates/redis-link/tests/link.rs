//! Getting in, staying in and being kept out, against real servers.
#![allow(clippy::expect_used)]

use std::{future::Future, sync::Arc, time::Duration};

use infrachat_redis_link::{
    BadTarget, NoAnswer, RedisLink, RedisTarget, TokenError, TokenSource, Tokens,
};
use infrachat_test_services::{Authority, RedisGuard, RedisServer};
use redis::{RedisResult, aio::MultiplexedConnection, cmd};
use secrecy::SecretString;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::{sleep, timeout},
};

const SECRET: &str = "correct-horse";
/// Nothing takes this long: it only bounds a test that fails.
const AT_LAST: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(2);

async fn guarded(password: Option<&str>, tls: Option<(&Authority, &str)>) -> RedisServer {
    let certificate = tls.map(|(authority, host)| authority.certify(host).expect("certifies"));
    let guard = RedisGuard {
        password: password.map(str::to_owned),
        certificate,
    };
    let server = RedisServer::start_guarded(guard).await;
    server.expect("redis-server starts")
}

fn target(url: &str) -> RedisTarget {
    RedisTarget::new(url).expect("a good URL")
}

/// The server's URL with what comes before the host.
fn with(server: &RedisServer, user: &str) -> String {
    server.url.replace("://", &format!("://{user}@"))
}

async fn probe(target: &RedisTarget) -> Result<(), NoAnswer> {
    target.probe(AT_LAST).await
}

async fn refused(target: &RedisTarget) -> String {
    match probe(target).await {
        Err(NoAnswer::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

async fn answers(link: &RedisLink) -> bool {
    let mut commands = link.clone();
    let ping = cmd("PING");
    let answer: RedisResult<String> = link.in_time(ping.query_async(&mut commands)).await;
    answer.is_ok()
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(AT_LAST, waiting).await.is_ok(), "never: {what}");
}

/// How often somebody authenticated, and how often that failed.
async fn authentications(operator: &MultiplexedConnection) -> (u64, u64) {
    let mut operator = operator.clone();
    let mut ask = cmd("INFO");
    let info: RedisResult<String> = ask.arg("commandstats").query_async(&mut operator).await;
    let info = info.expect("answers");
    let stats = info.lines().find(|line| line.starts_with("cmdstat_auth:"));
    let count = |name: &str| {
        let (_, rest) = stats?.split_once(&format!("{name}="))?;
        rest.split(',').next()?.parse().ok()
    };
    (
        count("calls").unwrap_or_default(),
        count("failed_calls").unwrap_or_default(),
    )
}

#[tokio::test]
async fn the_right_password_gets_in_and_others_are_told_what_to_do() {
    let server = guarded(Some(SECRET), None).await;
    for right in [":correct-horse", "default:correct-horse"] {
        let target = target(&with(&server, right));
        assert_eq!(probe(&target).await, Ok(()));
        assert!(answers(&RedisLink::new(&target, PATIENCE, "tests")).await);
    }
    let missing = refused(&target(&server.url)).await;
    assert!(missing.contains("wants a password"), "{missing}");
    for wrong in [":wrong-staple", "nobody:wrong-staple"] {
        let target = target(&with(&server, wrong));
        let why = refused(&target).await;
        assert!(why.contains("correct user and password"), "{why}");
        assert!(!why.contains("staple"), "it shows the password: {why}");
        assert!(!format!("{target:?}").contains("staple"), "{target:?}");
    }
}

#[tokio::test]
async fn a_password_that_nobody_asks_for_and_a_missing_database_are_told() {
    let server = guarded(None, None).await;
    assert_eq!(probe(&target(&server.url)).await, Ok(()));
    let why = refused(&target(&with(&server, ":any-staple"))).await;
    assert!(why.contains("take the password out"), "{why}");
    let why = refused(&target(&format!("{}/99", server.url))).await;
    assert!(why.contains("no database 99"), "{why}");
}

#[tokio::test]
async fn a_server_that_is_away_or_silent_is_away() {
    let mut server = guarded(Some(SECRET), None).await;
    let target = target(&with(&server, ":correct-horse"));
    server.stop().expect("stops");
    let away = probe(&target).await;
    assert!(matches!(away, Err(NoAnswer::Away(_))), "{away:?}");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let silent = silent.expect("a free port");
    let url = format!("redis://{}", silent.local_addr().expect("it is bound"));
    let away = self::target(&url).probe(Duration::from_millis(50)).await;
    assert!(matches!(away, Err(NoAnswer::Away(_))), "{away:?}");
}

#[tokio::test]
async fn a_link_that_was_refused_gets_in_once_the_password_is_right() {
    let server = guarded(Some("another"), None).await;
    let link = RedisLink::new(&target(&with(&server, ":correct-horse")), PATIENCE, "tests");
    let operator = server.operator().await.expect("connects");
    // So often that the client of Redis itself would have given up for good.
    eventually("it is refused for some time", async || {
        assert!(!answers(&link).await);
        authentications(&operator).await.1 > 10
    })
    .await;
    server.set_password(SECRET).await.expect("sets it");
    eventually("it gets in", async || answers(&link).await).await;
}

#[tokio::test]
async fn a_link_comes_back_when_the_server_hangs_up() {
    let server = guarded(None, None).await;
    let link = RedisLink::new(&target(&server.url), PATIENCE, "tests");
    assert!(answers(&link).await);
    server.hang_up().await.expect("hangs up");
    eventually("it is back", async || answers(&link).await).await;
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_when_it_is_given_and_only_then() {
    let (authority, other) = (
        Authority::new().expect("an authority"),
        Authority::new().expect("an authority"),
    );
    let server = guarded(Some(SECRET), Some((&authority, "127.0.0.1"))).await;
    let plain = target(&with(&server, ":correct-horse"));
    let trusting = |pem: &str| {
        let target = plain.clone().with_authorities(pem.as_bytes());
        target.expect("good authorities")
    };
    for pem in [&authority.pem, &format!("{}{}", other.pem, authority.pem)] {
        let target = trusting(pem);
        assert_eq!(probe(&target).await, Ok(()));
        assert!(answers(&RedisLink::new(&target, PATIENCE, "tests")).await);
    }
    for target in [plain.clone(), trusting(&other.pem)] {
        let why = refused(&target).await;
        assert!(why.contains("give the one that signed it"), "{why}");
        assert!(!answers(&RedisLink::new(&target, PATIENCE, "tests")).await);
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::new().expect("an authority");
    let server = guarded(None, Some((&authority, "elsewhere.test"))).await;
    let trusting = |url: &str| {
        let target = target(url).with_authorities(authority.pem.as_bytes());
        target.expect("good authorities")
    };
    let why = refused(&trusting(&server.url)).await;
    assert!(why.contains("certificate is not good"), "{why}");
}

#[tokio::test]
async fn a_url_for_tls_where_there_is_none_or_the_reverse_is_told() {
    let authority = Authority::new().expect("an authority");
    let tls = guarded(None, Some((&authority, "127.0.0.1"))).await;
    let plain = guarded(None, None).await;
    let cases = [
        (tls.url.replace("rediss", "redis"), "use rediss://"),
        (plain.url.replace("redis", "rediss"), "use redis://"),
    ];
    for (url, hint) in cases {
        let told = target(&url).probe(Duration::from_secs(1)).await;
        assert!(
            matches!(&told, Err(NoAnswer::Away(why)) if why.contains(hint)),
            "{told:?}"
        );
    }
}

/// Tokens that a test hands out.
#[derive(Clone)]
struct Handed(Arc<std::sync::Mutex<Result<&'static str, TokenError>>>);

impl Handed {
    fn new(first: Result<&'static str, TokenError>) -> Self {
        Self(Arc::new(std::sync::Mutex::new(first)))
    }

    fn next(&self, next: Result<&'static str, TokenError>) {
        *self.0.lock().expect("not poisoned") = next;
    }

    fn tokens(&self) -> Tokens {
        Tokens::of(self.clone(), Duration::from_millis(10))
    }
}

impl TokenSource for Handed {
    async fn token(&mut self) -> Result<SecretString, TokenError> {
        let token = self.0.lock().expect("not poisoned").clone();
        token.map(SecretString::from)
    }
}

fn failure(lasting: bool) -> TokenError {
    TokenError {
        reason: "nobody is at the counter".to_owned(),
        lasting,
    }
}

/// A server that asks for the token, and how to reach it with tokens.
async fn with_tokens(token: &str, handed: &Handed) -> (RedisServer, RedisTarget) {
    let authority = Authority::new().expect("an authority");
    let server = guarded(Some(token), Some((&authority, "127.0.0.1"))).await;
    let target = target(&server.url).with_authorities(authority.pem.as_bytes());
    let target = target.expect("a good authority");
    let target = target.with_tokens(handed.tokens()).expect("over TLS");
    (server, target)
}

#[tokio::test]
async fn connections_authenticate_again_with_each_new_token() {
    let handed = Handed::new(Ok("token-1"));
    let (server, target) = with_tokens("token-1", &handed).await;
    let operator = server.operator().await.expect("connects");
    let (before, _) = authentications(&operator).await;
    assert_eq!(probe(&target).await, Ok(()));
    let link = RedisLink::new(&target, PATIENCE, "tests");
    assert!(answers(&link).await);
    let mut separate = link.separate(PATIENCE).await.expect("connects");
    // The probe once; a connection to get in, and again as it first hears of the token.
    eventually("all have shown the token", async || {
        authentications(&operator).await == (before + 5, 0)
    })
    .await;
    server.set_password("token-2").await.expect("sets it");
    handed.next(Ok("token-2"));
    // The operator who set it, and both connections.
    eventually("both connections have shown the new token", async || {
        authentications(&operator).await == (before + 8, 0)
    })
    .await;
    let ping: RedisResult<String> = cmd("PING").query_async(&mut separate).await;
    assert!(ping.is_ok(), "the connection is the same: {ping:?}");
    server.hang_up().await.expect("hangs up");
    eventually("the link gets in with the new token", async || {
        answers(&link).await
    })
    .await;
    assert_eq!(authentications(&operator).await.1, 0, "nobody was refused");
}

#[tokio::test]
async fn a_link_survives_a_time_without_good_tokens() {
    let handed = Handed::new(Ok("token-1"));
    let (server, target) = with_tokens("token-1", &handed).await;
    let link = RedisLink::new(&target, PATIENCE, "tests");
    assert!(answers(&link).await);
    // The token runs out, and there is no other: what is connected stays so.
    handed.next(Err(failure(false)));
    server.set_password("token-2").await.expect("sets it");
    assert!(answers(&link).await);
    let operator = server.operator().await.expect("connects");
    server.hang_up().await.expect("hangs up");
    eventually("the old token is refused for some time", async || {
        assert!(!answers(&link).await);
        authentications(&operator).await.1 > 10
    })
    .await;
    handed.next(Ok("token-2"));
    eventually("it gets in", async || answers(&link).await).await;
}

#[tokio::test]
async fn without_a_token_nobody_gets_in_and_the_reason_is_told() {
    let handed = Handed::new(Err(failure(true)));
    let (_server, target) = with_tokens("token-1", &handed).await;
    let why = refused(&target).await;
    assert!(why.contains("nobody is at the counter"), "{why}");
    handed.next(Err(failure(false)));
    eventually("it may pass", async || {
        matches!(probe(&target).await, Err(NoAnswer::Away(why)) if why.contains("counter"))
    })
    .await;
    let link = RedisLink::new(&target, PATIENCE, "tests");
    assert!(!answers(&link).await);
    handed.next(Ok("token-0"));
    eventually("the token is refused", async || {
        matches!(probe(&target).await, Err(NoAnswer::Refused(why)) if why.contains("role"))
    })
    .await;
    handed.next(Ok("token-1"));
    eventually("it gets in", async || answers(&link).await).await;
}

/// Tokens that take for ever; who holds the other end learns when nobody waits for them.
struct Never {
    _waits: oneshot::Sender<()>,
}

impl TokenSource for Never {
    async fn token(&mut self) -> Result<SecretString, TokenError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_token_that_does_not_come_is_told_apart_from_a_server_that_does_not_answer() {
    let (waits, _) = oneshot::channel();
    let target = target("rediss://127.0.0.1:1");
    let target = target.with_tokens(Tokens::of(Never { _waits: waits }, AT_LAST));
    let target = target.expect("over TLS");
    let told = target.probe(Duration::from_millis(50)).await;
    assert!(
        matches!(&told, Err(NoAnswer::Away(why)) if why.contains("no access token")),
        "{told:?}"
    );
}

#[tokio::test]
async fn nobody_waits_for_a_token_once_nothing_needs_one() {
    let (waits, mut over) = oneshot::channel();
    let tokens = Tokens::of(Never { _waits: waits }, AT_LAST);
    let target = target("rediss://127.0.0.1:1").with_tokens(tokens.clone());
    let link = RedisLink::new(&target.expect("over TLS"), PATIENCE, "tests");
    drop(tokens);
    tokio::task::yield_now().await;
    assert!(over.try_recv() == Err(TryRecvError::Empty), "the link does");
    drop(link);
    let over = timeout(AT_LAST, over).await;
    assert!(over.expect("it ends").is_err(), "by being dropped");
}

#[tokio::test]
async fn what_contradicts_itself_is_refused_with_the_reason() {
    let tokens = || Handed::new(Ok("token")).tokens();
    let plain = || target("redis://host");
    let tls = || target("rediss://host");
    for url in ["http://host", "host:6379", "", "redis://"] {
        let bad = RedisTarget::new(url);
        assert!(matches!(bad, Err(BadTarget::Url(_))), "{bad:?}");
    }
    let bad = RedisTarget::new("redis://user:correct-horse@:x").expect_err("no URL");
    assert!(!bad.to_string().contains("horse"), "{bad}");
    let pem = Authority::new().expect("an authority").pem;
    assert_eq!(
        plain()
            .with_authorities(pem.as_bytes())
            .expect_err("no TLS"),
        BadTarget::AuthoritiesWithoutTls
    );
    let broken = pem.replace("-----END", "!-----END");
    for none in ["", "no certificate", &broken] {
        let bad = tls().with_authorities(none.as_bytes());
        assert!(matches!(bad, Err(BadTarget::Authorities(_))), "{bad:?}");
    }
    assert_eq!(
        plain().with_tokens(tokens()).expect_err("no TLS"),
        BadTarget::TokensWithoutTls
    );
    for who in ["rediss://user@host", "rediss://:correct-horse@host"] {
        assert_eq!(
            target(who).with_tokens(tokens()).expect_err("two ways"),
            BadTarget::TokensAndPassword
        );
    }
}
