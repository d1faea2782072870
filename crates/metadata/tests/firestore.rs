//! The store on Firestore, against an emulator: the contract.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use infrachat_metadata::{
    FirestoreConfig, FirestoreMetadata, Metadata, contract::Harness, contract_tests,
};
use infrachat_test_services::FirestoreEmulator;

struct FirestoreHarness {
    emulator: FirestoreEmulator,
    databases: AtomicU32,
}

impl FirestoreHarness {
    async fn start() -> Self {
        Self {
            emulator: FirestoreEmulator::start().await.expect("an emulator"),
            databases: AtomicU32::new(0),
        }
    }
}

#[async_trait]
impl Harness for FirestoreHarness {
    async fn fresh(&self) -> Arc<dyn Metadata> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let config = FirestoreConfig {
            emulator: Some(self.emulator.address.clone()),
            request_timeout: Duration::from_secs(30),
            silence: Duration::from_secs(1),
            ..FirestoreConfig::new(&self.emulator.project, &format!("region-{number}"))
        };
        let store = FirestoreMetadata::connect(config).await;
        Arc::new(store.expect("connected"))
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn set_away(&self, away: bool) {
        let faults = format!(r#"{{"firestore": {{"paused": {away}}}}}"#);
        self.emulator.set_faults(&faults).await.expect("set");
    }
}

mod contract {
    use super::*;

    contract_tests! {
        #[tokio::test]
        FirestoreHarness::start().await
    }
}
