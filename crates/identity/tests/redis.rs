//! The Redis backends keep the promises of their traits, and what becomes of them without Redis.

use std::{num::NonZeroU32, time::Duration};

use infrachat_identity::{
    FallbackLimiter, Quota, RateLimiter, RedisLimiter, RedisRevocations, Revocation,
};
use infrachat_redis_link::RedisTarget;
use infrachat_test_services::RedisServer;
use infrachat_types::{TokenFamilyId, UserName, unix_millis};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

async fn server() -> RedisServer {
    RedisServer::start().await.expect("a server of our own")
}

fn target(server: &RedisServer) -> RedisTarget {
    RedisTarget::new(&server.url).expect("the URL is good")
}

async fn ask<T: redis::FromRedisValue>(server: &RedisServer, command: &mut redis::Cmd) -> T {
    let client = redis::Client::open(server.url.as_str()).expect("the URL is good");
    let connection = client.get_multiplexed_async_connection().await;
    let mut connection = connection.expect("the server is there");
    let answer = command.query_async(&mut connection).await;
    answer.expect("the command is understood")
}

async fn assert_every_key_expires(server: &RedisServer, at_least: usize) {
    let keys: Vec<String> = ask(server, redis::cmd("KEYS").arg("*")).await;
    assert!(keys.len() >= at_least, "{keys:?}");
    for key in &keys {
        let left: i64 = ask(server, redis::cmd("PTTL").arg(key)).await;
        assert!(left > 0, "{key} never expires");
    }
}

mod revocations {
    use infrachat_identity::{Claims, RevocationsUnavailable};
    use infrachat_types::Region;

    use super::*;

    fn connect(server: &RedisServer) -> RedisRevocations {
        RedisRevocations::new(&target(server), "p")
    }

    fn revocation(family: &str, forget_in: i64) -> Revocation {
        Revocation {
            user: UserName::new("ada").expect("a good name"),
            family: Some(TokenFamilyId::from_text(family)),
            issued_until: unix_millis(),
            forget_after: unix_millis() + forget_in,
        }
    }

    async fn is_revoked(
        revocations: &RedisRevocations,
        family: &str,
    ) -> Result<bool, RevocationsUnavailable> {
        let claims = Claims {
            user: UserName::new("ada").expect("a good name"),
            family: TokenFamilyId::from_text(family),
            issued_at: unix_millis() - 60_000,
            expires_at: unix_millis() + 60_000,
            issuer: "https://issuer".to_owned(),
            region: Region::new("us-west1").expect("a good name"),
            jti: "jti".to_owned(),
        };
        revocations.is_revoked(&claims).await
    }

    async fn fill(
        revocations: &RedisRevocations,
        all: &[Revocation],
    ) -> Result<(), RevocationsUnavailable> {
        revocations.fill(async || Ok(all.to_vec())).await
    }

    #[tokio::test]
    async fn they_are_not_told_before_they_are_filled() {
        let server = server().await;
        let revocations = connect(&server);
        let added = revocations.add(&[revocation("1", 60_000)]).await;
        added.expect("available");
        assert_eq!(is_revoked(&revocations, "1").await, Ok(true));
        assert!(is_revoked(&revocations, "2").await.is_err());
        fill(&revocations, &[]).await.expect("filled");
        for process in [revocations, connect(&server)] {
            assert_eq!(is_revoked(&process, "1").await, Ok(true));
            assert_eq!(is_revoked(&process, "2").await, Ok(false));
        }
    }

    #[tokio::test]
    async fn emptied_they_are_not_told() {
        let server = server().await;
        let revocations = connect(&server);
        let kept = [revocation("1", 60_000)];
        fill(&revocations, &kept).await.expect("filled");
        assert_eq!(is_revoked(&revocations, "1").await, Ok(true));
        server.empty().await.expect("emptied");
        assert!(is_revoked(&revocations, "1").await.is_err());
        fill(&revocations, &kept).await.expect("filled");
        assert_eq!(is_revoked(&revocations, "1").await, Ok(true));
        assert_eq!(is_revoked(&revocations, "2").await, Ok(false));
    }

    #[tokio::test]
    async fn a_server_that_was_restarted_does_not_tell_them_whatever_it_had_saved() {
        let mut server = server().await;
        let revocations = connect(&server);
        fill(&revocations, &[]).await.expect("filled");
        assert_eq!(is_revoked(&revocations, "1").await, Ok(false));
        server.stop().expect("the server stops");
        server.start_again().await.expect("the server comes back");
        let keys: Vec<String> = ask(&server, redis::cmd("KEYS").arg("*:whole")).await;
        assert!(!keys.is_empty(), "what it was told is still there");
        assert!(is_revoked(&connect(&server), "1").await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_made_room_does_not_tell_them() {
        let server = server().await;
        let revocations = connect(&server);
        let kept = [revocation("1", 60_000)];
        fill(&revocations, &kept).await.expect("filled");
        let config = async |name: &str, value: &str| {
            let mut set = redis::cmd("CONFIG");
            let () = ask(&server, set.arg("SET").arg(name).arg(value)).await;
        };
        let big = "x".repeat(4 * 1024 * 1024);
        let mut set = redis::cmd("SET");
        let () = ask(&server, set.arg(&["big", &big, "EX", "10"])).await;
        let info: String = ask(&server, redis::cmd("INFO").arg("memory")).await;
        let used = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        let used: u64 = used.expect("told").parse().expect("a number");
        // What expires first goes first: here, of all that is there.
        config("maxmemory-policy", "volatile-ttl").await;
        config("maxmemory-samples", "64").await;
        config("maxmemory", &(used - 1024 * 1024).to_string()).await;
        let gone = async {
            while ask::<u64>(&server, redis::cmd("EXISTS").arg("big")).await == 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, gone).await.expect("it makes room");
        let keys: Vec<String> = ask(&server, redis::cmd("KEYS").arg("*:whole")).await;
        assert_eq!(keys.len(), 16, "what it was told is still there");
        assert!(is_revoked(&revocations, "2").await.is_err());
        fill(&revocations, &kept).await.expect("filled");
        assert_eq!(is_revoked(&revocations, "1").await, Ok(true));
        assert_eq!(is_revoked(&revocations, "2").await, Ok(false));
    }

    #[tokio::test]
    async fn what_is_added_during_a_fill_stays() {
        let server = server().await;
        let [filling, adding] = [connect(&server), connect(&server)];
        let filled = filling.fill(async || {
            adding.add(&[revocation("1", 60_000)]).await?;
            Ok(vec![revocation("2", 60_000)])
        });
        filled.await.expect("filled");
        assert_eq!(is_revoked(&adding, "1").await, Ok(true));
        assert_eq!(is_revoked(&adding, "2").await, Ok(true));
        assert_eq!(is_revoked(&adding, "3").await, Ok(false));
    }

    #[tokio::test]
    async fn emptied_during_a_fill_they_are_not_told() {
        let server = server().await;
        let revocations = connect(&server);
        let filled = revocations.fill(async || {
            server.empty().await.expect("emptied");
            Ok(vec![revocation("1", 60_000)])
        });
        filled.await.expect_err("it may lack something");
        assert!(is_revoked(&revocations, "2").await.is_err());
    }

    #[tokio::test]
    async fn a_fill_that_was_lost_is_not_finished_because_of_another() {
        let server = server().await;
        let [one, two] = [connect(&server), connect(&server)];
        let second = two.fill(async || {
            let first = one.fill(async || {
                server.empty().await.expect("emptied");
                fill(&two, &[]).await?;
                Ok(vec![])
            });
            first.await.expect_err("it may lack something");
            Ok(vec![])
        });
        second.await.expect_err("it was lost as well");
    }

    #[tokio::test]
    async fn the_later_times_hold() {
        let server = server().await;
        let revocations = connect(&server);
        let mut older = revocation("1", 300);
        older.issued_until -= 120_000;
        for given in [revocation("1", 60_000), older] {
            revocations.add(&[given]).await.expect("available");
        }
        assert_eq!(is_revoked(&revocations, "1").await, Ok(true));
        let keys: Vec<String> = ask(&server, redis::cmd("KEYS").arg("*")).await;
        let left: i64 = ask(&server, redis::cmd("PTTL").arg(&keys)).await;
        assert!(left > 10_000, "{left} ms");
    }

    #[tokio::test]
    async fn a_revocation_is_forgotten_when_its_time_has_come() {
        let server = server().await;
        let revocations = connect(&server);
        let given = [
            ("1", 60_000),
            ("2", 300),
            ("3", -1),
            ("4", i64::MAX - 2_000_000_000_000_000),
        ]
        .map(|(family, forget_in)| revocation(family, forget_in));
        fill(&revocations, &given).await.expect("filled");
        assert_every_key_expires(&server, 16 + 3).await;
        let forgotten = async {
            while is_revoked(&revocations, "2").await.expect("available") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, forgotten).await.expect("one is forgotten");
        assert_eq!(is_revoked(&revocations, "1").await, Ok(true));
        assert_eq!(is_revoked(&revocations, "3").await, Ok(false));
        assert_eq!(is_revoked(&revocations, "4").await, Ok(true));
    }

    #[tokio::test]
    async fn many_are_filled_in() {
        let server = server().await;
        let revocations = connect(&server);
        let given: Vec<_> = (0..1_700)
            .map(|number| revocation(&format!("f{number}"), 60_000))
            .collect();
        fill(&revocations, &given).await.expect("filled");
        for family in ["f0", "f499", "f500", "f1699"] {
            assert_eq!(is_revoked(&revocations, family).await, Ok(true));
        }
        assert_eq!(is_revoked(&revocations, "f1700").await, Ok(false));
    }

    #[tokio::test]
    async fn scripts_keep_to_one_slot_of_a_cluster() {
        let server = RedisServer::start_cluster().await;
        let server = server.expect("a server of our own");
        let revocations = connect(&server);
        let given = [revocation("1", 60_000), revocation("2", 60_000)];
        fill(&revocations, &given).await.expect("filled");
        assert_eq!(is_revoked(&revocations, "1").await, Ok(true));
        assert_eq!(is_revoked(&revocations, "3").await, Ok(false));
    }

    #[tokio::test]
    async fn without_redis_they_are_unavailable() {
        let mut server = server().await;
        let revocations = connect(&server);
        fill(&revocations, &[]).await.expect("filled");
        server.stop().expect("the server stops");
        let given = [revocation("1", 60_000)];
        let added = timeout(LONG, revocations.add(&given)).await;
        assert!(added.expect("an answer comes").is_err());
        let told = timeout(LONG, is_revoked(&revocations, "1")).await;
        assert!(told.expect("an answer comes").is_err());
        let filled = timeout(LONG, fill(&revocations, &given)).await;
        assert!(filled.expect("an answer comes").is_err());
    }
}

mod limits {
    use infrachat_identity::limits::contract;

    use super::*;

    fn connect(server: &RedisServer, parts: u32) -> FallbackLimiter {
        let shared = RedisLimiter::new(&target(server), "p");
        FallbackLimiter::new(shared, NonZeroU32::new(parts).expect("not zero"))
    }

    fn quota(count: u32) -> Quota {
        Quota {
            count: NonZeroU32::new(count).expect("not zero"),
            period: Duration::from_secs(3_600),
        }
    }

    /// The server's clock can't be stopped, so the cases wait as long as they are told.
    macro_rules! cases {
        ($($case:ident)+) => {
            $(
                #[tokio::test]
                async fn $case() {
                    let server = server().await;
                    contract::$case(&connect(&server, 1)).await;
                }
            )+
        };
    }

    cases! {
        a_quota_is_allowed_at_once_and_no_more
        one_more_is_allowed_after_the_wait
        a_refused_call_takes_nothing
        keys_are_counted_apart
        quotas_are_counted_apart
        concurrent_calls_get_no_more_than_the_quota
    }

    async fn allowed(limiter: &FallbackLimiter, key: &str, quota: Quota) -> usize {
        let mut allowed = 0;
        while timeout(LONG, limiter.check(key, quota))
            .await
            .expect("an answer comes")
            .is_ok()
        {
            allowed += 1;
            assert!(allowed < 100, "there is no limit");
        }
        allowed
    }

    #[tokio::test]
    async fn processes_share_a_quota() {
        let server = server().await;
        let [one, two] = [connect(&server, 2), connect(&server, 2)];
        for _ in 0..4 {
            assert_eq!(one.check("ada", quota(10)).await, Ok(()));
        }
        assert_eq!(allowed(&two, "ada", quota(10)).await, 6);
        assert!(one.check("ada", quota(10)).await.is_err());
        assert_every_key_expires(&server, 1).await;
    }

    #[tokio::test]
    async fn without_redis_a_stricter_limit_of_the_process_holds() {
        let mut server = server().await;
        let limiter = connect(&server, 4);
        server.stop().expect("the server stops");
        assert_eq!(allowed(&limiter, "ada", quota(10)).await, 2);
        assert_eq!(allowed(&limiter, "bob", quota(10)).await, 2);
        assert_eq!(allowed(&limiter, "cat", quota(1)).await, 1);
    }

    #[tokio::test]
    async fn the_shared_limit_holds_again_once_redis_is_back() {
        let mut server = server().await;
        let limiter = connect(&server, 2);
        assert_eq!(allowed(&limiter, "ada", quota(4)).await, 4);
        server.stop().expect("the server stops");
        assert_eq!(allowed(&limiter, "ada", quota(4)).await, 2);
        server.start_again().await.expect("the server comes back");
        let shared = async {
            // In process it would be five.
            for attempt in 0.. {
                let key = format!("dan-{attempt}");
                if allowed(&limiter, &key, quota(10)).await > 5 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LONG, shared).await.expect("the limit is shared");
        assert!(
            limiter.check("ada", quota(4)).await.is_err(),
            "nothing was forgotten"
        );
    }
}
