//! Real processes are killed, frozen, stopped and cut off while people talk: what was acknowledged
//! arrives, once, in order per sender, in both regions.
//!
//! In its short form each story happens once. `make chaos` plays them `ROUNDS` times and prints how
//! long recovering took; no test depends on how long.
#![allow(clippy::expect_used)]

mod load;
mod parts;
mod regions;
mod shards;
mod world;

use clap::Parser;

/// What the tests are told, by the environment: the command line is the test runner's.
#[derive(Debug, Parser)]
struct Options {
    /// How often each story happens.
    #[arg(long, env = "INFRACHAT_CHAOS_ROUNDS", default_value = "1")]
    rounds: usize,
    /// Which log lines of the clients to show.
    #[arg(long, env = "INFRACHAT_LOG", default_value = "error")]
    log: String,
}

fn options() -> Options {
    Options::try_parse_from([""]).unwrap_or_else(|err| panic!("{err}"))
}

fn rounds() -> usize {
    options().rounds
}
