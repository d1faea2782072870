//! Ports for processes that are told theirs.

use std::{
    net::TcpListener,
    sync::{Mutex, PoisonError},
};

/// How many ports a block has: two regions of ten.
const BLOCK: u16 = 20;
/// Metrics are so far above, so that every other thousand belongs to them.
const METRICS: u16 = 1_000;
/// Below those that the kernel gives to connections by itself.
const FIRST: u16 = 10_000;
/// Who listens here, has the block of this number.
const CLAIMS: u16 = 31_000;
const BLOCKS: u16 = 500;

/// Held until the process ends.
static CLAIMED: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// The first of 20 free ports in a row, which have as many free ones a thousand above. No other test
/// gets them while this one's process runs, in whatever process it is.
///
/// # Panics
/// When there are no such ports.
pub fn ports() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for number in 0..BLOCKS {
        let Ok(claim) = TcpListener::bind(("127.0.0.1", CLAIMS + number)) else {
            continue;
        };
        let blocks = METRICS / BLOCK;
        let first = FIRST + number / blocks * 2 * METRICS + number % blocks * BLOCK;
        if (first..first + BLOCK).all(|port| free(port) && free(port + METRICS)) {
            let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
            claimed.push(claim);
            return first;
        }
    }
    panic!("there are no 20 free ports from {FIRST} on");
}
