//! Both regions in one process, on the embedded parts: for trying InfraChat, and for tests.
//!
//! The services are the real ones, on real ports; only what they stand on (bus, stores, presence,
//! limits) lives in this process and ends with it.

mod config;
mod stack;

pub use config::{LocalConfig, Ports, RegionConfig};
pub use stack::{LocalStack, RegionParts, RunningRegion, RunningShard};
