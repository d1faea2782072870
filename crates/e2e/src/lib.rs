//! What the end-to-end tests share: a stack on free ports, and clients that speak the wire protocol
//! by hand.
//!
//! The tests are in `tests/`, one file a story. They talk to the services over real connections only.
#![allow(clippy::expect_used, clippy::missing_panics_doc)]

mod backends;
mod ground;
mod ledger;
mod ports;
mod programs;
mod raw;
mod room;
mod scrape;
mod stack;
mod talk;

pub use backends::{Choice, partitions};
pub use ground::Ground;
pub use ledger::{Fate, Ledger, Said};
pub use ports::ports;
pub use programs::{program, programs, refusal};
pub use raw::{RawSession, Received};
pub use room::{Room, closes};
pub use scrape::{Family, Scrape, Series};
pub use stack::{ASIA, REGIONS, TestStack, WEST, bearer, channel, code, eventually, user, within};
pub use talk::{histories_agree, join, listen, talk};
