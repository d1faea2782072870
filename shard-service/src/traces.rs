//! The spans of a message: `publish` on the shard that took it, within it `bus` until the bus has it,
//! `relay` where the bus delivers it, `deliver` for its readers. A message in a trace that is not kept
//! costs next to nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use infrachat_bus::BusError;
use infrachat_runtime::telemetry::FAILED;
use infrachat_types::{ErrorCode, Message, MessageId, SessionId};
use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan, BoxedTracer},
    propagation::Extractor,
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use tokio::time::Instant;

/// Most readers whose delivery of a message has a span, on one shard.
const READERS: u32 = 100;
/// The header of the W3C, which is also the name of the bus's attribute.
const TRACEPARENT: &str = "traceparent";

static TRACER: LazyLock<BoxedTracer> = LazyLock::new(|| global::tracer("infrachat"));

/// A `traceparent` by itself.
struct Parent<'a>(&'a str);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

fn remote(traceparent: &str) -> Context {
    if traceparent.is_empty() {
        return Context::new();
    }
    let parent = Parent(traceparent);
    global::get_text_map_propagator(|from| from.extract_with_context(&Context::new(), &parent))
}

fn is_kept(context: &Context) -> bool {
    context.span().span_context().is_sampled()
}

/// A message's trace on this shard, for those who read it.
#[derive(Debug)]
pub(crate) struct Traced {
    context: Context,
    readers_left: AtomicU32,
}

impl Traced {
    fn new(context: Context) -> Option<Arc<Self>> {
        is_kept(&context).then(|| {
            Arc::new(Self {
                context,
                readers_left: AtomicU32::new(READERS),
            })
        })
    }
}

/// From a publish to its answer.
#[derive(Debug)]
pub(crate) struct PublishSpan {
    context: Context,
    began: Instant,
    /// Since it was handed to the bus, if the trace is kept.
    on_bus: Option<BoxedSpan>,
}

impl PublishSpan {
    /// In the client's trace, if it names one; since the shard began to look at the message.
    pub(crate) fn begin(traceparent: &str, message: &Message, began: Instant) -> Self {
        let parent = remote(traceparent);
        let builder = SpanBuilder::from_name("publish")
            .with_kind(SpanKind::Producer)
            .with_start_time(opentelemetry::time::now() - began.elapsed());
        let span = TRACER.build_with_context(builder, &parent);
        let context = parent.with_span(span);
        if is_kept(&context) {
            context.span().set_attributes(attributes(message));
        }
        Self {
            context,
            began,
            on_bus: None,
        }
    }

    /// What readers' spans follow, if the trace is kept.
    pub(crate) fn traced(&self) -> Option<Arc<Traced>> {
        Traced::new(self.context.clone())
    }

    /// What goes over the bus: nothing when the trace is not kept.
    pub(crate) fn traceparent(&self) -> String {
        if !is_kept(&self.context) {
            return String::new();
        }
        let mut carrier = HashMap::new();
        global::get_text_map_propagator(|to| to.inject_context(&self.context, &mut carrier));
        carrier.remove(TRACEPARENT).unwrap_or_default()
    }

    /// It is handed to the bus, maybe once more.
    pub(crate) fn handed_over(&mut self) {
        if is_kept(&self.context) {
            let builder = SpanBuilder::from_name("bus").with_kind(SpanKind::Client);
            self.on_bus = Some(TRACER.build_with_context(builder, &self.context));
        }
    }

    /// The bus has answered.
    pub(crate) fn answered(&mut self, outcome: Result<(), &BusError>) {
        if let Some(mut span) = self.on_bus.take() {
            if let Err(err) = outcome {
                span.set_status(Status::error(err.to_string()));
            }
            span.end();
        }
    }

    /// The sender hears that the bus has it.
    pub(crate) fn acked(&self, message_id: MessageId) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new(
            "infrachat.message_id",
            message_id.to_string(),
        ));
        span.end();
    }

    /// The sender hears that it was not taken. A failure of ours is kept even when the trace is not.
    pub(crate) fn refused(&self, message: &Message, code: ErrorCode) {
        let span = self.context.span();
        let status = Status::error(code.as_str());
        if is_kept(&self.context) {
            span.set_attribute(KeyValue::new(FAILED, code.as_str()));
            span.set_status(status);
        } else if matches!(code, ErrorCode::Unavailable | ErrorCode::Internal) {
            let failed = KeyValue::new(FAILED, code.as_str());
            let builder = SpanBuilder::from_name("publish")
                .with_kind(SpanKind::Producer)
                .with_start_time(opentelemetry::time::now() - self.began.elapsed())
                .with_attributes(attributes(message).into_iter().chain([failed]));
            let mut kept = TRACER.build_with_context(builder, &self.context);
            kept.set_status(status);
            kept.end();
        }
        span.end();
    }
}

fn attributes(message: &Message) -> [KeyValue; 2] {
    [
        KeyValue::new("infrachat.channel", message.channel.to_string()),
        KeyValue::new("infrachat.session", message.session_id.to_string()),
    ]
}

/// From the bus's delivery to the log, if the message's trace is kept.
pub(crate) struct RelaySpan(Option<Arc<Traced>>);

impl RelaySpan {
    pub(crate) fn begin(traceparent: &str, message: &Message) -> Self {
        let parent = remote(traceparent);
        if !is_kept(&parent) {
            return Self(None);
        }
        let builder = SpanBuilder::from_name("relay")
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes(message));
        let span = TRACER.build_with_context(builder, &parent);
        Self(Traced::new(parent.with_span(span)))
    }

    /// What readers' spans follow.
    pub(crate) fn traced(&self) -> Option<Arc<Traced>> {
        self.0.clone()
    }

    pub(crate) fn end(self, duplicate: bool) {
        if let Some(traced) = self.0 {
            let span = traced.context.span();
            span.set_attribute(KeyValue::new("infrachat.duplicate", duplicate));
            span.end();
        }
    }
}

/// From the log to the frame that carries it to a reader.
pub(crate) fn deliver(traced: &Traced, appended: Instant, reader: &SessionId) {
    let one_less = |left: u32| left.checked_sub(1);
    let left = &traced.readers_left;
    if left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
        .is_err()
    {
        return;
    }
    let builder = SpanBuilder::from_name("deliver")
        .with_kind(SpanKind::Consumer)
        .with_start_time(opentelemetry::time::now() - appended.elapsed())
        .with_attributes([KeyValue::new("infrachat.session", reader.to_string())]);
    TRACER.build_with_context(builder, &traced.context).end();
}
