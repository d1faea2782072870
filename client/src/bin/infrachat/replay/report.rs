//! The verdict, for people and for programs.

use std::{
    fmt,
    time::{Duration, Instant},
};

use hdrhistogram::{CreationError, Histogram};
use infrachat_client::Stats;
use serde::Serialize;

/// Longest latency told apart, in microseconds.
const LONGEST: u64 = 300_000_000;

/// Microseconds since then.
pub(crate) fn latency(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(LONGEST)
}

/// What was counted, in one channel or in all.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) missing: u64,
    pub(crate) duplicated: u64,
    pub(crate) out_of_order: u64,
    pub(crate) echoed: u64,
    pub(crate) optional: u64,
    /// Messages of nobody in the replay.
    pub(crate) strangers: u64,
    /// Deliveries of any sort.
    pub(crate) got: u64,
    pub(crate) offenders: Vec<String>,
    pub(crate) ack_latency: Histogram<u64>,
    pub(crate) same_region: Histogram<u64>,
    pub(crate) cross_region: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, CreationError> {
        let empty = Histogram::new_with_max(LONGEST, 3)?;
        Ok(Self {
            sent: 0,
            acknowledged: 0,
            failed: 0,
            expected: 0,
            delivered: 0,
            missing: 0,
            duplicated: 0,
            out_of_order: 0,
            echoed: 0,
            optional: 0,
            strangers: 0,
            got: 0,
            offenders: Vec::new(),
            ack_latency: empty.clone(),
            same_region: empty.clone(),
            cross_region: empty,
        })
    }

    /// Whether every delivery was as it must be.
    pub(crate) fn passed(&self) -> bool {
        self.missing + self.duplicated + self.out_of_order + self.echoed == 0
    }

    fn add(&mut self, other: &Self) -> Result<(), hdrhistogram::AdditionError> {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.missing += other.missing;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.echoed += other.echoed;
        self.optional += other.optional;
        self.strangers += other.strangers;
        self.got += other.got;
        self.offenders.extend(other.offenders.iter().cloned());
        self.ack_latency.add(&other.ack_latency)?;
        self.same_region.add(&other.same_region)?;
        self.cross_region.add(&other.cross_region)
    }
}

/// What the library did meanwhile, over all sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Library {
    pub(crate) duplicates_dropped: u64,
    pub(crate) echoes_dropped: u64,
    pub(crate) resent: u64,
    pub(crate) gaps: u64,
    pub(crate) disconnects: u64,
    pub(crate) rejoins: u64,
}

impl Library {
    pub(crate) fn add(&mut self, stats: &Stats) {
        self.duplicates_dropped += stats.duplicates_dropped;
        self.echoes_dropped += stats.echoes_dropped;
        self.resent += stats.resent;
        self.gaps += stats.gaps;
        self.disconnects += stats.disconnects;
        self.rejoins += stats.rejoins;
    }
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Latencies {
    count: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl From<&Histogram<u64>> for Latencies {
    fn from(histogram: &Histogram<u64>) -> Self {
        let ms = |quantile| {
            Duration::from_micros(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e3
        };
        Self {
            count: histogram.len(),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            max_ms: ms(1.0),
        }
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        write!(
            f,
            "p50 {:.1}  p90 {:.1}  p99 {:.1}  max {:.1} ms  ({})",
            self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms, self.count
        )
    }
}

/// A replay's result. The JSON fields are stable.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    passed: bool,
    channels: Vec<String>,
    sessions: usize,
    seconds: f64,
    sent: u64,
    acknowledged: u64,
    failed: u64,
    deliveries_expected: u64,
    delivered: u64,
    missing: u64,
    duplicated: u64,
    out_of_order: u64,
    echoed: u64,
    optional: u64,
    strangers: u64,
    library: Library,
    publish_to_ack: Latencies,
    publish_to_delivery_same_region: Latencies,
    publish_to_delivery_cross_region: Latencies,
    offenders: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        channels: Vec<String>,
        sessions: usize,
        took: Duration,
        tallies: &[Tally],
        library: Library,
    ) -> anyhow::Result<Self> {
        let mut all = Tally::new()?;
        for tally in tallies {
            all.add(tally)?;
        }
        Ok(Self {
            passed: all.passed(),
            channels,
            sessions,
            seconds: took.as_secs_f64(),
            sent: all.sent,
            acknowledged: all.acknowledged,
            failed: all.failed,
            deliveries_expected: all.expected,
            delivered: all.delivered,
            missing: all.missing,
            duplicated: all.duplicated,
            out_of_order: all.out_of_order,
            echoed: all.echoed,
            optional: all.optional,
            strangers: all.strangers,
            library,
            publish_to_ack: (&all.ack_latency).into(),
            publish_to_delivery_same_region: (&all.same_region).into(),
            publish_to_delivery_cross_region: (&all.cross_region).into(),
            offenders: all.offenders,
        })
    }

    pub(crate) fn passed(&self) -> bool {
        self.passed
    }

    /// Messages that were never acknowledged.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |count: u64| count as f64 / self.seconds.max(0.001);
        writeln!(
            f,
            "{} sessions in {}, {:.1} s",
            self.sessions,
            self.channels.join(" and "),
            self.seconds
        )?;
        writeln!(
            f,
            "  sent {}  acknowledged {}  never acknowledged {}  ({:.0}/s)",
            self.sent,
            self.acknowledged,
            self.failed,
            rate(self.acknowledged)
        )?;
        writeln!(
            f,
            "  deliveries expected {}  delivered {}  ({:.0}/s)",
            self.deliveries_expected,
            self.delivered,
            rate(self.delivered)
        )?;
        writeln!(
            f,
            "  missing {}  duplicated {}  out of order {}  echoed {}",
            self.missing, self.duplicated, self.out_of_order, self.echoed
        )?;
        writeln!(
            f,
            "  optional {}  of strangers {}",
            self.optional, self.strangers
        )?;
        let library = &self.library;
        writeln!(
            f,
            "  in the library: duplicates dropped {}  echoes dropped {}  resent {}  gaps {}  disconnects {}  rejoins {}",
            library.duplicates_dropped,
            library.echoes_dropped,
            library.resent,
            library.gaps,
            library.disconnects,
            library.rejoins
        )?;
        writeln!(
            f,
            "  publish to ack                      {}",
            self.publish_to_ack
        )?;
        writeln!(
            f,
            "  publish to delivery, same region    {}",
            self.publish_to_delivery_same_region
        )?;
        writeln!(
            f,
            "  publish to delivery, cross region   {}",
            self.publish_to_delivery_cross_region
        )?;
        for offender in &self.offenders {
            writeln!(f, "  {offender}")?;
        }
        let verdict = if self.passed {
            "every delivery came exactly once, in order"
        } else {
            "FAILED"
        };
        write!(f, "verdict: {verdict}")
    }
}
