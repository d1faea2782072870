//! The memory backend against the contract.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use infrachat_bus::{EventBus, MemoryFabric, Topic, contract::Harness, contract_tests};

#[derive(Default)]
struct Memory {
    fabric: MemoryFabric,
    topics: AtomicUsize,
}

#[async_trait]
impl Harness for Memory {
    async fn bus(&self, region: &str) -> Arc<dyn EventBus> {
        Arc::new(self.fabric.bus(region))
    }

    async fn fresh_topic(&self, region: &str) -> Topic {
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        Topic {
            region: region.to_owned(),
            name: format!("topic-{number}"),
        }
    }
}

contract_tests!(Memory::default(), start_paused = true);

/// The same with the tasks really in parallel.
mod in_parallel {
    use super::*;

    contract_tests!(Memory::default(), flavor = "multi_thread");
}
