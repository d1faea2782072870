//! The Redis backend against the contract, and when Redis is away.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_presence::{
    Change, Presence, RedisPresence, Seat,
    contract::{Harness, TTL},
    contract_tests,
};
use infrachat_redis_link::RedisTarget;
use infrachat_test_services::RedisServer;
use infrachat_types::{ChannelName, Region, SessionId, UserName};
use tokio::time::timeout;

fn target(url: &str) -> RedisTarget {
    RedisTarget::new(url).expect("the URL is good")
}

struct Redis {
    server: RedisServer,
}

impl Redis {
    async fn start() -> Self {
        let server = RedisServer::start().await.expect("a server of our own");
        Self { server }
    }

    fn connect(&self, prefix: &str) -> RedisPresence {
        RedisPresence::new(&target(&self.server.url), prefix)
    }

    async fn query<T: redis::FromRedisValue>(&self, command: &mut redis::Cmd) -> T {
        let client = redis::Client::open(self.server.url.as_str()).expect("the URL is good");
        let connection = client.get_multiplexed_async_connection().await;
        let mut connection = connection.expect("the server is there");
        let answer = command.query_async(&mut connection).await;
        answer.expect("the command is understood")
    }
}

#[async_trait]
impl Harness for Redis {
    async fn presence(&self) -> Arc<dyn Presence> {
        Arc::new(self.connect("contract"))
    }

    /// The server's clock can't be moved.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

contract_tests!(Redis::start().await);

fn lobby() -> ChannelName {
    ChannelName::new("#lobby").expect("a good name")
}

fn seat(user: &str, session: &str) -> Seat {
    Seat {
        user: UserName::new(user).expect("a good name"),
        region: Region::new("us-west1").expect("a good name"),
        session: SessionId::from_text(session),
    }
}

#[tokio::test]
async fn processes_share_presence_and_prefixes_do_not() {
    let redis = Redis::start().await;
    let [one, two] = [redis.connect("prod"), redis.connect("prod")];
    let other = redis.connect("test");
    let taken = one.take(&lobby(), &seat("ada", "1"), TTL).await;
    assert_eq!(taken, Ok(Change::Came));
    let taken = two.take(&lobby(), &seat("ada", "2"), TTL).await;
    assert_eq!(taken, Ok(Change::Same));
    assert_eq!(two.count(&lobby()).await, Ok(1));
    assert_eq!(other.count(&lobby()).await, Ok(0));
}

#[tokio::test]
async fn every_key_expires_by_itself_and_none_is_left_behind() {
    let redis = Redis::start().await;
    let presence = redis.connect("p");
    let seats = [seat("ada", "1"), seat("ada", "2"), seat("bob", "3")];
    for seat in &seats {
        let taken = presence.take(&lobby(), seat, TTL).await;
        taken.expect("presence is there");
    }
    let keys: Vec<String> = redis.query(redis::cmd("KEYS").arg("*")).await;
    assert!(!keys.is_empty());
    for key in &keys {
        let left: i64 = redis.query(redis::cmd("PTTL").arg(key)).await;
        assert!(left > 0, "{key} never expires");
    }
    for seat in &seats {
        let given_up = presence.give_up(&lobby(), seat).await;
        given_up.expect("presence is there");
    }
    let keys: Vec<String> = redis.query(redis::cmd("KEYS").arg("*")).await;
    assert_eq!(keys, Vec::<String>::new());
}

#[tokio::test]
async fn scripts_keep_to_one_slot_of_a_cluster() {
    let server = RedisServer::start_cluster().await;
    let redis = Redis {
        server: server.expect("a server of our own"),
    };
    let presence = redis.connect("p");
    let (ada, bob) = (seat("ada", "1"), seat("bob", "2"));
    let channels: Vec<_> = (0..40)
        .map(|number| ChannelName::new(&format!("#room-{number}")).expect("a good name"))
        .collect();
    let seats: Vec<_> = channels
        .iter()
        .flat_map(|channel| [&ada, &bob].map(|seat| (channel.clone(), seat.clone())))
        .collect();
    let came = presence.refresh(&seats, TTL).await;
    assert_eq!(came.expect("presence is there").len(), seats.len());
    for channel in &channels {
        let given_up = presence.give_up(channel, &ada).await;
        assert_eq!(given_up, Ok(Change::Went));
        assert_eq!(presence.count(channel).await, Ok(1));
        let list = presence.list(channel, None, 10).await;
        assert_eq!(list.expect("presence is there").len(), 1);
    }
    let mut swept = 0;
    while swept < channels.len() {
        let some = presence.sweep(10).await.expect("presence is there");
        swept += some.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn long_lists_come_whole_past_those_who_expired() {
    let redis = Redis::start().await;
    let presence = redis.connect("p");
    let seats = |prefix: &str, number: usize| -> Vec<_> {
        (0..number)
            .map(|n| (lobby(), seat(&format!("{prefix}-{n:04}"), "1")))
            .collect()
    };
    let short = Duration::from_millis(100);
    let came = presence.refresh(&seats("gone", 450), short).await;
    assert_eq!(came.expect("presence is there").len(), 450);
    let came = presence.refresh(&seats("here", 450), TTL * 10).await;
    assert_eq!(came.expect("presence is there").len(), 450);
    while presence.count(&lobby()).await != Ok(450) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let list = presence.list(&lobby(), None, 440).await;
    let list = list.expect("presence is there");
    assert_eq!(list.len(), 440);
    assert!(list.iter().all(|p| p.user.as_str().starts_with("here-")));
    assert!(list.is_sorted_by(|a, b| a.user < b.user));
}

#[tokio::test]
async fn redis_away_is_an_error_in_time_and_its_return_is_noticed() {
    let mut redis = Redis::start().await;
    let presence = redis.connect("p");
    let ada = seat("ada", "1");
    let taken = presence.take(&lobby(), &ada, TTL * 100).await;
    assert_eq!(taken, Ok(Change::Came));
    redis.server.stop().expect("the server stops");
    for _ in 0..3 {
        let count = timeout(Duration::from_secs(20), presence.count(&lobby())).await;
        assert!(count.expect("an answer comes").is_err());
    }
    let swept = presence.sweep(10).await;
    assert!(swept.is_err(), "{swept:?}");
    redis
        .server
        .start_again()
        .await
        .expect("the server comes back");
    let returned = async {
        while presence.count(&lobby()).await != Ok(1) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), returned)
        .await
        .expect("presence is there again");
}

#[tokio::test]
async fn silent_redis_is_an_error() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let silent = silent.expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let presence = RedisPresence::new(&target(&format!("redis://{address}")), "p");
    let count = timeout(Duration::from_secs(20), presence.count(&lobby())).await;
    assert!(count.expect("an answer comes").is_err());
}
