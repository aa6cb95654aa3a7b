//! What a span in OpenTelemetry is told past its fields.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Array, Context, StringValue};
use sentry_core::protocol::Value;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::propagation::{IncomingTrace, W3cSpan};
use crate::span_ext::thread_guard::guarded;

/// Makes `span` a child of the remote span that `traceparent` names, or else
/// `sentry-trace`. Nothing happens where no OpenTelemetry layer is there, or where
/// that has started the span.
pub(crate) fn set_parent(span: &Span, trace: &IncomingTrace) {
    let parent = trace.otel_parent();
    if let Some(parent) = context(&parent) {
        // What else the application has put there stays, as its baggage.
        let context = Context::current().with_remote_span_context(parent);
        guarded(|| span.set_parent(context).ok());
    }
}

fn context(span: &W3cSpan) -> Option<SpanContext> {
    // A state that cannot be read is dropped, as W3C says.
    let state = span.state.parse::<TraceState>().unwrap_or_default();
    let flags = TraceFlags::default().with_sampled(span.is_sampled);
    // Sentry's ids are bytes that are only shown as text.
    let trace_id = TraceId::from_hex(&span.trace_id.to_string()).ok()?;
    let span_id = SpanId::from_hex(&span.span_id.to_string()).ok()?;
    Some(SpanContext::new(trace_id, span_id, flags, true, state))
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
