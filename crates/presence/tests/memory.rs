//! The memory backend against the contract.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infrachat_presence::{MemoryPresence, Presence, contract::Harness, contract_tests};

struct Memory;

#[async_trait]
impl Harness for Memory {
    async fn presence(&self) -> Arc<dyn Presence> {
        Arc::new(MemoryPresence::new())
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }
}

contract_tests!(Memory, start_paused = true);
