//! The Firestore emulator, through the `firestore` crate and through plain gRPC.

mod aggregations;
mod client;
mod documents;
mod faults;
mod limits;
mod listen;
mod queries;
mod support;
mod transactions;
mod write_stream;
