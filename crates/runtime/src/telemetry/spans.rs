//! Spans: which are kept, and where they go.

use std::time::Duration;

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt as _, TraceId},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample},
};

use super::{
    FAILED,
    start::{Options, Process, StartError},
};

/// How long the last spans may take at the end of the process.
pub(super) const LAST_CALL: Duration = Duration::from_secs(3);

/// Makes spans from now on, and sends those that are kept.
pub(super) fn provider(
    options: &Options,
    process: &Process,
) -> Result<SdkTracerProvider, StartError> {
    let resource =
        Resource::builder_empty().with_attributes(process.labels().map(|(name, value)| {
            let name = match name {
                "service" => "service.name",
                "region" => "cloud.region",
                _ => "service.instance.id",
            };
            KeyValue::new(name, value.to_owned())
        }));
    let builder = SdkTracerProvider::builder().with_resource(resource.build());
    let provider = match &options.otlp_endpoint {
        None => builder.with_sampler(Sampler::AlwaysOff).build(),
        Some(endpoint) => {
            let exporter = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()
                .map_err(|err| StartError::Spans {
                    endpoint: endpoint.clone(),
                    reason: err.to_string(),
                })?;
            let by_ratio = Sampler::TraceIdRatioBased(options.trace_ratio);
            builder
                .with_sampler(Kept(Sampler::ParentBased(Box::new(by_ratio))))
                .with_batch_exporter(exporter)
                .build()
        }
    };
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    opentelemetry::global::set_tracer_provider(provider.clone());
    Ok(provider)
}

/// Keeps what another sampler keeps, and failures.
#[derive(Debug, Clone)]
struct Kept(Sampler);

impl ShouldSample for Kept {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if attributes
            .iter()
            .all(|attribute| attribute.key.as_str() != FAILED)
        {
            return self
                .0
                .should_sample(parent, trace, name, kind, attributes, links);
        }
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: parent
                .map(|parent| parent.span().span_context().trace_state().clone())
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(attributes: &[KeyValue]) -> SamplingDecision {
        let none = Kept(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            0.0,
        ))));
        let trace = TraceId::from(7_u128);
        none.should_sample(None, trace, "publish", &SpanKind::Producer, attributes, &[])
            .decision
    }

    #[test]
    fn failures_are_kept_whatever_the_ratio() {
        let other = KeyValue::new("infrachat.channel", "#general");
        assert_eq!(
            decision(std::slice::from_ref(&other)),
            SamplingDecision::Drop
        );
        let failed = KeyValue::new(FAILED, "unavailable");
        assert_eq!(
            decision(&[other, failed]),
            SamplingDecision::RecordAndSample
        );
    }
}
