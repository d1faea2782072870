//! Sets up logs, metrics and spans of a service program.

use std::fmt;

use clap::ValueEnum;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::field::Field;
use tracing_subscriber::{
    Layer as _,
    filter::{ParseError, filter_fn},
    fmt::format::{self, Writer},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::{logs::CloudLines, metrics, requests, spans};
use crate::BindError;

/// What a service program tells about itself, and where.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Telemetry")]
pub struct Options {
    /// Which log lines to write, as in `RUST_LOG`.
    #[arg(
        long,
        env = "INFRACHAT_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
    /// What log lines look like.
    #[arg(long, env = "INFRACHAT_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Where to serve metrics in Prometheus' text form, "host:port", at the path /metrics; by default
    /// nowhere.
    #[arg(long, env = "INFRACHAT_METRICS_LISTEN", value_name = "HOST:PORT")]
    pub metrics_listen: Option<String>,
    /// The collector that takes spans, "http://host:port" (OTLP over gRPC); by default none are sent.
    #[arg(long, env = "INFRACHAT_OTLP_ENDPOINT", value_name = "URL", value_parser = plain_http)]
    pub otlp_endpoint: Option<String>,
    /// Which share of the traces that begin here is kept, 0 to 1. Traces that began elsewhere are kept
    /// when they were there; spans of failures always.
    #[arg(long, env = "INFRACHAT_TRACE_RATIO", default_value = "0.01", value_parser = share)]
    pub trace_ratio: f64,
}

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// JSON as Cloud Logging reads it.
    Cloud,
}

fn plain_http(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("write http://host:port, of a collector beside the program".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "write a number from 0 to 1".to_owned())
}

/// Who tells it.
#[derive(Debug, Clone)]
pub struct Process {
    /// The program.
    pub service: &'static str,
    /// Its region.
    pub region: String,
    /// Its slot's name, if it is a shard.
    pub shard: Option<String>,
    /// The Google Cloud project that its traces are in.
    pub project: String,
}

impl Process {
    /// What every metric, span and log line says of the process.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let shard = self.shard.as_deref().map(|shard| ("shard", shard));
        [("service", self.service), ("region", self.region.as_str())]
            .into_iter()
            .chain(shard)
    }
}

/// Why a program can't tell what it does.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter is none.
    #[error("--log (INFRACHAT_LOG) is not valid: {0}; write a level, or target=level,…")]
    Filter(#[from] ParseError),
    /// Something else was set up before.
    #[error("telemetry was started before in this process")]
    Twice,
    /// The port of the metrics can't be had.
    #[error("metrics: {0}")]
    Metrics(#[from] BindError),
    /// The contract can't be read.
    #[error("infra/pulumi/metrics.json, with which this program was built, is not valid: {0}")]
    Contract(String),
    /// The exporter can't be made.
    #[error("spans can't be sent to {endpoint}: {reason}")]
    Spans {
        /// Where to.
        endpoint: String,
        /// Why not.
        reason: String,
    },
}

/// Starts logs, metrics and spans. To be called once, before whatever counts is made, and within the
/// async runtime. What was not sent is sent when the guard is dropped.
///
/// # Errors
/// When an option can't be used.
pub async fn start(options: &Options, process: &Process) -> Result<Guard, StartError> {
    let lines = super::lines(&options.log)?;
    // Whatever is logged, the requests' spans name the trace of a line.
    let requests = format!("{}=info", requests::TARGET).parse()?;
    let lines = lines.add_directive(requests);
    let provider = spans::provider(options, process)?;
    let is_request =
        filter_fn(|metadata| metadata.is_span() && metadata.target() == requests::TARGET);
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("infrachat"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(is_request);
    let written = match options.log_format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .fmt_fields(format::debug_fn(for_people))
            .with_filter(lines)
            .boxed(),
        LogFormat::Cloud => {
            std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
            tracing_stackdriver::layer()
                .with_writer(CloudLines::new(process))
                .with_filter(lines)
                .boxed()
        }
    };
    tracing_subscriber::registry()
        .with(spans)
        .with(written)
        .try_init()
        .map_err(|_| StartError::Twice)?;
    if let Some(listen) = &options.metrics_listen {
        metrics::serve(listen, process).await?;
    }
    Ok(Guard(provider))
}

/// Writes a field, unless it is for spans only.
fn for_people(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name if name.starts_with("otel.") => Ok(()),
        name => write!(writer, " {name}={value:?}"),
    }
}

/// Sends the last spans when it is dropped.
#[derive(Debug)]
#[must_use = "spans are sent until it is dropped"]
pub struct Guard(SdkTracerProvider);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(err) = self.0.shutdown_with_timeout(spans::LAST_CALL) {
            tracing::warn!(%err, "the last spans were not sent");
        }
    }
}
