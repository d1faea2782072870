//! A span for each request, in the trace that the caller names.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tower::{Layer, Service};
use tracing::Instrument as _;

/// Of the requests' spans.
pub(crate) const TARGET: &str = "infrachat::request";

/// Gives each request a span. Health checks have none: they come all the time, and tell nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestSpans;

impl<S> Layer<S> for RequestSpans {
    type Service = Spanned<S>;

    fn layer(&self, inner: S) -> Spanned<S> {
        Spanned(inner)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Spanned<S>(S);

impl<S, B, R> Service<http::Request<B>> for Spanned<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with("/grpc.health.") || path == "/healthz" {
            return Box::pin(self.0.call(request));
        }
        let span = tracing::info_span!(target: TARGET, "request", rpc = path, otel.name = path,
            otel.kind = "server", otel.status_code = tracing::field::Empty);
        #[cfg(feature = "program")]
        let kept = traced::begin(&span, path, request.headers());
        let answer = span.in_scope(|| self.0.call(request));
        #[cfg(feature = "program")]
        let answer = {
            let span = span.clone();
            async move {
                answer
                    .await
                    .inspect(|response| traced::end(&span, response, kept))
            }
        };
        Box::pin(answer.instrument(span))
    }
}

#[cfg(feature = "program")]
mod traced {
    use http::HeaderMap;
    use opentelemetry::{
        KeyValue, global,
        propagation::Extractor,
        trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _},
    };
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    use crate::telemetry::FAILED;

    struct Headers<'a>(&'a HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).and_then(|value| value.to_str().ok())
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }

    /// In the caller's trace, if it names one. Answers the span to keep if the request fails in a
    /// trace that is not kept.
    pub(super) fn begin(span: &Span, path: &str, headers: &HeaderMap) -> SpanBuilder {
        let caller = global::get_text_map_propagator(|from| from.extract(&Headers(headers)));
        // Without telemetry the span is in no trace.
        drop(span.set_parent(caller));
        SpanBuilder::from_name(path.to_owned())
            .with_kind(SpanKind::Server)
            .with_start_time(opentelemetry::time::now())
    }

    pub(super) fn end<R>(span: &Span, response: &http::Response<R>, kept: SpanBuilder) {
        let Some(failure) = failure(response) else {
            return;
        };
        span.record("otel.status_code", "ERROR");
        let context = span.context();
        if context.span().span_context().is_sampled() {
            return;
        }
        let kept = kept.with_attributes([KeyValue::new(FAILED, failure)]);
        let mut kept = global::tracer("infrachat").build_with_context(kept, &context);
        kept.set_status(Status::error(""));
        kept.end();
    }

    /// The server's failure; what the caller did wrong is none.
    fn failure<R>(response: &http::Response<R>) -> Option<String> {
        if response.status().is_server_error() {
            return Some(response.status().as_str().to_owned());
        }
        let status = response.headers().get("grpc-status")?;
        match tonic::Code::from_bytes(status.as_bytes()) {
            code @ (tonic::Code::Unknown
            | tonic::Code::Internal
            | tonic::Code::Unavailable
            | tonic::Code::DeadlineExceeded
            | tonic::Code::DataLoss) => Some(code.description().to_owned()),
            _ => None,
        }
    }
}
