//! How long things took, over all rounds.

use std::time::Duration;

pub(crate) fn print_distribution(what: &str, mut times: Vec<Duration>) {
    if times.is_empty() {
        return println!("{what}: never");
    }
    times.sort_unstable();
    let at = |part: f64| {
        // Few enough to count exactly.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let index = ((times.len() as f64 - 1.0) * part).round() as usize;
        times.get(index).copied().unwrap_or_default()
    };
    println!(
        "{what}: {} samples, min {:.2?}, p50 {:.2?}, p90 {:.2?}, max {:.2?}",
        times.len(),
        at(0.0),
        at(0.5),
        at(0.9),
        at(1.0)
    );
}
