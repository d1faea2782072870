//! What separate processes stand on.

use std::collections::BTreeMap;

use infrachat_stack::{Bus, Plan, Ports, Services};
use infrachat_test_services::{FirestoreEmulator, PubsubEmulator, RedisServer};
use tempfile::TempDir;

use crate::{ports, programs};

/// The emulators and Redis of a test, and a folder for keys.
#[derive(Debug)]
pub struct Ground {
    /// The Pub/Sub emulator.
    pub pubsub: PubsubEmulator,
    /// The Firestore emulator.
    pub firestore: FirestoreEmulator,
    /// Redis.
    pub redis: RedisServer,
    keys: TempDir,
}

impl Ground {
    /// All of them, anew.
    pub async fn start() -> Self {
        let (pubsub, firestore, redis) = tokio::join!(
            PubsubEmulator::start(),
            FirestoreEmulator::start(),
            RedisServer::start()
        );
        Self {
            pubsub: pubsub.expect("the emulator starts"),
            firestore: firestore.expect("the emulator starts"),
            redis: redis.expect("redis-server starts"),
            keys: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Where they are.
    pub fn services(&self) -> Services {
        Services {
            pubsub: self.pubsub.address.clone(),
            firestore: self.firestore.address.clone(),
            redis: self.redis.url.clone(),
        }
    }

    /// Both regions on Pub/Sub, with ports of their own. They warn only, and serve no metrics.
    pub fn plan(&self) -> Plan {
        let first = ports();
        self.plan_on([Ports::from(first), Ports::from(first + 10)])
    }

    /// The same, on these ports.
    pub fn plan_on(&self, ports: [Ports; 2]) -> Plan {
        Plan {
            programs: programs(),
            ports,
            bus: Bus::Pubsub,
            services: self.services(),
            keys: self.keys.path().to_owned(),
            log: "warn".to_owned(),
            metrics: false,
            args: Vec::new(),
            shard_args: Vec::new(),
            advertised: BTreeMap::new(),
        }
    }
}
