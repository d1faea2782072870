//! How Firestore answers, counted.

use std::sync::LazyLock;

use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::Instant;

use super::calls::CallError;

const SECONDS: &str = "infrachat_firestore_seconds";
const ERRORS: &str = "infrachat_firestore_errors_total";
const RETRIES: &str = "infrachat_firestore_retries_total";

/// Calls of one kind.
pub(super) struct Calls {
    seconds: Histogram,
    conflicts: Counter,
    failures: Counter,
}

/// What is asked of Firestore.
pub(super) struct Asked {
    pub(super) read: Calls,
    pub(super) query: Calls,
    pub(super) commit: Calls,
    pub(super) retries: Counter,
}

pub(super) static ASKED: LazyLock<Asked> = LazyLock::new(|| Asked {
    read: Calls::new("read"),
    query: Calls::new("query"),
    commit: Calls::new("commit"),
    retries: counter!(RETRIES),
});

impl Calls {
    fn new(operation: &'static str) -> Self {
        let errors =
            |code: &'static str| counter!(ERRORS, "operation" => operation, "code" => code);
        Self {
            seconds: histogram!(SECONDS, "operation" => operation),
            conflicts: errors("conflict"),
            failures: errors("unavailable"),
        }
    }

    /// Counts a call. One that is dropped before its end took too long.
    pub(super) async fn count<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let pending = Pending(Some(&self.failures));
        let began = Instant::now();
        let answer = call.await;
        pending.over();
        match &answer {
            Ok(_) => self.seconds.record(began.elapsed()),
            Err(CallError::Conflict(_) | CallError::Refused(_)) => self.conflicts.increment(1),
            Err(CallError::Again(_) | CallError::Final(_)) => self.failures.increment(1),
        }
        answer
    }
}

/// A call without an answer yet.
struct Pending<'a>(Option<&'a Counter>);

impl Pending<'_> {
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(failures) = self.0 {
            failures.increment(1);
        }
    }
}
