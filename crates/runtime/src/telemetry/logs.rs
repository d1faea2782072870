//! Log lines as Cloud Logging reads them: `tracing-stackdriver` writes one JSON object each, which is
//! given here what the process is and the trace of the request. (That crate names traces only with the
//! help of an OpenTelemetry of its own, older than the one whose spans are here.)
//!
//! Public documentation: <https://cloud.google.com/logging/docs/structured-logging>.

use std::io::{self, Write};

use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value, json};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::fmt::MakeWriter;

use super::start::Process;

/// Adds to lines what is known of them here, on their way to the standard error stream.
pub(super) struct CloudLines {
    project: String,
    labels: Value,
}

impl CloudLines {
    pub(super) fn new(process: &Process) -> Self {
        Self {
            project: process.project.clone(),
            labels: process.labels().collect(),
        }
    }

    fn known(&self) -> Map<String, Value> {
        let mut known = Map::new();
        let mut name = |field: &str, value: Value| {
            known.insert(format!("logging.googleapis.com/{field}"), value);
        };
        name("labels", self.labels.clone());
        let context = Span::current().context();
        let span = context.span();
        let ids = span.span_context();
        if ids.is_valid() {
            let trace = format!("projects/{}/traces/{}", self.project, ids.trace_id());
            name("trace", trace.into());
            name("spanId", ids.span_id().to_string().into());
            name("trace_sampled", json!(ids.is_sampled()));
        }
        known
    }
}

impl<'a> MakeWriter<'a> for CloudLines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Where one line is written, at once.
pub(super) struct Line<'a>(&'a CloudLines);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let fields = line.strip_prefix(b"{").unwrap_or(line);
        let mut whole = serde_json::to_vec(&self.0.known())?;
        if let Some(end) = whole.last_mut() {
            *end = b',';
        }
        whole.extend(fields);
        io::stderr().write_all(&whole)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
