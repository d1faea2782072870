//! Logs: one line an event, readable on a terminal or as JSON.

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error. `filter` is a `RUST_LOG` expression. A second call in one
/// process changes nothing, so that tests may all call it.
pub fn init(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // An error means that logging is set up already.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .try_init(),
    );
}
