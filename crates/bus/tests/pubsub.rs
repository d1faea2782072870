//! The Pub/Sub backend against the contract, on the emulator.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use infrachat_bus::{
    EventBus, PubsubBus, PubsubConfig, PubsubEndpoint, Topic,
    contract::{AWAY, HOME, Harness},
    contract_tests,
};
use infrachat_test_services::PubsubEmulator;

struct Emulated {
    emulator: PubsubEmulator,
    topics: AtomicUsize,
}

impl Emulated {
    async fn start() -> Self {
        Self {
            emulator: PubsubEmulator::start().await.expect("an emulator"),
            topics: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Harness for Emulated {
    async fn bus(&self, _: &str) -> Arc<dyn EventBus> {
        let endpoint = PubsubEndpoint::Emulator(self.emulator.address.clone());
        let endpoints = [HOME, AWAY].map(|region| (region.to_owned(), endpoint.clone()));
        let config = PubsubConfig {
            create_topics: true,
            ..PubsubConfig::new(&self.emulator.project, endpoints.into())
        };
        Arc::new(PubsubBus::connect(config).await.expect("clients"))
    }

    async fn fresh_topic(&self, region: &str) -> Topic {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        Topic {
            region: region.to_owned(),
            name: format!("topic-{number}"),
        }
    }
}

contract_tests!(Emulated::start().await, flavor = "multi_thread");
