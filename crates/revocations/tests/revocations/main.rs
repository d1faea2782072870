//! Revocations over the store in memory and a real Redis, each there or not.

mod cut;
mod shared;
mod stored;
mod world;
