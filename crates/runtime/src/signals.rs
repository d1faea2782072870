//! When to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGINT or SIGTERM from now on cancels. Call it within a Tokio runtime.
#[must_use]
pub fn stop() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let signals = Signals::listen();
    tokio::spawn(async move {
        told(signals).await;
        stopping.cancel();
    });
    stop
}

/// Resolves at the first SIGINT or SIGTERM. Where signals can't be had, it never does, and says so.
pub async fn shutdown() {
    told(Signals::listen()).await;
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

async fn told(signals: io::Result<Signals>) {
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(err) => {
            tracing::error!(%err, "signals can't be received; stop this process by killing it");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = signals.interrupt.recv() => tracing::info!("interrupted, stopping"),
        _ = signals.terminate.recv() => tracing::info!("told to terminate, stopping"),
    }
}
