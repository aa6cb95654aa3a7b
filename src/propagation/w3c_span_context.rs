//! A span as W3C's Trace Context names it.

use std::fmt;

use sentry_core::protocol::{SpanId, TraceId};

use crate::propagation::id::{self, Hex};

/// A span by the ids that [W3C's Trace Context](https://www.w3.org/TR/trace-context/)
/// names it by, as OpenTelemetry knows it.
///
/// The functions of [`SentryTracingLayer::otel_bridge`] return and receive it.
///
/// [`SentryTracingLayer::otel_bridge`]: crate::SentryTracingLayer::otel_bridge
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct W3cSpanContext {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) is_sampled: bool,
    /// The value of `tracestate`; empty where there is none.
    pub(crate) state: String,
}

impl W3cSpanContext {
    /// From its ids, and whether it is recorded.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) -> Self {
        Self {
            trace_id: trace_id.into(),
            span_id: span_id.into(),
            is_sampled,
            state: String::new(),
        }
    }

    /// With the value of its `tracestate`.
    #[must_use]
    pub fn with_state(self, state: impl Into<String>) -> Self {
        Self {
            state: state.into(),
            ..self
        }
    }

    /// The id of its trace.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        id::trace_id(self.trace_id)
    }

    /// Its own id.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        id::span_id(self.span_id)
    }

    /// Whether it is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The value of `tracestate`; empty where there is none.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.trace_id != TraceId::from([0; 16]) && self.span_id != SpanId::from([0; 8])
    }
}

/// The value of `traceparent`.
impl fmt::Display for W3cSpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (Hex::new(self.trace_id()), Hex::new(self.span_id()));
        let flags = if self.is_sampled { "01" } else { "00" };
        let parts = ["00-", trace_id.as_str(), "-", span_id.as_str(), "-", flags];
        parts.into_iter().try_for_each(|part| f.write_str(part))
    }
}
