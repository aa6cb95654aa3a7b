//! What a request takes along.

use http::HeaderMap;
use tracing::Span;

use crate::span_ext::ext::SentrySpanExt;
#[cfg(feature = "opentelemetry")]
use crate::span_ext::otel;

/// Adds the headers of the trace of `span`, with `traceparent` if that is wanted.
pub(crate) fn inject(span: &Span, wants_traceparent: bool, headers: &mut HeaderMap) {
    let trace = span.trace_headers();
    if let Some(trace) = &trace {
        trace.inject(headers);
    }
    if !wants_traceparent {
        return;
    }
    // Without Sentry, OpenTelemetry's trace goes on all the same.
    #[cfg(feature = "opentelemetry")]
    if let Some(alone) = otel::otel_span_alone(span) {
        alone.inject(headers);
        return;
    }
    if let Some(trace) = trace {
        trace.inject_traceparent(headers);
    }
}
