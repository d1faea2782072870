//! What a shard counts: names in one place, and handles that are made once.

use std::{sync::LazyLock, time::Duration};

use infrachat_identity::Verifications;
use infrachat_types::{CloseCode, ErrorCode, Region, RegionTag};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

const SESSIONS: &str = "infrachat_sessions";
const SESSIONS_MAX: &str = "infrachat_sessions_max";
const SESSIONS_OPENED: &str = "infrachat_sessions_opened_total";
const SESSIONS_CLOSED: &str = "infrachat_sessions_closed_total";
const DRAINING: &str = "infrachat_draining";
const JOINS: &str = "infrachat_joins_total";
const CHANNELS: &str = "infrachat_channels";
const PUBLISHES: &str = "infrachat_publishes_total";
const PUBLISH_ACK: &str = "infrachat_publish_ack_seconds";
const PUBLISHED_BYTES: &str = "infrachat_published_bytes_total";
const DELIVERIES: &str = "infrachat_deliveries_total";
const FRAMES_SENT: &str = "infrachat_frames_sent_total";
const FANOUT: &str = "infrachat_fanout_seconds";
const DELIVERY: &str = "infrachat_delivery_seconds";
const LOG_LAG: &str = "infrachat_log_lag_messages";
const SLOW_READERS: &str = "infrachat_slow_readers_total";
const GAPS: &str = "infrachat_gaps_total";
const GAP_MESSAGES: &str = "infrachat_gap_messages_total";
const RELAY_LAG: &str = "infrachat_relay_lag_seconds";
const DUPLICATES: &str = "infrachat_duplicates_dropped_total";
const HOLES: &str = "infrachat_sequence_holes_total";
const MISSING: &str = "infrachat_sequence_missing_total";
const REDELIVERIES: &str = "infrachat_bus_redeliveries_total";
const DEAD_LETTERS: &str = "infrachat_dead_letters_total";
const PARTITIONS: &str = "infrachat_partitions";
const PARTITIONS_OWNED: &str = "infrachat_partitions_owned";
const OWNERSHIP_CHANGES: &str = "infrachat_ownership_changes_total";
const LEASE_RENEWALS: &str = "infrachat_lease_renewals_total";
const LEASE_RENEWAL: &str = "infrachat_lease_renewal_seconds";
const BACKLOG_MESSAGES: &str = "infrachat_history_backlog_messages";
const BACKLOG_BYTES: &str = "infrachat_history_backlog_bytes";
const BACKLOG_MAX: &str = "infrachat_history_backlog_max_bytes";
const MEMORY: &str = "infrachat_memory_bytes";
const MEMORY_MAX: &str = "infrachat_memory_max_bytes";
const HISTORY_WRITE: &str = "infrachat_history_write_seconds";
const HISTORY_WRITTEN: &str = "infrachat_history_written_total";
const STABLE: &str = "infrachat_stable_seconds";
const DEGRADED: &str = "infrachat_degraded";
const LIMITED: &str = "infrachat_rate_limited_total";

/// A session ended: the client ended its stream.
pub(crate) const CLIENT_LEFT: &str = "client_left";
/// A session ended: its connection broke.
pub(crate) const CONNECTION_LOST: &str = "connection_lost";

/// Everything that is not about one source region.
pub(crate) struct Counted {
    pub(crate) sessions: Gauge,
    pub(crate) sessions_max: Gauge,
    pub(crate) sessions_opened: Counter,
    sessions_closed: Vec<(&'static str, Counter)>,
    pub(crate) draining: Gauge,
    pub(crate) joins: Joins,
    pub(crate) channels: Gauge,
    pub(crate) publishes: Publishes,
    pub(crate) ack_seconds: Histogram,
    pub(crate) published_bytes: Counter,
    pub(crate) frames: Counter,
    pub(crate) fanout: Histogram,
    pub(crate) log_lag: Gauge,
    pub(crate) slow_skipped: Counter,
    pub(crate) slow_disconnected: Counter,
    pub(crate) slow_reader: Gaps,
    pub(crate) history_expired: Gaps,
    pub(crate) position_unknown: Gaps,
    pub(crate) relay_lag: Gauge,
    pub(crate) duplicates: Duplicates,
    pub(crate) holes: Counter,
    pub(crate) missing: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) partitions: Gauge,
    pub(crate) partitions_owned: Gauge,
    pub(crate) ownership: Ownership,
    renewals: Counter,
    renewals_failed: Counter,
    renewal_seconds: Histogram,
    pub(crate) backlog_messages: Gauge,
    pub(crate) backlog_bytes: Gauge,
    pub(crate) backlog_max: Gauge,
    pub(crate) memory: Gauge,
    pub(crate) memory_max: Gauge,
    pub(crate) written: HistoryWrites,
    pub(crate) stable: Histogram,
    history_degraded: Gauge,
    memory_degraded: Gauge,
    pub(crate) presence_degraded: Gauge,
    /// One for each lane that can't publish.
    pub(crate) bus_degraded: Gauge,
    pub(crate) verifications: Verifications,
    pub(crate) publishes_limited: Counter,
    pub(crate) frames_limited: Counter,
}

pub(crate) struct Joins {
    pub(crate) joined: Counter,
    pub(crate) resumed: Counter,
    pub(crate) redirected: Counter,
    refused: Counter,
    unavailable: Counter,
}

pub(crate) struct Publishes {
    pub(crate) acked: Counter,
    pub(crate) duplicate: Counter,
    refused: Counter,
    limited: Counter,
    out_of_order: Counter,
    unavailable: Counter,
}

/// Gaps for one reason.
pub(crate) struct Gaps {
    gaps: Counter,
    messages: Counter,
}

pub(crate) struct Duplicates {
    pub(crate) own: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) retried: Counter,
}

pub(crate) struct Ownership {
    pub(crate) taken: Counter,
    pub(crate) released: Counter,
    pub(crate) lost: Counter,
    pub(crate) fenced: Counter,
}

pub(crate) struct HistoryWrites {
    pub(crate) ok: Histogram,
    pub(crate) fenced: Histogram,
    pub(crate) unavailable: Histogram,
    pub(crate) messages: Counter,
}

/// A part of which sessions are told when it works with less than its promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    History,
    Memory,
}

impl Part {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Memory => "memory",
        }
    }
}

pub(crate) static COUNTED: LazyLock<Counted> = LazyLock::new(Counted::new);

impl Counted {
    fn new() -> Self {
        let codes = CloseCode::ALL.iter().map(|code| code.as_str());
        let closed = codes.chain([CLIENT_LEFT, CONNECTION_LOST]);
        let join = |outcome: &'static str| counter!(JOINS, "outcome" => outcome);
        let publish = |outcome: &'static str| counter!(PUBLISHES, "outcome" => outcome);
        let slow = |policy: &'static str| counter!(SLOW_READERS, "policy" => policy);
        let duplicate = |cause: &'static str| counter!(DUPLICATES, "cause" => cause);
        let change = |change: &'static str| counter!(OWNERSHIP_CHANGES, "change" => change);
        let renewal = |outcome: &'static str| counter!(LEASE_RENEWALS, "outcome" => outcome);
        let write = |outcome: &'static str| histogram!(HISTORY_WRITE, "outcome" => outcome);
        let degraded = |part: &'static str| gauge!(DEGRADED, "part" => part);
        Self {
            sessions: gauge!(SESSIONS),
            sessions_max: gauge!(SESSIONS_MAX),
            sessions_opened: counter!(SESSIONS_OPENED),
            sessions_closed: closed
                .map(|code| (code, counter!(SESSIONS_CLOSED, "code" => code)))
                .collect(),
            draining: gauge!(DRAINING),
            joins: Joins {
                joined: join("joined"),
                resumed: join("resumed"),
                redirected: join("redirected"),
                refused: join("refused"),
                unavailable: join("unavailable"),
            },
            channels: gauge!(CHANNELS),
            publishes: Publishes {
                acked: publish("acked"),
                duplicate: publish("duplicate"),
                refused: publish("refused"),
                limited: publish("rate_limited"),
                out_of_order: publish("out_of_order"),
                unavailable: publish("unavailable"),
            },
            ack_seconds: histogram!(PUBLISH_ACK),
            published_bytes: counter!(PUBLISHED_BYTES),
            frames: counter!(FRAMES_SENT),
            fanout: histogram!(FANOUT),
            log_lag: gauge!(LOG_LAG),
            slow_skipped: slow("drop_oldest"),
            slow_disconnected: slow("disconnect"),
            slow_reader: Gaps::new("slow_reader"),
            history_expired: Gaps::new("history_expired"),
            position_unknown: Gaps::new("position_unknown"),
            relay_lag: gauge!(RELAY_LAG),
            duplicates: Duplicates {
                own: duplicate("own"),
                redelivered: duplicate("redelivered"),
                retried: duplicate("retried"),
            },
            holes: counter!(HOLES),
            missing: counter!(MISSING),
            dead_letters: counter!(DEAD_LETTERS, "topic" => "messages"),
            partitions: gauge!(PARTITIONS),
            partitions_owned: gauge!(PARTITIONS_OWNED),
            ownership: Ownership {
                taken: change("taken"),
                released: change("released"),
                lost: change("lost"),
                fenced: change("fenced"),
            },
            renewals: renewal("ok"),
            renewals_failed: renewal("failed"),
            renewal_seconds: histogram!(LEASE_RENEWAL),
            backlog_messages: gauge!(BACKLOG_MESSAGES),
            backlog_bytes: gauge!(BACKLOG_BYTES),
            backlog_max: gauge!(BACKLOG_MAX),
            memory: gauge!(MEMORY),
            memory_max: gauge!(MEMORY_MAX),
            written: HistoryWrites {
                ok: write("ok"),
                fenced: write("fenced"),
                unavailable: write("unavailable"),
                messages: counter!(HISTORY_WRITTEN),
            },
            stable: histogram!(STABLE),
            history_degraded: degraded(Part::History.as_str()),
            memory_degraded: degraded(Part::Memory.as_str()),
            presence_degraded: degraded("presence"),
            bus_degraded: degraded("bus"),
            verifications: Verifications::default(),
            publishes_limited: counter!(LIMITED, "limit" => "publish"),
            frames_limited: counter!(LIMITED, "limit" => "frames"),
        }
    }

    /// Whether a part is degraded.
    pub(crate) fn degraded(&self, part: Part) -> &Gauge {
        match part {
            Part::History => &self.history_degraded,
            Part::Memory => &self.memory_degraded,
        }
    }

    /// A renewal of the lease came out so, after this time.
    pub(crate) fn renewed(&self, took: Duration, well: bool) {
        if well {
            self.renewals.increment(1);
            self.renewal_seconds.record(took);
        } else {
            self.renewals_failed.increment(1);
        }
    }

    /// A session ended, or was not let in.
    pub(crate) fn closed(&self, code: &str) {
        let found = self
            .sessions_closed
            .iter()
            .find(|(known, _)| *known == code);
        if let Some((_, counter)) = found {
            counter.increment(1);
        }
    }
}

impl Joins {
    /// A join was answered with an error.
    pub(crate) fn refused(&self, code: ErrorCode) {
        let counter = if code.retryable() {
            &self.unavailable
        } else {
            &self.refused
        };
        counter.increment(1);
    }
}

impl Publishes {
    /// A publish was answered with an error.
    pub(crate) fn refused(&self, code: ErrorCode) {
        let counter = match code {
            ErrorCode::RateLimited | ErrorCode::TooManyInFlight => &self.limited,
            ErrorCode::OutOfOrder => &self.out_of_order,
            code if code.retryable() => &self.unavailable,
            _ => &self.refused,
        };
        counter.increment(1);
    }
}

impl Gaps {
    fn new(reason: &'static str) -> Self {
        Self {
            gaps: counter!(GAPS, "reason" => reason),
            messages: counter!(GAP_MESSAGES, "reason" => reason),
        }
    }

    /// A gap was announced.
    pub(crate) fn count(&self, messages: u64) {
        self.gaps.increment(1);
        self.messages.increment(messages);
    }
}

/// What is counted of messages from one region.
pub(crate) struct Source {
    pub(crate) tag: RegionTag,
    pub(crate) deliveries: Counter,
    pub(crate) delivery: Histogram,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl Source {
    pub(crate) fn new(region: &Region) -> Self {
        let name = region.to_string();
        Self {
            tag: region.into(),
            deliveries: counter!(DELIVERIES, "source_region" => name.clone()),
            delivery: histogram!(DELIVERY, "source_region" => name),
        }
    }
}

/// Events that the bus delivered again.
pub(crate) fn redeliveries(source: &str) -> Counter {
    counter!(REDELIVERIES, "source_region" => source.to_owned())
}
