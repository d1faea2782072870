//! The store in memory: the contract, its bound, and its faults.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_metadata::{MemoryMetadata, Metadata, contract::Harness, contract_tests};

struct MemoryHarness;

#[async_trait]
impl Harness for MemoryHarness {
    async fn fresh(&self) -> Arc<dyn Metadata> {
        let store = MemoryMetadata::new();
        // Lets calls made at once get in each other's way.
        store.set_latency(Duration::from_millis(1));
        Arc::new(store)
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }
}

mod contract {
    use super::*;

    contract_tests! {
        #[tokio::test(start_paused = true)]
        MemoryHarness
    }
}
