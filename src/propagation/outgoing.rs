//! The headers that take a trace to another service.

use http::header::{HeaderMap, HeaderValue};

use crate::propagation::context::{BAGGAGE, Baggage};
use crate::propagation::sentry_trace::{SENTRY_TRACE_HEADER, SENTRY_TRACE_NAME, SentryTrace};
use crate::propagation::traceparent::{self, TRACEPARENT_NAME, TRACESTATE_NAME};
use crate::propagation::w3c_span_context::W3cSpanContext;

/// The [headers that continue a trace](https://develop.sentry.dev/sdk/foundations/trace-propagation/)
/// in another service: `sentry-trace`, and `baggage` with Sentry's sampling
/// context.
///
/// Made by [`SentrySpanExt::trace_headers`](crate::SentrySpanExt::trace_headers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceHeaders {
    sentry_trace: String,
    w3c: W3cSpanContext,
    baggage: Baggage,
}

impl TraceHeaders {
    /// `w3c` has the ids for `traceparent`, which may be those of OpenTelemetry.
    pub(crate) fn new(trace: &SentryTrace, w3c: W3cSpanContext, baggage: Baggage) -> Self {
        Self {
            sentry_trace: trace.to_text(),
            w3c,
            baggage,
        }
    }

    pub(crate) fn w3c(&self) -> &W3cSpanContext {
        &self.w3c
    }

    /// The value of `sentry-trace`: trace, span, and the sampling decision
    /// where there is one.
    #[must_use]
    pub fn sentry_trace(&self) -> &str {
        &self.sentry_trace
    }

    /// The value of [`traceparent`](https://www.w3.org/TR/trace-context/#traceparent-header),
    /// which names the same span to services that know nothing of Sentry. It is not
    /// among what [`iter`](Self::iter) and [`inject`](Self::inject) hand on.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.w3c.to_string()
    }

    /// Sentry's members of `baggage`, within the limits of 8192 bytes and 64
    /// members; `None` where the trace came without any.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.baggage.as_str()
    }

    /// Names and values, for a carrier that starts without `baggage`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let baggage = self.baggage().map(|baggage| (BAGGAGE, baggage));
        std::iter::once((SENTRY_TRACE_HEADER, self.sentry_trace())).chain(baggage)
    }

    /// Sets `sentry-trace`, and adds to the `baggage` that is there.
    ///
    /// Members of others stay; those of Sentry are replaced. A member that the [grammar] does not
    /// allow is dropped, because some services refuse a whole `baggage` for it. Members that would
    /// take `baggage` over 8192 bytes or 64 members are left out, and so is what a full map has no
    /// room for. The map of a `tonic::Request` is `request.metadata_mut().as_mut()`.
    ///
    /// [grammar]: https://www.w3.org/TR/baggage/#baggage-http-header-format
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.sentry_trace)
            && headers.try_insert(SENTRY_TRACE_NAME, value).is_ok()
        {
            self.baggage.append_to(headers);
        }
    }

    /// Sets `traceparent`. Sets `tracestate` too, if an OpenTelemetry layer has one for the span
    /// or the trace came with one; else a `tracestate` that is there stays. Only its first members
    /// are passed on, up to 8192 bytes and 32 members.
    pub fn inject_traceparent(&self, headers: &mut HeaderMap) {
        self.w3c.inject(headers);
    }
}

impl W3cSpanContext {
    pub(crate) fn inject(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.to_string()) {
            // A `tracestate` is no use without it.
            if headers.try_insert(TRACEPARENT_NAME, value).is_err() {
                return;
            }
        }
        if let Some(value) = traceparent::state_header(&self.state) {
            let _ = headers.try_insert(TRACESTATE_NAME, value);
        }
    }
}
