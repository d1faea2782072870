//! What a process tells about itself: log lines, and in the service programs metrics and spans.
//!
//! Parts of a program count with the `metrics` crate and make spans with the `opentelemetry` crate,
//! which do nothing until [`start()`] has set up where they go.

#[cfg(feature = "program")]
mod contract;
#[cfg(feature = "program")]
mod logs;
#[cfg(feature = "program")]
mod metrics;
pub(crate) mod requests;
#[cfg(feature = "program")]
mod spans;
#[cfg(feature = "program")]
mod start;

use tracing_subscriber::{EnvFilter, filter::ParseError};

/// The attribute of a failure. A span that begins with it is kept, whatever became of its trace.
pub const FAILED: &str = "error.type";

#[cfg(feature = "program")]
pub use start::{Guard, Options, Process, StartError, start};

/// Which lines a `RUST_LOG` expression means. h2 warns of each connection that it ends for what its client
/// does, so a client could fill the logs with that: unless the expression names h2, it tells errors only.
fn lines(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("h2=error,{filter}"))
}

/// Starts logging to standard error. `filter` is a `RUST_LOG` expression. A second call in one
/// process changes nothing, so that tests may all call it.
pub fn init(filter: &str) {
    let filter = lines(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // An error means that logging is set up already.
    drop(
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .try_init(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transport_tells_no_more_than_it_is_asked_for() {
        let lines = |filter| lines(filter).expect("an expression").to_string();
        assert!(lines("info").contains("h2=error"));
        assert!(!lines("info,h2=debug").contains("h2=error"));
        assert!(super::lines("info,,=").is_err());
    }
}
