//! The trace that an incoming request belongs to.

use http::HeaderMap;
use sentry_core::ClientOptions;
use sentry_core::protocol::OrganizationId;

use crate::propagation::baggage::{self, BAGGAGE, Baggage};
use crate::propagation::sample::{SampleRand, SampleRate};
use crate::propagation::sentry_trace::{SENTRY_TRACE_HEADER, SentryTrace};

/// A trace that somebody else began.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IncomingTrace {
    pub(crate) trace: SentryTrace,
    /// Its members of Sentry's.
    pub(crate) baggage: Baggage,
    pub(crate) sample_rate: Option<SampleRate>,
    pub(crate) sample_rand: Option<SampleRand>,
    org_id: Option<OrganizationId>,
}

impl IncomingTrace {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let traces = headers.get_all(SENTRY_TRACE_HEADER).iter();
        let lists = headers.get_all(BAGGAGE).iter();
        Self::new(
            traces.filter_map(|value| value.to_str().ok()),
            lists.filter_map(|value| value.to_str().ok()),
        )
    }

    /// From headers of any protocol. Names may be of any case.
    pub(crate) fn from_pairs<'k, 'v>(
        headers: impl IntoIterator<Item = (&'k str, &'v str)>,
    ) -> Option<Self> {
        let mut traces = Vec::new();
        let mut lists = Vec::new();
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(SENTRY_TRACE_HEADER) {
                traces.push(value);
            } else if name.eq_ignore_ascii_case(BAGGAGE) {
                lists.push(value);
            }
        }
        Self::new(traces, lists)
    }

    /// From the value of a `sentry-trace` header alone.
    pub(crate) fn from_sentry_trace(value: &str) -> Option<Self> {
        Self::new([value], [])
    }

    /// `None` where there is no valid `sentry-trace`. Of several, the first
    /// valid one counts; all values of `baggage` are one list.
    fn new<'a>(
        traces: impl IntoIterator<Item = &'a str>,
        lists: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let trace = traces.into_iter().find_map(SentryTrace::parse)?;
        let mut baggage = Baggage::default();
        for list in lists {
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
