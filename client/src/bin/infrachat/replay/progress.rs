//! How far a replay is, told while it runs.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::task::AbortOnDropHandle;

use super::ledger::Ledger;

/// How often a line is written where it can't be written over.
const SELDOM: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_millis(250);

/// Tells how far it is, until dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    known: Arc<Known>,
    _telling: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Known {
    phase: Mutex<&'static str>,
    sessions: AtomicUsize,
    signed_in: AtomicUsize,
    ledgers: Vec<Arc<Ledger>>,
}

impl Progress {
    pub(crate) fn start(ledgers: &[Arc<Ledger>]) -> Self {
        let known = Arc::new(Known {
            phase: Mutex::new("signing in"),
            sessions: AtomicUsize::new(0),
            signed_in: AtomicUsize::new(0),
            ledgers: ledgers.to_vec(),
        });
        let telling = tokio::spawn(tell(Arc::clone(&known)));
        Self {
            known,
            _telling: AbortOnDropHandle::new(telling),
        }
    }

    pub(crate) fn phase(&self, phase: &'static str) {
        *self
            .known
            .phase
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = phase;
    }

    pub(crate) fn sessions(&self, count: usize) {
        self.known.sessions.store(count, Ordering::Relaxed);
    }

    pub(crate) fn signed_in(&self) {
        self.known.signed_in.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if std::io::stderr().is_terminal() {
            // Leaves the line free for the report; a terminal that is gone shows neither.
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}

async fn tell(known: Arc<Known>) {
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { OFTEN } else { SELDOM };
    let mut ticks = tokio::time::interval(every);
    let mut deliveries = 0;
    loop {
        ticks.tick().await;
        let line = known.line(&mut deliveries, every);
        let mut out = std::io::stderr();
        let written = if terminal {
            write!(out, "\r\x1b[K{line}")
        } else {
            writeln!(out, "{line}")
        };
        if written.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

impl Known {
    fn line(&self, before: &mut u64, every: Duration) -> String {
        let phase = *self
            .phase
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let sessions = self.sessions.load(Ordering::Relaxed);
        let signed_in = self.signed_in.load(Ordering::Relaxed);
        let progress: Vec<_> = self
            .ledgers
            .iter()
            .map(|ledger| ledger.progress())
            .collect();
        let sent: usize = progress.iter().map(|progress| progress.sent).sum();
        let deliveries: u64 = progress.iter().map(|progress| progress.deliveries).sum();
        let outstanding: usize = progress.iter().map(|progress| progress.outstanding).sum();
        let rate = (deliveries - *before) as f64 / every.as_secs_f64();
        *before = deliveries;
        format!(
            "{phase}: {signed_in} of {sessions} signed in, {sent} lines played, {deliveries} deliveries ({rate:.0}/s), {outstanding} to come"
        )
    }
}
