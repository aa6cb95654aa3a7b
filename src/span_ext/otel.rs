//! What a span in OpenTelemetry is told past its fields.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Array, Context, KeyValue, StringValue};
use sentry_core::protocol::Value;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::propagation::IncomingTrace;
use crate::span_ext::thread_guard::guarded;

/// The current context, but in the remote span that `traceparent` names, or else
/// `sentry-trace`. `None` where that is no span.
pub(crate) fn remote_context(trace: &IncomingTrace) -> Option<Context> {
    let parent = trace.otel_parent();
    let (trace_id, span_id) = (parent.trace_id(), parent.span_id());
    let parent = SpanContext::new(
        TraceId::from_bytes(trace_id),
        SpanId::from_bytes(span_id),
        TraceFlags::default().with_sampled(parent.is_sampled()),
        true,
        // One that cannot be read is dropped, as W3C says.
        parent.state().parse::<TraceState>().unwrap_or_default(),
    );
    // What else the application has put there stays, as its baggage.
    let current = Context::current();
    parent
        .is_valid()
        .then(|| current.with_remote_span_context(parent))
}

/// Nothing happens where no OpenTelemetry layer is there, or where that has started the
/// span.
pub(crate) fn set_parent(span: &Span, context: Context) {
    guarded(|| span.set_parent(context).ok());
}

/// Sets attributes that are lists of texts, of which the fields of tracing know nothing.
pub(crate) fn set_attributes(span: &Span, attributes: Vec<(String, Value)>) {
    for (name, value) in attributes {
        let Value::Array(texts) = value else { continue };
        let texts = texts.iter().filter_map(Value::as_str);
        let texts = texts.map(|text| StringValue::from(text.to_owned()));
        let texts = Array::String(texts.collect());
        guarded(|| span.set_attribute(name, opentelemetry::Value::Array(texts)));
    }
}

/// Adds an event; what it says is asked only where OpenTelemetry records the span.
pub(crate) fn add_event(
    span: &Span,
    name: &'static str,
    attributes: impl FnOnce() -> Option<Vec<(&'static str, String)>>,
) {
    guarded(|| {
        let context = span.context();
        let span = context.span();
        if span.is_recording()
            && let Some(attributes) = attributes()
        {
            let attributes = attributes.into_iter();
            let attributes = attributes.map(|(name, text)| KeyValue::new(name, text));
            span.add_event(name, attributes.collect());
        }
    });
}
