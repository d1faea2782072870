//! Revocations in the store and in Redis.

use std::{sync::Arc, time::Duration};

use infrachat_identity::{RedisRevocations, Revocations as _};
use infrachat_metadata::{MemoryMetadata, Metadata};
use infrachat_redis_link::RedisTarget;
use infrachat_revocations::{SharedRevocations, StoredRevocations};
use infrachat_test_services::{Link, RedisServer};

use crate::world::{Backend, claims, end, eventually, is_ended};

fn redis(url: &str) -> RedisRevocations {
    let target = RedisTarget::new(url).expect("the URL is good");
    RedisRevocations::new(&target, "p")
}

/// A region's store and Redis.
#[derive(Debug)]
struct World {
    store: Arc<MemoryMetadata>,
    redis: RedisServer,
}

impl World {
    async fn start() -> Self {
        Self {
            store: Arc::new(MemoryMetadata::new()),
            redis: RedisServer::start().await.expect("a server of our own"),
        }
    }

    /// The revocations as another process of the region has them.
    fn process(&self) -> SharedRevocations {
        self.process_at(&self.redis.url)
    }

    fn process_at(&self, url: &str) -> SharedRevocations {
        let redis = redis(url);
        let store: Arc<dyn Metadata> = self.store.clone();
        SharedRevocations::new(redis, StoredRevocations::new(store))
    }

    /// A process, once Redis is whole.
    async fn trusting(&self) -> SharedRevocations {
        self.whole(&self.process()).await;
        self.process()
    }

    /// What Redis alone says.
    async fn in_redis(&self, family: &str) -> Option<bool> {
        let redis = redis(&self.redis.url);
        redis.is_revoked(&claims(family)).await.ok()
    }

    /// Asks until Redis has an answer for everybody.
    async fn whole(&self, process: &SharedRevocations) {
        eventually("Redis is filled", async || {
            assert_eq!(is_ended(process, "none").await, Ok(false));
            self.in_redis("none").await == Some(false)
        })
        .await;
    }
}

mod contract {
    use super::*;

    async fn backend() -> Backend<SharedRevocations, World> {
        let world = World::start().await;
        Backend {
            revocations: world.process(),
            _needs: world,
        }
    }

    infrachat_identity::revocations_contract!(backend());
}

#[tokio::test]
async fn what_one_process_revokes_the_others_know_at_once() {
    let world = World::start().await;
    let [one, other] = [world.trusting().await, world.trusting().await];
    for number in 0..20 {
        let family = format!("f{number}");
        assert_eq!(is_ended(&other, &family).await, Ok(false));
        end(&one, &family).await.expect("revoked");
        assert_eq!(is_ended(&other, &family).await, Ok(true));
    }
}

#[tokio::test]
async fn redis_is_filled_again_after_it_was_emptied() {
    let world = World::start().await;
    let process = world.trusting().await;
    end(&process, "1").await.expect("revoked");
    world.redis.empty().await.expect("emptied");
    assert_eq!(is_ended(&process, "1").await, Ok(true));
    assert_eq!(is_ended(&process, "2").await, Ok(false));
    world.whole(&process).await;
    assert_eq!(world.in_redis("1").await, Some(true));
}

#[tokio::test]
async fn redis_is_filled_again_after_it_was_killed_and_lost_its_content() {
    let mut world = World::start().await;
    let process = world.trusting().await;
    end(&process, "1").await.expect("revoked");
    world.redis.stop().expect("the server stops");
    assert_eq!(is_ended(&process, "1").await, Ok(true));
    world.redis.start_empty().await.expect("the server is back");
    assert_eq!(is_ended(&process, "1").await, Ok(true));
    assert_eq!(is_ended(&process, "2").await, Ok(false));
    world.whole(&process).await;
    assert_eq!(world.in_redis("1").await, Some(true));
    assert_eq!(is_ended(&world.process(), "1").await, Ok(true));
}

#[tokio::test]
async fn while_redis_is_away_the_store_is_asked_and_redis_gets_what_it_missed() {
    let mut world = World::start().await;
    let process = world.trusting().await;
    end(&process, "1").await.expect("revoked");
    world.redis.stop().expect("the server stops");
    assert_eq!(is_ended(&process, "1").await, Ok(true));
    end(&process, "2").await.expect("kept");
    assert_eq!(is_ended(&process, "2").await, Ok(true));
    assert_eq!(is_ended(&process, "3").await, Ok(false));
    let fresh = world.process();
    assert_eq!(is_ended(&fresh, "2").await, Ok(true));
    assert_eq!(fresh.all().await.expect("listed").len(), 2);
    // With what it had, and what says that this was everything.
    world.redis.start_again().await.expect("the server is back");
    world.whole(&process).await;
    assert_eq!(world.in_redis("2").await, Some(true));
}

#[tokio::test]
async fn what_redis_missed_for_one_process_alone_it_gets_as_soon_as_it_can_be_reached() {
    let world = World::start().await;
    let server = world.redis.url.trim_start_matches("redis://");
    let link = Link::to(server).await.expect("a port");
    let cut_off = world.process_at(&format!("redis://{}", link.address));
    assert_eq!(is_ended(&cut_off, "1").await, Ok(false));
    let other = world.trusting().await;
    link.set_cut(true);
    end(&cut_off, "1").await.expect("kept");
    assert_eq!(world.in_redis("1").await, Some(false));
    link.set_cut(false);
    // Nobody asks the process that was cut off.
    eventually("the other process knows", async || {
        is_ended(&other, "1").await == Ok(true)
    })
    .await;
}

#[tokio::test]
async fn while_the_store_is_away_redis_answers_and_nothing_is_revoked() {
    let world = World::start().await;
    let process = world.trusting().await;
    end(&process, "1").await.expect("revoked");
    world.store.set_unavailable(true);
    assert!(end(&process, "2").await.is_err());
    assert!(process.all().await.is_err());
    for process in [process, world.process()] {
        assert_eq!(is_ended(&process, "1").await, Ok(true));
        assert_eq!(is_ended(&process, "2").await, Ok(false));
    }
}

#[tokio::test]
async fn without_both_there_is_no_answer() {
    let mut world = World::start().await;
    let process = world.trusting().await;
    end(&process, "1").await.expect("revoked");
    world.redis.stop().expect("the server stops");
    world.store.set_unavailable(true);
    for _ in 0..3 {
        assert!(is_ended(&process, "1").await.is_err());
        assert!(is_ended(&process, "2").await.is_err());
        assert!(end(&process, "2").await.is_err());
    }
    // Nobody waits for a store that never answers.
    world.store.set_unavailable(false);
    world.store.set_latency(Duration::from_secs(3_600));
    assert!(is_ended(&world.process(), "1").await.is_err());

    world.store.set_latency(Duration::ZERO);
    eventually("the store answers", async || {
        is_ended(&process, "1").await == Ok(true)
    })
    .await;
    assert_eq!(is_ended(&process, "2").await, Ok(false));
}

#[tokio::test]
async fn an_emptied_redis_is_not_trusted_while_the_store_is_away() {
    let world = World::start().await;
    let process = world.trusting().await;
    end(&process, "1").await.expect("revoked");
    world.store.set_unavailable(true);
    world.redis.empty().await.expect("emptied");
    for process in [&process, &world.process()] {
        assert!(is_ended(process, "1").await.is_err());
        assert!(is_ended(process, "2").await.is_err());
    }
    world.store.set_unavailable(false);
    eventually("the store answers", async || {
        is_ended(&process, "1").await == Ok(true)
    })
    .await;
    world.whole(&process).await;
    assert_eq!(world.in_redis("1").await, Some(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_revocation_is_lost_however_often_redis_is_emptied() {
    let world = World::start().await;
    world.store.set_latency(Duration::from_millis(2));
    let processes: [_; 3] = std::array::from_fn(|_| Arc::new(world.process()));
    for round in 0..40 {
        let family = format!("f{round}");
        let ending = processes.iter().map(|process| {
            let (process, family) = (Arc::clone(process), family.clone());
            tokio::spawn(async move {
                is_ended(&*process, &family).await.expect("an answer");
                end(&*process, &family).await.expect("revoked");
                is_ended(&*process, &family).await
            })
        });
        let ending: Vec<_> = ending.collect();
        world.redis.empty().await.expect("emptied");
        for known in ending {
            assert_eq!(known.await.expect("no panic"), Ok(true), "{family}");
        }
    }
    world.whole(&processes[0]).await;
    for round in 0..40 {
        let family = format!("f{round}");
        assert_eq!(world.in_redis(&family).await, Some(true), "{family}");
    }
}
