//! The remote parent of a span in OpenTelemetry.

use tracing::Span;

use crate::propagation::{IncomingTrace, W3cSpan};
#[cfg(feature = "opentelemetry")]
use crate::span_ext::otel;
use crate::span_ext::sink::sink;
use crate::span_ext::thread_guard::guarded;

/// Tells an OpenTelemetry layer of the parent of a span that was not yet entered.
pub(crate) type OtelParentFn = fn(&Span, &W3cSpan);

/// What a trace is to OpenTelemetry.
#[derive(Debug)]
pub(crate) struct OtelParent<'a> {
    trace: &'a IncomingTrace,
    #[cfg(feature = "opentelemetry")]
    context: Option<opentelemetry::Context>,
}

impl<'a> OtelParent<'a> {
    pub(crate) fn of(trace: &'a IncomingTrace) -> Self {
        Self {
            trace,
            #[cfg(feature = "opentelemetry")]
            context: otel::remote_context(trace),
        }
    }

    /// Where spans are made that belong to the trace: for a layer that cannot be told of
    /// a parent, as in `reload::Layer`, and looks at the current context.
    #[cfg_attr(
        not(feature = "opentelemetry"),
        expect(clippy::unused_self, reason = "there is no context")
    )]
    pub(crate) fn attached<T>(&self, f: impl FnOnce() -> T) -> T {
        #[cfg(feature = "opentelemetry")]
        let _attached = self.context.clone().map(opentelemetry::Context::attach);
        f()
    }

    /// Tells of it as the parent of `span`, where that has not started.
    pub(crate) fn tell(self, span: &Span) {
        let tell = sink(span).and_then(|sink| sink.otel_parent());
        if let Some(tell) = tell {
            guarded(|| tell(span, &self.trace.otel_parent()));
        }
        #[cfg(feature = "opentelemetry")]
        if tell.is_none()
            && let Some(context) = self.context
        {
            otel::set_parent(span, context);
        }
    }
}
