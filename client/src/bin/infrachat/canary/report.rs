//! What the canary tells: a table or JSON lines, and metrics.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use metrics::{counter, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use super::ledger::{Counts, Ledger, Pair};

/// Bounds of all latencies, in seconds.
const LATENCY: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Serves the metrics until the program ends.
pub(crate) fn serve_metrics(listen: SocketAddr, region: &str) -> Result<()> {
    PrometheusBuilder::new()
        .with_http_listener(listen)
        .add_global_label("region", region)
        .add_global_label("service", "canary")
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY)
        .and_then(PrometheusBuilder::install)
        .with_context(|| format!("serving metrics at {listen}"))
}

pub(crate) fn sent(from: &str, to: &str) {
    pair("infrachat_canary_sent_total", from, to).increment(1);
}

pub(crate) fn heard(from: &str, to: &str, after: Duration, reordered: bool) {
    pair("infrachat_canary_received_total", from, to).increment(1);
    pair("infrachat_canary_reordered_total", from, to).increment(u64::from(reordered));
    let labels = [
        ("from_region", from.to_owned()),
        ("to_region", to.to_owned()),
    ];
    histogram!("infrachat_canary_delivery_seconds", &labels).record(after);
}

pub(crate) fn doubled(from: &str, to: &str) {
    pair("infrachat_canary_duplicated_total", from, to).increment(1);
}

pub(crate) fn lost(from: &str, to: &str, count: u64) {
    tracing::error!(from, to, count, "probes were lost");
    pair("infrachat_canary_lost_total", from, to).increment(count);
}

pub(crate) fn signed_in(region: &str, after: Duration, well: bool) {
    let outcome = if well { "ok" } else { "failed" };
    let at = ("at_region", region.to_owned());
    let labels = [at.clone(), ("outcome", outcome.to_owned())];
    counter!("infrachat_canary_sign_ins_total", &labels).increment(1);
    histogram!("infrachat_canary_sign_in_seconds", &[at]).record(after);
}

pub(crate) fn recovered(region: &str, after: Duration) {
    let at = [("at_region", region.to_owned())];
    counter!("infrachat_canary_recoveries_total", &at).increment(1);
    histogram!("infrachat_canary_recovery_seconds", &at).record(after);
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
