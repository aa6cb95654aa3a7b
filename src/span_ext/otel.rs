//! The parent that a span has in OpenTelemetry.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
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
        let context = Context::new().with_remote_span_context(parent);
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
