//! What the canary tells: a table or JSON lines, and metrics.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use super::ledger::{Counts, Ledger, Pair};

/// Bounds of all latencies, in seconds.
const LATENCY: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

const BUILD_INFO: &str = "infrachat_build_info";
const SENT: &str = "infrachat_canary_sent_total";
const RECEIVED: &str = "infrachat_canary_received_total";
const LOST: &str = "infrachat_canary_lost_total";
const DUPLICATED: &str = "infrachat_canary_duplicated_total";
const REORDERED: &str = "infrachat_canary_reordered_total";
const DELIVERY: &str = "infrachat_canary_delivery_seconds";
const SIGN_INS: &str = "infrachat_canary_sign_ins_total";
const SIGN_IN: &str = "infrachat_canary_sign_in_seconds";
const RECOVERIES: &str = "infrachat_canary_recoveries_total";
const RECOVERY: &str = "infrachat_canary_recovery_seconds";

/// Serves the metrics until the program ends.
pub(crate) fn serve_metrics(listen: SocketAddr, region: &str) -> Result<()> {
    PrometheusBuilder::new()
        .with_http_listener(listen)
        .add_global_label("region", region)
        .add_global_label("service", "canary")
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY)
        .and_then(PrometheusBuilder::install)
        .with_context(|| format!("serving metrics at {listen}"))?;
    describe();
    Ok(())
}

/// As in infra/pulumi/metrics.json: a test compares them.
fn describe() {
    describe_gauge!(BUILD_INFO, "Always 1; the version is a label.");
    describe_counter!(
        SENT,
        "Probe messages that were acknowledged, each counted once for every region that should hear it."
    );
    describe_counter!(RECEIVED, "Probe messages heard for the first time.");
    describe_counter!(
        LOST,
        "Probe messages not heard within the deadline after their acknowledgement."
    );
    describe_counter!(DUPLICATED, "Probe messages heard more than once.");
    describe_counter!(
        REORDERED,
        "Probe messages heard after a later one of the same sender."
    );
    describe_histogram!(
        DELIVERY,
        Unit::Seconds,
        "From sending a probe message to hearing it, by the canary's own clock."
    );
    describe_counter!(SIGN_INS, "The canary's sign-ins, by region and outcome.");
    describe_histogram!(
        SIGN_IN,
        Unit::Seconds,
        "How long the canary's sign-ins took."
    );
    describe_counter!(RECOVERIES, "Sessions that broke and were resumed.");
    describe_histogram!(
        RECOVERY,
        Unit::Seconds,
        "From a broken session to its being resumed with nothing missing."
    );
}

/// All counters, at 0: of one that appears with its first loss, Prometheus would see no increase, and
/// nobody would be woken.
pub(crate) fn begin(regions: &[String]) {
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for from in regions {
        for to in regions {
            for name in [SENT, RECEIVED, LOST, DUPLICATED, REORDERED] {
                pair(name, from, to).increment(0);
            }
        }
        for well in [true, false] {
            sign_ins(from, well).increment(0);
        }
        recoveries(from).increment(0);
    }
}

pub(crate) fn sent(from: &str, to: &str) {
    pair(SENT, from, to).increment(1);
}

pub(crate) fn heard(from: &str, to: &str, after: Duration, reordered: bool) {
    pair(RECEIVED, from, to).increment(1);
    pair(REORDERED, from, to).increment(u64::from(reordered));
    let labels = [
        ("from_region", from.to_owned()),
        ("to_region", to.to_owned()),
    ];
    histogram!(DELIVERY, &labels).record(after);
}

pub(crate) fn doubled(from: &str, to: &str) {
    pair(DUPLICATED, from, to).increment(1);
}

pub(crate) fn lost(from: &str, to: &str, count: u64) {
    tracing::error!(from, to, count, "probes were lost");
    pair(LOST, from, to).increment(count);
}

pub(crate) fn signed_in(region: &str, after: Duration, well: bool) {
    sign_ins(region, well).increment(1);
    histogram!(SIGN_IN, "at_region" => region.to_owned()).record(after);
}

fn sign_ins(region: &str, well: bool) -> metrics::Counter {
    let outcome = if well { "ok" } else { "failed" };
    counter!(SIGN_INS, "at_region" => region.to_owned(), "outcome" => outcome)
}

pub(crate) fn recovered(region: &str, after: Duration) {
    recoveries(region).increment(1);
    histogram!(RECOVERY, "at_region" => region.to_owned()).record(after);
}

fn recoveries(region: &str) -> metrics::Counter {
    counter!(RECOVERIES, "at_region" => region.to_owned())
}

fn pair(name: &'static str, from: &str, to: &str) -> metrics::Counter {
    let labels = [
        ("from_region", from.to_owned()),
        ("to_region", to.to_owned()),
    ];
    counter!(name, &labels)
}

/// Prints what happened so far.
pub(crate) fn print(ledger: &Ledger, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    if !json {
        writeln!(
            out,
            "{:<34} {:>7} {:>7} {:>5} {:>5} {:>5} {:>9} {:>9}",
            "from -> to", "sent", "heard", "lost", "twice", "order", "p50 ms", "p99 ms"
        )?;
    }
    for (pair, counts) in ledger.counts() {
        let line = match json {
            true => json_line(pair, counts),
            false => row(pair, counts),
        };
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn millis(counts: &Counts, quantile: f64) -> f64 {
    counts.delivery.value_at_quantile(quantile) as f64 / 1_000.0
}

fn row((from, to): &Pair, counts: &Counts) -> String {
    format!(
        "{:<34} {:>7} {:>7} {:>5} {:>5} {:>5} {:>9.1} {:>9.1}",
        format!("{from} -> {to}"),
        counts.sent,
        counts.heard,
        counts.lost,
        counts.doubled,
        counts.reordered,
        millis(counts, 0.5),
        millis(counts, 0.99),
    )
}

fn json_line((from, to): &Pair, counts: &Counts) -> String {
    serde_json::json!({
        "from": from,
        "to": to,
        "sent": counts.sent,
        "heard": counts.heard,
        "lost": counts.lost,
        "duplicated": counts.doubled,
        "reordered": counts.reordered,
        "p50_ms": millis(counts, 0.5),
        "p99_ms": millis(counts, 0.99),
    })
    .to_string()
}
