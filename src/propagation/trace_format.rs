//! The headers by which a request may name its trace.

use std::sync::Arc;

/// A header by which a request names the trace that it belongs to.
///
/// See [`SentryServerLayer::incoming_trace_formats`](crate::SentryServerLayer::incoming_trace_formats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TraceFormat {
    /// [`sentry-trace`](https://develop.sentry.dev/sdk/foundations/trace-propagation/#header-sentry-trace),
    /// as Sentry's SDKs send it.
    SentryTrace,
    /// [`traceparent`](https://www.w3.org/TR/trace-context/#traceparent-header), as
    /// OpenTelemetry sends it.
    ///
    /// With the flag `01` the trace is sampled; without it, that is decided here.
    Traceparent,
}

/// The formats that are read, in order: the first that a request has counts.
#[derive(Debug, Clone)]
pub(crate) struct TraceFormats(Arc<[TraceFormat]>);

impl TraceFormats {
    pub(crate) fn new(formats: impl IntoIterator<Item = TraceFormat>) -> Self {
        Self(formats.into_iter().collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = TraceFormat> {
        self.0.iter().copied()
    }
}

impl Default for TraceFormats {
    fn default() -> Self {
        Self::new([TraceFormat::SentryTrace, TraceFormat::Traceparent])
    }
}
