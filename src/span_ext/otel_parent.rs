//! The remote parent of a span in OpenTelemetry.

use tracing::Span;

use crate::propagation::{IncomingTrace, W3cSpanContext};
#[cfg(feature = "opentelemetry")]
use crate::span_ext::otel;
use crate::span_ext::sink::sink;
use crate::span_ext::thread_guard::guarded;

/// Sets the parent of a span that was not yet entered in an OpenTelemetry layer.
pub(crate) type OtelParentFn = fn(&Span, &W3cSpanContext);

/// An incoming trace as the parent of spans in OpenTelemetry.
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

    /// Runs `f`, which makes the span, in the context of the parent: for a layer that cannot be
    /// reached, as in `reload::Layer`, and takes the parent from the current context.
    #[cfg_attr(
        not(feature = "opentelemetry"),
        expect(clippy::unused_self, reason = "there is no context")
    )]
    pub(crate) fn attached<T>(&self, f: impl FnOnce() -> T) -> T {
        #[cfg(feature = "opentelemetry")]
        let _attached = self.context.clone().map(opentelemetry::Context::attach);
        f()
    }

    /// Sets it as the parent of `span`, if that has not started.
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
