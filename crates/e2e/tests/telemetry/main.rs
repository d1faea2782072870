//! What the programs tell about themselves, looked at from outside: metrics, spans and log lines.
//!
//! They run as separate processes on Pub/Sub, Firestore and Redis, whatever the other suites run on.
#![allow(clippy::expect_used)]

mod canary;
mod contract;
mod logs;
mod metrics;
mod traces;
mod world;
