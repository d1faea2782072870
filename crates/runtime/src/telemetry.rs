//! Logs: one line an event, readable on a terminal or as JSON.

use tracing_subscriber::EnvFilter;

/// What a service program tells about itself.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Which log lines to write, as in `RUST_LOG`.
    #[arg(
        long,
        env = "INFRACHAT_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
}

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
