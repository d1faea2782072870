//! Gatekeeper over real connections: two regions, each with its own store, in one process.

mod refusals;
mod regions;
mod rotation;
mod serving;
mod sign_in;
mod world;
