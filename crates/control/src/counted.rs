//! What is counted of control events.

use std::sync::LazyLock;

use infrachat_proto::bus::v1::control_event::Kind;
use metrics::{Counter, counter};

const EVENTS: &str = "infrachat_control_events_total";
const PUSHES: &str = "infrachat_push_requests_total";
const DEAD_LETTERS: &str = "infrachat_dead_letters_total";

/// Events of one kind, by what became of them.
pub(crate) struct Handled {
    pub(crate) applied: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) failed: Counter,
}

/// All events.
pub(crate) struct Events {
    channel_changed: Handled,
    user_changed: Handled,
    revoked: Handled,
    unknown: Handled,
    /// Set aside on the dead-letter topic.
    pub(crate) set_aside: Counter,
}

pub(crate) static EVENTS_HEARD: LazyLock<Events> = LazyLock::new(|| Events {
    channel_changed: Handled::new("channel_changed"),
    user_changed: Handled::new("user_changed"),
    revoked: Handled::new("revoked"),
    unknown: Handled::new("unknown"),
    set_aside: counter!(DEAD_LETTERS, "topic" => "control"),
});

impl Handled {
    fn new(kind: &'static str) -> Self {
        let outcome =
            |outcome: &'static str| counter!(EVENTS, "kind" => kind, "outcome" => outcome);
        Self {
            applied: outcome("applied"),
            unreadable: outcome("unreadable"),
            failed: outcome("failed"),
        }
    }
}

impl Events {
    /// Those of a kind; none: it is of a newer version, or was never known.
    pub(crate) fn of(&self, kind: Option<&Kind>) -> &Handled {
        match kind {
            Some(Kind::ChannelChanged(_)) => &self.channel_changed,
            Some(Kind::UserChanged(_)) => &self.user_changed,
            Some(Kind::Revoked(_)) => &self.revoked,
            None => &self.unknown,
        }
    }
}

/// Pushes, by how they were answered.
pub(crate) struct Pushes {
    pub(crate) accepted: Counter,
    pub(crate) unauthenticated: Counter,
    pub(crate) bad_request: Counter,
    pub(crate) failed: Counter,
}

pub(crate) static PUSHES_TAKEN: LazyLock<Pushes> = LazyLock::new(|| {
    let outcome = |outcome: &'static str| counter!(PUSHES, "outcome" => outcome);
    Pushes {
        accepted: outcome("accepted"),
        unauthenticated: outcome("unauthenticated"),
        bad_request: outcome("bad_request"),
        failed: outcome("failed"),
    }
});
