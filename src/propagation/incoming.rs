//! The trace that an incoming request belongs to.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};
use sentry_core::ClientOptions;
use sentry_core::protocol::OrganizationId;

use crate::propagation::context::{BAGGAGE, ReceivedContext};
use crate::propagation::outgoing::TraceHeaders;
use crate::propagation::sentry_trace::{SENTRY_TRACE_HEADER, SentryTrace};
use crate::propagation::trace_format::{TraceFormat, TraceFormats};
use crate::propagation::traceparent::{self, TRACEPARENT, TRACESTATE};
use crate::propagation::w3c_span_context::W3cSpanContext;

/// A trace that somebody else began.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IncomingTrace {
    pub(crate) trace: SentryTrace,
    /// The Sentry members of its `baggage`.
    pub(crate) context: ReceivedContext,
    /// Whether `traceparent` named it, and not `sentry-trace`.
    is_w3c: bool,
    /// The span that `traceparent` names. Beside a `sentry-trace`, that may be of another trace.
    pub(crate) w3c: Option<W3cSpanContext>,
}

/// The values of the trace headers of a request.
#[derive(Default)]
struct TraceHeaderValues<'a> {
    sentry_trace: HeaderValues<'a>,
    traceparent: HeaderValues<'a>,
    tracestate: HeaderValues<'a>,
    baggage: HeaderValues<'a>,
}

/// The values of one header, of which there seldom are several.
#[derive(Default)]
struct HeaderValues<'a> {
    first: Option<&'a str>,
    others: Vec<&'a str>,
}

impl<'a> HeaderValues<'a> {
    fn push(&mut self, value: &'a str) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => self.others.push(value),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &'a str> {
        self.first.into_iter().chain(self.others.iter().copied())
    }

    fn only(&self) -> Option<&'a str> {
        self.first.filter(|_| self.others.is_empty())
    }

    fn joined(&self) -> Cow<'a, str> {
        match self.only() {
            Some(value) => value.into(),
            None => self.iter().collect::<Vec<_>>().join(",").into(),
        }
    }
}

impl<'a> TraceHeaderValues<'a> {
    /// The values of the header of this name, in upper or lower case.
    fn of(&mut self, name: &str) -> Option<&mut HeaderValues<'a>> {
        let known = [
            (SENTRY_TRACE_HEADER, &mut self.sentry_trace),
            (TRACEPARENT, &mut self.traceparent),
            (TRACESTATE, &mut self.tracestate),
            (BAGGAGE, &mut self.baggage),
        ];
        let mut known = known.into_iter();
        let (_, values) = known.find(|(known, _)| name.eq_ignore_ascii_case(known))?;
        Some(values)
    }

    /// `None` for several values: which one is meant is not known.
    fn w3c(&self) -> Option<W3cSpanContext> {
        let span = traceparent::parse(self.traceparent.only()?)?;
        Some(span.with_state(self.tracestate.joined()))
    }
}

impl IncomingTrace {
    /// Read from the first of `formats` that is there and valid.
    pub(crate) fn from_headers(headers: &HeaderMap, formats: &TraceFormats) -> Option<Self> {
        let mut values = TraceHeaderValues::default();
        for (name, value) in headers {
            if let Some(values) = values.of(name.as_str())
                && let Some(value) = text(value)
            {
                values.push(value);
            }
        }
        Self::new(&values, formats)
    }

    /// Read from headers of any protocol, with names in upper or lower case.
    pub(crate) fn from_pairs<'k, 'v>(
        headers: impl IntoIterator<Item = (&'k str, &'v str)>,
    ) -> Option<Self> {
        let mut values = TraceHeaderValues::default();
        for (name, value) in headers {
            if let Some(values) = values.of(name) {
                values.push(value);
            }
        }
        Self::new(&values, &TraceFormats::default())
    }

    /// The trace as a service that receives `headers` would read it, with its `tracestate`.
    pub(crate) fn from_own(headers: &TraceHeaders) -> Option<Self> {
        let incoming = Self::from_pairs(headers.iter())?;
        Some(Self {
            w3c: Some(headers.w3c().clone()),
            ..incoming
        })
    }

    /// From the value of a `sentry-trace` header alone.
    pub(crate) fn from_sentry_trace(value: &str) -> Option<Self> {
        Self::from_pairs([(SENTRY_TRACE_HEADER, value)])
    }

    /// The parent for a span in OpenTelemetry. Without a `traceparent` it counts as sampled: what
    /// Sentry samples has nothing to do with what OpenTelemetry does.
    pub(crate) fn otel_parent(&self) -> W3cSpanContext {
        self.w3c.clone().unwrap_or_else(|| W3cSpanContext {
            is_sampled: true,
            ..self.trace.to_w3c()
        })
    }

    /// Whether the service that began it knows nothing of Sentry.
    pub(crate) fn is_foreign(&self) -> bool {
        self.is_w3c && self.context.baggage.as_str().is_none()
    }

    /// `None` where no format is there. Of several values of `sentry-trace`, the first
    /// valid one counts; all values of `baggage` are one list.
    fn new(values: &TraceHeaderValues<'_>, formats: &TraceFormats) -> Option<Self> {
        let reads_w3c = formats.iter().any(|one| one == TraceFormat::Traceparent);
        let w3c = reads_w3c.then(|| values.w3c()).flatten();
        let read = |format| match format {
            TraceFormat::SentryTrace => {
                let mut values = values.sentry_trace.iter();
                values.find_map(SentryTrace::parse)
            }
            TraceFormat::Traceparent => w3c.as_ref().map(SentryTrace::of_w3c),
        };
        let known = |format| read(format).map(|trace| (format, trace));
        let (format, trace) = formats.iter().find_map(known)?;
        Some(Self {
            trace,
            is_w3c: format == TraceFormat::Traceparent,
            w3c,
            context: ReceivedContext::read(values.baggage.iter(), trace.trace_id),
        })
    }

    /// Whether a client with these options may continue the trace: not if it is one of another
    /// organization.
    ///
    /// See <https://develop.sentry.dev/sdk/foundations/trace-propagation/#strict-trace-continuation>.
    pub(crate) fn is_for(&self, options: &ClientOptions) -> bool {
        match (self.context.org_id, options.strict_trace_continuation) {
            (None, false) => true,
            (theirs, is_strict) => match (theirs, org_id(options)) {
                (Some(theirs), Some(ours)) => theirs == ours,
                (Some(_), None) | (None, Some(_)) => !is_strict,
                (None, None) => true,
            },
        }
    }
}

/// As `HeaderValue::to_str`, which takes several times as long.
fn text(value: &HeaderValue) -> Option<&str> {
    let text = str::from_utf8(value.as_bytes()).ok();
    text.filter(|text| text.is_ascii())
}

/// The organization that a client reports to, if it is known.
pub(crate) fn org_id(options: &ClientOptions) -> Option<OrganizationId> {
    options.org_id.or_else(|| options.dsn.as_ref()?.org_id())
}
