//! The trace that an incoming request belongs to.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use sentry_core::ClientOptions;
use sentry_core::protocol::OrganizationId;

use crate::propagation::baggage::{BAGGAGE, BAGGAGE_NAME, Baggage, value};
use crate::propagation::id;
use crate::propagation::outgoing::TraceHeaders;
use crate::propagation::sample::{SampleRand, SampleRate};
use crate::propagation::sentry_trace::{SENTRY_TRACE_HEADER, SENTRY_TRACE_NAME, SentryTrace};
use crate::propagation::trace_format::{TraceFormat, TraceFormats};
use crate::propagation::traceparent::{
    self, TRACEPARENT, TRACEPARENT_NAME, TRACESTATE, TRACESTATE_NAME,
};
use crate::propagation::w3c_span_context::W3cSpanContext;

/// A trace that somebody else began.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IncomingTrace {
    pub(crate) trace: SentryTrace,
    /// The Sentry members of its `baggage`.
    pub(crate) baggage: Arc<Baggage>,
    pub(crate) sample_rate: Option<SampleRate>,
    pub(crate) sample_rand: Option<SampleRand>,
    org_id: Option<OrganizationId>,
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

impl<'a> FromIterator<&'a str> for HeaderValues<'a> {
    fn from_iter<I: IntoIterator<Item = &'a str>>(values: I) -> Self {
        let mut values = values.into_iter();
        Self {
            first: values.next(),
            others: values.collect(),
        }
    }
}

impl TraceHeaderValues<'_> {
    /// `None` for several values: which one is meant is not known.
    fn w3c(&self) -> Option<W3cSpanContext> {
        let span = traceparent::parse(self.traceparent.only()?)?;
        Some(span.with_state(self.tracestate.joined()))
    }
}

impl IncomingTrace {
    /// Read from the first of `formats` that is there and valid.
    pub(crate) fn from_headers(headers: &HeaderMap, formats: &TraceFormats) -> Option<Self> {
        let values = |name: HeaderName| -> HeaderValues<'_> {
            let values = headers.get_all(name).iter();
            values.filter_map(|value| value.to_str().ok()).collect()
        };
        let (sentry_trace, traceparent) = (values(SENTRY_TRACE_NAME), values(TRACEPARENT_NAME));
        sentry_trace.first.or(traceparent.first)?;
        let values = TraceHeaderValues {
            sentry_trace,
            traceparent,
            tracestate: values(TRACESTATE_NAME),
            baggage: values(BAGGAGE_NAME),
        };
        Self::new(&values, formats)
    }

    /// Read from headers of any protocol, with names in upper or lower case.
    pub(crate) fn from_pairs<'k, 'v>(
        headers: impl IntoIterator<Item = (&'k str, &'v str)>,
    ) -> Option<Self> {
        let mut values = TraceHeaderValues::default();
        for (name, value) in headers {
            for (known, values) in [
                (SENTRY_TRACE_HEADER, &mut values.sentry_trace),
                (TRACEPARENT, &mut values.traceparent),
                (TRACESTATE, &mut values.tracestate),
                (BAGGAGE, &mut values.baggage),
            ] {
                if name.eq_ignore_ascii_case(known) {
                    values.push(value);
                }
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
        let values = TraceHeaderValues {
            sentry_trace: HeaderValues::from_iter([value]),
            ..TraceHeaderValues::default()
        };
        Self::new(&values, &TraceFormats::default())
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
        self.is_w3c && self.baggage.as_str().is_none()
    }

    /// `None` where no format is there. Of several values of `sentry-trace`, the first
    /// valid one counts; all values of `baggage` are one list.
    fn new(values: &TraceHeaderValues<'_>, formats: &TraceFormats) -> Option<Self> {
        let w3c = values.w3c();
        let read = |format| match format {
            TraceFormat::SentryTrace => {
                let mut values = values.sentry_trace.iter();
                values.find_map(SentryTrace::parse)
            }
            TraceFormat::Traceparent => w3c.as_ref().map(SentryTrace::of_w3c),
        };
        let known = |format| read(format).map(|trace| (format, trace));
        let (format, trace) = formats.iter().find_map(known)?;
        let mut baggage = Baggage::default();
        let mut said = BaggageFacts::default();
        for list in values.baggage.iter() {
            baggage.extend_sentry(list, |key, member| said.read(key, member, &trace));
        }
        let BaggageFacts {
            org_id,
            mut sample_rate,
            mut sample_rand,
            is_of_trace,
        } = said;
        if is_of_trace == Some(false) {
            // It belongs to another trace.
            baggage = Baggage::default();
            (sample_rate, sample_rand) = (None, None);
        }
        Some(Self {
            trace,
            is_w3c: format == TraceFormat::Traceparent,
            w3c: w3c.filter(|_| formats.iter().any(|one| one == TraceFormat::Traceparent)),
            sample_rate,
            sample_rand,
            org_id,
            baggage: Arc::new(baggage),
        })
    }

    /// Whether a client with these options may continue the trace: not if it is one of another
    /// organization.
    ///
    /// See <https://develop.sentry.dev/sdk/foundations/trace-propagation/#strict-trace-continuation>.
    pub(crate) fn is_for(&self, options: &ClientOptions) -> bool {
        match (self.org_id, options.strict_trace_continuation) {
            (None, false) => true,
            (theirs, is_strict) => match (theirs, org_id(options)) {
                (Some(theirs), Some(ours)) => theirs == ours,
                (Some(_), None) | (None, Some(_)) => !is_strict,
                (None, None) => true,
            },
        }
    }
}

/// The organization that a client reports to, if it is known.
pub(crate) fn org_id(options: &ClientOptions) -> Option<OrganizationId> {
    options.org_id.or_else(|| options.dsn.as_ref()?.org_id())
}

/// What the members of `baggage` say that is used here.
#[derive(Default)]
struct BaggageFacts {
    org_id: Option<OrganizationId>,
    sample_rate: Option<SampleRate>,
    sample_rand: Option<SampleRand>,
    is_of_trace: Option<bool>,
}

impl BaggageFacts {
    fn read(&mut self, key: &str, member: &str, trace: &SentryTrace) {
        match key {
            "org_id" => keep_first(&mut self.org_id, || value(member)?.parse().ok()),
            "sample_rate" => {
                keep_first(&mut self.sample_rate, || SampleRate::parse(&value(member)?));
            }
            "sample_rand" => {
                keep_first(&mut self.sample_rand, || SampleRand::parse(&value(member)?));
            }
            "trace_id" => keep_first(&mut self.is_of_trace, || {
                let id = id::parse(&value(member)?);
                Some(id.is_some_and(|id| trace.trace_id == id.into()))
            }),
            _ => {}
        }
    }
}

/// Keeps the first of several values that can be read.
pub(crate) fn keep_first<T>(kept: &mut Option<T>, read: impl FnOnce() -> Option<T>) {
    if kept.is_none() {
        *kept = read();
    }
}
