//! The Redis backends keep the promises of their traits, and what becomes of them without Redis.

use std::{num::NonZeroU32, time::Duration};

use infrachat_identity::{
    FallbackLimiter, Quota, RateLimiter, RedisLimiter, RedisRevocations, Revocation, Revocations,
};
use infrachat_test_services::RedisServer;
use infrachat_types::{TokenFamilyId, UserName, unix_millis};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

async fn server() -> RedisServer {
    RedisServer::start().await.expect("a server of our own")
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
    use super::*;

    /// A backend, and the server it needs while a case runs.
    #[derive(Debug)]
    struct Backend {
        revocations: RedisRevocations,
        _server: RedisServer,
    }

    #[async_trait::async_trait]
    impl Revocations for Backend {
        async fn revoke(
            &self,
            revocation: Revocation,
        ) -> Result<(), infrachat_identity::RevocationsUnavailable> {
            self.revocations.revoke(revocation).await
        }

        async fn is_revoked(
            &self,
            claims: &infrachat_identity::Claims,
        ) -> Result<bool, infrachat_identity::RevocationsUnavailable> {
            self.revocations.is_revoked(claims).await
        }

        async fn all(&self) -> Result<Vec<Revocation>, infrachat_identity::RevocationsUnavailable> {
            self.revocations.all().await
        }
    }

    fn connect(server: &RedisServer) -> RedisRevocations {
        RedisRevocations::connect(&server.url, "p").expect("the URL is good")
    }

    async fn backend() -> Backend {
        let server = server().await;
        Backend {
            revocations: connect(&server),
            _server: server,
        }
    }

    infrachat_identity::revocations_contract!(backend());

    fn revocation(family: &str, forget_in: i64) -> Revocation {
        Revocation {
            user: UserName::new("ada").expect("a good name"),
            family: Some(TokenFamilyId::from_text(family)),
            issued_until: unix_millis(),
            forget_after: unix_millis() + forget_in,
        }
    }

    #[tokio::test]
    async fn what_one_process_revokes_the_others_know() {
        let server = server().await;
        let given = revocation("1", 60_000);
        let revoked = connect(&server).revoke(given.clone()).await;
        revoked.expect("available");
        assert_eq!(connect(&server).all().await, Ok(vec![given]));
    }

    #[tokio::test]
    async fn a_revocation_is_forgotten_when_its_time_has_come() {
        let server = server().await;
        let revocations = connect(&server);
        for (family, forget_in) in [("1", 60_000), ("2", 300)] {
            let revoked = revocations.revoke(revocation(family, forget_in)).await;
            revoked.expect("available");
        }
        assert_every_key_expires(&server, 3).await;
        let forgotten = async {
            while revocations.all().await.expect("available").len() > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, forgotten).await.expect("one is forgotten");
        let revoked = revocations.revoke(revocation("3", 60_000)).await;
        revoked.expect("available");
        let keys: Vec<String> = ask(&server, redis::cmd("KEYS").arg("*")).await;
        assert_eq!(keys.len(), 3, "two revocations and their index: {keys:?}");
    }

    #[tokio::test]
    async fn scripts_keep_to_one_slot_of_a_cluster() {
        let server = RedisServer::start_cluster().await;
        let server = server.expect("a server of our own");
        let revocations = connect(&server);
        let given = revocation("1", 60_000);
        let revoked = revocations.revoke(given.clone()).await;
        revoked.expect("available");
        assert_eq!(revocations.all().await, Ok(vec![given]));
    }

    #[tokio::test]
    async fn without_redis_they_are_unavailable() {
        let mut server = server().await;
        let revocations = connect(&server);
        assert_eq!(revocations.all().await, Ok(vec![]));
        server.stop().expect("the server stops");
        let revoked = timeout(LONG, revocations.revoke(revocation("1", 60_000))).await;
        assert!(revoked.expect("an answer comes").is_err());
        assert!(RedisRevocations::connect("http://nowhere", "p").is_err());
    }
}

mod limits {
    use infrachat_identity::limits::contract;

    use super::*;

    fn connect(server: &RedisServer, parts: u32) -> FallbackLimiter {
        let shared = RedisLimiter::connect(&server.url, "p").expect("the URL is good");
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
