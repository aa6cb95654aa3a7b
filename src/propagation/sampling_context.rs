//! The dynamic sampling context: what the head of a trace tells everybody of
//! it, for Sentry to sample the trace as a whole.
//!
//! See <https://develop.sentry.dev/sdk/foundations/trace-propagation/dynamic-sampling-context/>.

use sentry_core::protocol::{self, DynamicSamplingContext, TraceContext, TraceId};
use sentry_core::{ClientOptions, TracesSamplingStrategy};

use crate::propagation::baggage::Baggage;
use crate::propagation::incoming::{IncomingTrace, first, org_id};
use crate::propagation::sample::{SampleRand, SampleRate};
use crate::propagation::sentry_trace::SentryTrace;

/// In both forms in which it leaves.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct SamplingContext {
    /// For other services.
    pub(crate) baggage: Baggage,
    /// For Sentry; `None` where it would be of no use to it.
    pub(crate) envelope: Option<DynamicSamplingContext>,
}

/// What is known of a trace that begins here.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) trace_id: TraceId,
    /// `None` where the decision is left to others.
    pub(crate) sampled: Option<bool>,
    pub(crate) sample_rate: Option<SampleRate>,
    pub(crate) sample_rand: SampleRand,
    pub(crate) transaction: Option<&'a str>,
    pub(crate) options: &'a ClientOptions,
}

impl Head<'_> {
    pub(crate) fn sampling_context(&self) -> SamplingContext {
        let Self {
            trace_id,
            sampled,
            sample_rate,
            sample_rand,
            transaction,
            options,
        } = self;
        let public_key = options.dsn.as_ref().map(|dsn| dsn.public_key());
        let rate = sample_rate.map(|rate| rate.to_string());
        let sampled = sampled.map(|sampled| if sampled { "true" } else { "false" });
        let org_id = org_id(options).map(|id| id.to_string());
        let mut baggage = Baggage::default();
        let mut push = |key, value: Option<&str>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                baggage.push_sentry(key, value);
            }
        };
        // What all others are of no use without comes first.
        push("trace_id", Some(&trace_id.to_string()));
        push("public_key", public_key);
        push("sample_rate", rate.as_deref());
        push("sample_rand", Some(&sample_rand.to_string()));
        push("sampled", sampled);
        push("org_id", org_id.as_deref());
        push("environment", options.environment.as_deref());
        push("release", options.release.as_deref());
        push("transaction", *transaction);
        SamplingContext::new(baggage)
    }
}

impl SamplingContext {
    /// That of a trace which goes on here: nothing is added, and nothing
    /// changed. A trace that came without one stays without.
    pub(crate) fn frozen(incoming: &IncomingTrace) -> Self {
        Self::new(incoming.baggage.clone())
    }

    /// For a trace of the application's own making, of which sentry-core tells
    /// less than it knows.
    pub(crate) fn of_application(
        trace: &SentryTrace,
        context: Option<&TraceContext>,
        options: &ClientOptions,
    ) -> Self {
        if context.is_some_and(|context| context.parent_span_id.is_some()) {
            // It has a head elsewhere, whose word is lost.
            return Self::default();
        }
        let sample_rate = match (&options.traces_sampling_strategy, trace.sampled) {
            (TracesSamplingStrategy::FixedRate(rate), Some(_)) => Some(SampleRate::new(*rate)),
            _ => None,
        };
        let sample_rand = match (sample_rate, trace.sampled) {
            (Some(rate), Some(sampled)) => SampleRand::consistent(trace.trace_id, rate, sampled),
            _ => SampleRand::of_trace(trace.trace_id),
        };
        // One that was asked for was not taken at the rate.
        let is_consistent = |rate: &SampleRate| trace.sampled == Some(sample_rand.is_below(*rate));
        Head {
            trace_id: trace.trace_id,
            sampled: trace.sampled,
            sample_rate: sample_rate.filter(is_consistent),
            sample_rand,
            transaction: None,
            options,
        }
        .sampling_context()
    }

    fn new(baggage: Baggage) -> Self {
        Self {
            envelope: envelope(&baggage),
            baggage,
        }
    }
}

/// As much as the type of sentry-types holds; `None` without the two keys that
/// Sentry takes none without.
fn envelope(baggage: &Baggage) -> Option<DynamicSamplingContext> {
    let text = |key| first(baggage, key, |value| Some(value.to_owned()));
    let trace_id = first(baggage, "trace_id", |id| id.parse().ok())?;
    let mut context = DynamicSamplingContext::new()
        .with_trace_id(trace_id)
        .with_public_key(text("public_key")?);
    if let Some(rate) = first(baggage, "sample_rate", SampleRate::parse) {
        context = context.with_sample_rate(rate.get());
    }
    let rand = first(baggage, "sample_rand", SampleRand::parse);
    if let Some(rand) = rand.and_then(|rand| protocol::SampleRand::try_from(rand.get()).ok()) {
        context = context.with_sample_rand(rand);
    }
    if let Some(sampled) = first(baggage, "sampled", |value| value.parse().ok()) {
        context = context.with_sampled(sampled);
    }
    if let Some(release) = text("release") {
        context = context.with_release(release);
    }
    if let Some(environment) = text("environment") {
        context = context.with_environment(environment);
    }
    if let Some(transaction) = text("transaction") {
        context = context.with_transaction(transaction);
    }
    if let Some(org_id) = first(baggage, "org_id", |id| id.parse().ok()) {
        context = context.with_org_id(org_id);
    }
    Some(context)
}
