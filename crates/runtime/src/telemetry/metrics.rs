//! Metrics, as Prometheus asks for them, on a port of their own.

use std::time::Duration;

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::{
    contract::{Contract, Kind},
    start::{Process, StartError},
};
use crate::listener;

const BUILD_INFO: &str = "infrachat_build_info";
/// How often what histograms were told is taken in, so that it doesn't pile up while nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);
/// The text form that `render` writes.
const TEXT_FORM: &str = "text/plain; version=0.0.4";

/// Collects metrics from now on, and serves them.
pub(super) async fn serve(listen: &str, process: &Process) -> Result<(), StartError> {
    let (listener, address) = listener::bind(listen).await?;
    let contract = Contract::read().map_err(|err| StartError::Contract(err.to_string()))?;
    let handle = install(&contract, process)?;
    describe(&contract);
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    tokio::spawn(keep_up(handle.clone()));
    let answer = async move || {
        #[cfg(target_os = "linux")]
        process::observe();
        ([(CONTENT_TYPE, TEXT_FORM)], handle.render())
    };
    let routes = Router::new().route("/metrics", get(answer));
    tracing::info!(listen = %address, "serving metrics");
    tokio::spawn(async move {
        if let Err(err) = axum::serve(listener, routes).await {
            tracing::error!(%err, "metrics are no longer served");
        }
    });
    Ok(())
}

fn install(contract: &Contract, process: &Process) -> Result<PrometheusHandle, StartError> {
    let labelled = process
        .labels()
        .fold(PrometheusBuilder::new(), |builder, (name, value)| {
            builder.add_global_label(name, value)
        });
    let bad = |err: &dyn std::fmt::Display| StartError::Contract(err.to_string());
    let mut builder = labelled;
    for metric in &contract.metrics {
        if let Some(buckets) = contract.buckets(metric) {
            let named = Matcher::Full(metric.name.clone());
            builder = builder
                .set_buckets_for_metric(named, buckets)
                .map_err(|err| bad(&err))?;
        }
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| StartError::Twice)?;
    Ok(handle)
}

fn describe(contract: &Contract) {
    for metric in &contract.metrics {
        let (name, help) = (metric.name.clone(), metric.help.clone());
        let unit = Unit::from_string(&metric.unit).unwrap_or(Unit::Count);
        match metric.kind {
            Kind::Counter => describe_counter!(name, unit, help),
            Kind::Gauge => describe_gauge!(name, unit, help),
            Kind::Histogram => describe_histogram!(name, unit, help),
        }
    }
}

async fn keep_up(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        handle.run_upkeep();
    }
}

/// What the kernel knows of the process.
#[cfg(target_os = "linux")]
mod process {
    use metrics::{counter, gauge};
    use procfs::{ProcResult, WithCurrentSystemInfo as _, process::Process};

    /// Whole seconds: counters count nothing smaller.
    const CPU: &str = "process_cpu_seconds_total";
    const RESIDENT: &str = "process_resident_memory_bytes";
    const OPEN: &str = "process_open_fds";
    const MOST: &str = "process_max_fds";
    const THREADS: &str = "process_threads";
    const STARTED: &str = "process_start_time_seconds";

    pub(super) fn observe() {
        if let Err(err) = try_observe() {
            tracing::debug!(%err, "the process can't look at itself");
        }
    }

    fn try_observe() -> ProcResult<()> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let cpu = (stat.utime + stat.stime) / procfs::ticks_per_second();
        counter!(CPU).absolute(cpu);
        gauge!(RESIDENT).set(stat.rss_bytes().get() as f64);
        gauge!(THREADS).set(stat.num_threads as f64);
        gauge!(OPEN).set(process.fd_count()? as f64);
        if let procfs::process::LimitValue::Value(most) =
            process.limits()?.max_open_files.soft_limit
        {
            gauge!(MOST).set(most as f64);
        }
        let started = stat.starttime as f64 / procfs::ticks_per_second() as f64;
        gauge!(STARTED).set(procfs::boot_time_secs()? as f64 + started);
        Ok(())
    }
}
