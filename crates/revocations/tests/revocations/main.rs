//! Revocations over the store in memory and a real Redis, each there or not.

mod shared;
mod stored;
mod world;
