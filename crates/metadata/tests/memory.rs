//! The store in memory: the contract, its bound, and its faults.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use infrachat_metadata::{MemoryMetadata, Metadata, contract::Harness, contract_tests};

#[derive(Default)]
struct MemoryHarness {
    stores: Mutex<Vec<Arc<MemoryMetadata>>>,
}

#[async_trait]
impl Harness for MemoryHarness {
    async fn fresh(&self) -> Arc<dyn Metadata> {
        let store = Arc::new(MemoryMetadata::new());
        // Lets calls made at once get in each other's way.
        store.set_latency(Duration::from_millis(1));
        let mut stores = self.stores.lock().expect("no case panicked");
        stores.push(Arc::clone(&store));
        store
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    async fn set_away(&self, away: bool) {
        let stores = self.stores.lock().expect("no case panicked");
        stores.iter().for_each(|store| store.set_unavailable(away));
    }
}

mod contract {
    use super::*;

    contract_tests! {
        #[tokio::test(start_paused = true)]
        MemoryHarness::default()
    }
}
