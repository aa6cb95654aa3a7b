//! The dynamic sampling context: what the service that begins a trace (its head) tells all others
//! and Sentry, so that Sentry can sample the trace as a whole.
//!
//! See <https://develop.sentry.dev/sdk/foundations/trace-propagation/dynamic-sampling-context/>.

use std::sync::{Arc, OnceLock};

use sentry_core::protocol::{DynamicSamplingContext, OrganizationId, TraceContext, TraceId};
use sentry_core::{Client, TracesSamplingStrategy};

use crate::propagation::context::baggage::{Baggage, BaggageWriter};
use crate::propagation::context::envelope_context::EnvelopeContext;
use crate::propagation::context::received_context::ReceivedContext;
use crate::propagation::id::{self, Hex};
use crate::propagation::incoming::{IncomingTrace, org_id};
use crate::propagation::sample::{SampleRand, SampleRate};
use crate::propagation::sentry_trace::SentryTrace;

/// A dynamic sampling context, which does not change any more.
#[derive(Debug)]
pub(crate) enum SamplingContext {
    /// As it arrived. A trace that came without one stays without.
    Frozen(ReceivedContext),
    /// For a trace that begins here.
    Head {
        head: TraceHead,
        org_id: Option<OrganizationId>,
        baggage: OnceLock<Baggage>,
    },
}

/// What is known of a trace that begins here.
#[derive(Debug)]
pub(crate) struct TraceHead {
    pub(crate) trace_id: TraceId,
    /// `None` where the decision is left to others.
    pub(crate) sampled: Option<bool>,
    pub(crate) sample_rate: Option<SampleRate>,
    pub(crate) sample_rand: SampleRand,
    pub(crate) transaction: Option<String>,
    pub(crate) client: Arc<Client>,
}

impl SamplingContext {
    /// For a trace that is continued: nothing is added or changed.
    pub(crate) fn frozen(incoming: &IncomingTrace) -> Self {
        Self::Frozen(incoming.context.clone())
    }

    /// For a trace of which nothing more is known.
    pub(crate) fn empty() -> Self {
        Self::Frozen(ReceivedContext::default())
    }

    pub(crate) fn head(head: TraceHead) -> Self {
        Self::Head {
            // Kept, as it may have to be parsed out of the DSN.
            org_id: org_id(head.client.options()),
            head,
            baggage: OnceLock::new(),
        }
    }

    /// For a trace that the application began by sentry-core, which does not give out its rate and
    /// its random number.
    pub(crate) fn of_application(
        trace: &SentryTrace,
        context: Option<&TraceContext>,
        client: &Arc<Client>,
    ) -> Self {
        if context.is_some_and(|context| context.parent_span_id.is_some()) {
            // It began in another service, whose sampling context is lost.
            return Self::empty();
        }
        let strategy = &client.options().traces_sampling_strategy;
        let sample_rate = match (strategy, trace.sampled) {
            (TracesSamplingStrategy::FixedRate(rate), Some(_)) => Some(SampleRate::new(*rate)),
            _ => None,
        };
        let sample_rand = match (sample_rate, trace.sampled) {
            (Some(rate), Some(sampled)) => SampleRand::consistent(trace.trace_id, rate, sampled),
            _ => SampleRand::of_trace(trace.trace_id),
        };
        // A decision that contradicts the rate was made otherwise: then the rate is left out. One
        // that agrees may have been, too, but that cannot be seen.
        let is_consistent = |rate: &SampleRate| trace.sampled == Some(sample_rand.is_below(*rate));
        Self::head(TraceHead {
            trace_id: trace.trace_id,
            sampled: trace.sampled,
            sample_rate: sample_rate.filter(is_consistent),
            sample_rand,
            transaction: None,
            client: Arc::clone(client),
        })
    }

    /// The context for other services.
    pub(crate) fn baggage(&self) -> &Baggage {
        match self {
            Self::Frozen(context) => &context.baggage,
            Self::Head {
                head,
                org_id,
                baggage,
            } => baggage.get_or_init(|| head.baggage(*org_id)),
        }
    }

    /// The context for the header of an envelope; `None` where Sentry would not accept it.
    pub(crate) fn envelope(&self) -> Option<DynamicSamplingContext> {
        match self {
            Self::Frozen(context) => context.envelope(),
            Self::Head { head, org_id, .. } => head.envelope(*org_id),
        }
    }
}

impl TraceHead {
    fn baggage(&self, org_id: Option<OrganizationId>) -> Baggage {
        let options = self.client.options();
        let mut baggage = BaggageWriter::default();
        // First the members without which the others are no use: the limits cut from the end.
        let trace_id = Hex::new(id::trace_id(self.trace_id));
        baggage.push_plain("sentry-trace_id=", trace_id.as_str());
        if let Some(key) = non_empty(self.public_key()) {
            baggage.push_text("sentry-public_key=", key);
        }
        if let Some(rate) = self.sample_rate {
            baggage.push_plain("sentry-sample_rate=", &rate.to_string());
        }
        baggage.push_plain("sentry-sample_rand=", &self.sample_rand.to_string());
        if let Some(sampled) = self.sampled {
            let sampled = if sampled { "true" } else { "false" };
            baggage.push_plain("sentry-sampled=", sampled);
        }
        if let Some(id) = org_id {
            baggage.push_plain("sentry-org_id=", &id.to_string());
        }
        for (key, value) in [
            ("sentry-environment=", options.environment.as_deref()),
            ("sentry-release=", options.release.as_deref()),
            ("sentry-transaction=", self.transaction.as_deref()),
        ] {
            if let Some(value) = non_empty(value) {
                baggage.push_text(key, value);
            }
        }
        baggage.finish()
    }

    fn envelope(&self, org_id: Option<OrganizationId>) -> Option<DynamicSamplingContext> {
        let options = self.client.options();
        let text = |value| non_empty(value).map(str::to_owned);
        let context = EnvelopeContext {
            trace_id: self.trace_id,
            public_key: text(self.public_key())?,
            sample_rate: self.sample_rate,
            sample_rand: Some(self.sample_rand),
            sampled: self.sampled,
            release: text(options.release.as_deref()),
            environment: text(options.environment.as_deref()),
            transaction: text(self.transaction.as_deref()),
            org_id,
        };
        Some(context.typed())
    }

    fn public_key(&self) -> Option<&str> {
        self.client.dsn().map(|dsn| dsn.public_key())
    }
}

fn non_empty(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}
