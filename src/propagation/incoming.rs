//! The trace that an incoming request belongs to.

use http::HeaderMap;
use sentry_core::ClientOptions;
use sentry_core::protocol::OrganizationId;

use crate::propagation::baggage::{self, BAGGAGE, Baggage};
use crate::propagation::outgoing::TraceHeaders;
use crate::propagation::sample::{SampleRand, SampleRate};
use crate::propagation::sentry_trace::{SENTRY_TRACE_HEADER, SentryTrace};
use crate::propagation::trace_format::{TraceFormat, TraceFormats};
use crate::propagation::traceparent::{self, TRACEPARENT, TRACESTATE};
use crate::propagation::w3c_span::W3cSpan;

/// A trace that somebody else began.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IncomingTrace {
    pub(crate) trace: SentryTrace,
    /// Its members of Sentry's.
    pub(crate) baggage: Baggage,
    pub(crate) sample_rate: Option<SampleRate>,
    pub(crate) sample_rand: Option<SampleRand>,
    org_id: Option<OrganizationId>,
    /// Named by `traceparent`.
    is_w3c: bool,
    /// The span that `traceparent` names, also beside `sentry-trace`: of the same trace
    /// or of another one.
    pub(crate) w3c: Option<W3cSpan>,
}

/// What the headers of a request say, by name.
#[derive(Default)]
struct Values<'a> {
    sentry_trace: Vec<&'a str>,
    traceparent: Vec<&'a str>,
    tracestate: Vec<&'a str>,
    baggage: Vec<&'a str>,
}

impl Values<'_> {
    /// Of several it is not known which one is meant.
    fn w3c(&self) -> Option<W3cSpan> {
        match self.traceparent.as_slice() {
            [value] => Some(traceparent::parse(value)?.with_state(self.tracestate.join(","))),
            _ => None,
        }
    }
}

impl IncomingTrace {
    /// By the first of `formats` that is there and valid.
    pub(crate) fn from_headers(headers: &HeaderMap, formats: &TraceFormats) -> Option<Self> {
        let values = |name| {
            let values = headers.get_all(name).iter();
            values.filter_map(|value| value.to_str().ok()).collect()
        };
        let values = Values {
            sentry_trace: values(SENTRY_TRACE_HEADER),
            traceparent: values(TRACEPARENT),
            tracestate: values(TRACESTATE),
            baggage: values(BAGGAGE),
        };
        Self::new(&values, formats)
    }

    /// From headers of any protocol. Names may be of any case.
    pub(crate) fn from_pairs<'k, 'v>(
        headers: impl IntoIterator<Item = (&'k str, &'v str)>,
    ) -> Option<Self> {
        let mut values = Values::default();
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

    /// As who receives `headers` has it, with whatever state it has for others.
    pub(crate) fn from_own(headers: &TraceHeaders) -> Option<Self> {
        let incoming = Self::from_pairs(headers.iter())?;
        Some(Self {
            w3c: Some(headers.w3c().clone()),
            ..incoming
        })
    }

    /// From the value of a `sentry-trace` header alone.
    pub(crate) fn from_sentry_trace(value: &str) -> Option<Self> {
        let values = Values {
            sentry_trace: vec![value],
            ..Values::default()
        };
        Self::new(&values, &TraceFormats::default())
    }

    /// The span that a span of OpenTelemetry is a child of. Whether Sentry samples the
    /// trace does not say whether OpenTelemetry does.
    pub(crate) fn otel_parent(&self) -> W3cSpan {
        self.w3c.clone().unwrap_or_else(|| W3cSpan {
            is_sampled: true,
            ..self.trace.to_w3c()
        })
    }

    /// Whether its head knows nothing of Sentry.
    pub(crate) fn is_foreign(&self) -> bool {
        self.is_w3c && self.baggage.as_str().is_none()
    }

    /// `None` where no format is there. Of several values of `sentry-trace`, the first
    /// valid one counts; all values of `baggage` are one list.
    fn new(values: &Values<'_>, formats: &TraceFormats) -> Option<Self> {
        let w3c = values.w3c();
        let read = |format| match format {
            TraceFormat::SentryTrace => {
                let mut values = values.sentry_trace.iter();
                values.find_map(|value| SentryTrace::parse(value))
            }
            TraceFormat::Traceparent => w3c.as_ref().map(SentryTrace::of_w3c),
        };
        let known = |format| read(format).map(|trace| (format, trace));
        let (format, trace) = formats.iter().find_map(known)?;
        let mut baggage = Baggage::default();
        for list in &values.baggage {
            baggage.extend_sentry(list);
        }
        let org_id = first_value(&baggage, "org_id", |id| id.parse().ok());
        let is_of_trace = |id: &str| id.parse().is_ok_and(|id| trace.trace_id == id);
        if first_value(&baggage, "trace_id", |id| Some(is_of_trace(id))) == Some(false) {
            // What it says of another trace does not hold for this one.
            baggage = Baggage::default();
        }
        Some(Self {
            trace,
            is_w3c: format == TraceFormat::Traceparent,
            w3c: w3c.filter(|_| formats.iter().any(|one| one == TraceFormat::Traceparent)),
            sample_rate: first_value(&baggage, "sample_rate", SampleRate::parse),
            sample_rand: first_value(&baggage, "sample_rand", SampleRand::parse),
            org_id,
            baggage,
        })
    }

    /// Whether a client with these options goes on with the trace. An
    /// organization must not continue the traces of another one.
    ///
    /// See <https://develop.sentry.dev/sdk/foundations/trace-propagation/#strict-trace-continuation>.
    pub(crate) fn is_for(&self, options: &ClientOptions) -> bool {
        match (self.org_id, org_id(options)) {
            (Some(theirs), Some(ours)) => theirs == ours,
            (Some(_), None) | (None, Some(_)) => !options.strict_trace_continuation,
            (None, None) => true,
        }
    }
}

/// The organization that a client reports to, if it is known.
pub(crate) fn org_id(options: &ClientOptions) -> Option<OrganizationId> {
    options.org_id.or_else(|| options.dsn.as_ref()?.org_id())
}

/// The first value of `sentry-<key>` that `parse` takes.
pub(crate) fn first_value<T>(
    baggage: &Baggage,
    key: &str,
    mut parse: impl FnMut(&str) -> Option<T>,
) -> Option<T> {
    let list = baggage.as_str()?;
    baggage::members(list)
        .filter(|member| baggage::sentry_key(member) == Some(key))
        .find_map(|member| parse(&baggage::value(member)?))
}
