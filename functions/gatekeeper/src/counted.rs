//! What Gatekeeper counts: names in one place, and handles that are made once.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use infrachat_types::ErrorCode;
use metrics::{Counter, Histogram, counter, histogram};

const REQUESTS: &str = "infrachat_auth_requests_total";
const SECONDS: &str = "infrachat_auth_seconds";
const LIMITED: &str = "infrachat_rate_limited_total";

/// What a call can come to, beside success.
const REFUSALS: [ErrorCode; 9] = [
    ErrorCode::BadCredentials,
    ErrorCode::BadPassword,
    ErrorCode::BadUserName,
    ErrorCode::UserExists,
    ErrorCode::BadRefreshToken,
    ErrorCode::RateLimited,
    ErrorCode::Overloaded,
    ErrorCode::Unavailable,
    ErrorCode::Internal,
];

/// The calls of one method.
pub(crate) struct Calls {
    pub(crate) name: &'static str,
    seconds: Histogram,
    outcomes: BTreeMap<&'static str, Counter>,
}

impl Calls {
    fn new(call: &'static str) -> Self {
        let codes = REFUSALS.iter().map(|code| code.as_str());
        let outcomes = codes.chain(["ok"]).map(|outcome| {
            let counter = counter!(REQUESTS, "call" => call, "outcome" => outcome);
            (outcome, counter)
        });
        Self {
            name: call,
            seconds: histogram!(SECONDS, "call" => call),
            outcomes: outcomes.collect(),
        }
    }

    /// Counts a call that ended, well or with a refusal.
    pub(crate) fn count(&self, refusal: Option<ErrorCode>, took: Duration) {
        self.seconds.record(took);
        let outcome = refusal.map_or("ok", ErrorCode::as_str);
        // A code that is not among the known ones is a defect of ours.
        let counter = self.outcomes.get(outcome);
        if let Some(counter) = counter.or_else(|| self.outcomes.get("internal")) {
            counter.increment(1);
        }
    }
}

/// All calls, and the limits that refused some.
pub(crate) struct Counted {
    pub(crate) register: Calls,
    pub(crate) login: Calls,
    pub(crate) refresh: Calls,
    pub(crate) revoke: Calls,
    pub(crate) registrations_limited: Counter,
    pub(crate) sign_ins_limited: Counter,
    pub(crate) accounts_limited: Counter,
    pub(crate) refreshes_limited: Counter,
}

pub(crate) static COUNTED: LazyLock<Counted> = LazyLock::new(|| {
    let limited = |limit: &'static str| counter!(LIMITED, "limit" => limit);
    Counted {
        register: Calls::new("register"),
        login: Calls::new("login"),
        refresh: Calls::new("refresh"),
        revoke: Calls::new("revoke"),
        registrations_limited: limited("registration"),
        sign_ins_limited: limited("sign_in_address"),
        accounts_limited: limited("sign_in_account"),
        refreshes_limited: limited("refresh"),
    }
});
