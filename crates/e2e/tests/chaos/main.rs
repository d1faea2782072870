//! Real processes are killed, frozen, stopped and cut off while people talk: what was acknowledged
//! arrives, once, in order per sender, in both regions.
//!
//! In its short form each story happens once. `make chaos` plays them `ROUNDS` times, with larger crowds, longer
//! cuts and a real day as a further load, and prints how long recovering took; no test depends on how long.
#![allow(clippy::expect_used)]

mod crowd;
mod day;
mod distribution;
mod load;
mod parts;
mod regions;
mod shards;
mod usher;
mod world;

use clap::Parser;

/// What the tests are told, by the environment: the command line is the test runner's.
#[derive(Debug, Parser)]
struct Options {
    /// How often each story happens.
    #[arg(long, env = "INFRACHAT_CHAOS_ROUNDS", default_value = "1")]
    rounds: usize,
    /// Larger crowds, longer cuts, real days.
    #[arg(long, env = "INFRACHAT_CHAOS_LONG")]
    long: bool,
    /// Which log lines of the clients to show.
    #[arg(long, env = "INFRACHAT_LOG", default_value = "error")]
    log: String,
}

fn options() -> Options {
    Options::try_parse_from([""]).unwrap_or_else(|err| panic!("{err}"))
}

fn is_long() -> bool {
    options().long
}

fn rounds() -> usize {
    options().rounds
}
