//! Control events by push: from the emulator of Pub/Sub, and from forgers.
#![allow(clippy::expect_used)]

mod delivery;
mod forged;
mod support;
