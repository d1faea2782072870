//! Pub/Sub and Firestore on a laptop: emulators in memory, with Google's semantics as the documents
//! state them, and faults on demand.
//!
//! Each emulator is a value: bound to a port, then run until it is told to stop. State is in memory
//! only and goes with the process.
#![allow(
    clippy::disallowed_types,
    reason = "an emulator stamps as Google's servers do: by the machine's clock"
)]

pub mod clock;
pub mod control;
pub mod faults;
pub mod firestore;
mod mask;
pub mod pubsub;
pub mod rest;

/// Google's contracts, generated.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    tonic::include_proto!("google.pubsub.v1");
}

/// Google's contracts as descriptors, with the REST paths.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
