//! When to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGINT or SIGTERM cancels.
#[must_use]
pub fn stop() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        shutdown().await;
        stopping.cancel();
    });
    stop
}

/// Resolves at the first SIGINT or SIGTERM. Where signals can't be had, it never does, and says so.
pub async fn shutdown() {
    let (interrupt, terminate) = match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(err), _) | (_, Err(err)) => {
            tracing::error!(%err, "signals can't be received; stop this process by killing it");
            return std::future::pending().await;
        }
    };
    let (mut interrupt, mut terminate) = (interrupt, terminate);
    tokio::select! {
        _ = interrupt.recv() => tracing::info!("interrupted, stopping"),
        _ = terminate.recv() => tracing::info!("told to terminate, stopping"),
    }
}
