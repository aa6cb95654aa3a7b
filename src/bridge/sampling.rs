//! The sampling decision of a transaction.

use sentry_core::{ClientOptions, TracesSamplingStrategy, TransactionContext};

use crate::fields;
use crate::propagation::{IncomingTrace, SampleRand, SampleRate};
use crate::span_ext::AboutRpc;

/// The key under which a `traces_sampler` finds the rate of the service that began the trace.
const PARENT_SAMPLE_RATE: &str = "parent_sample_rate";

/// A decision, and what it was based on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampling {
    /// `None` where tracing is disabled, and no caller has decided.
    pub(crate) sampled: Option<bool>,
    /// The rate of this service; `None` where it did not decide.
    pub(crate) rate: Option<SampleRate>,
    pub(crate) rand: SampleRand,
    /// Whether the sampler decided: it must not be asked a second time.
    pub(crate) by_sampler: bool,
}

impl Sampling {
    /// Leaves the decision to others, as with tracing disabled.
    pub(crate) fn deferred(context: &TransactionContext, incoming: Option<&IncomingTrace>) -> Self {
        Self {
            sampled: context.sampled(),
            rate: None,
            rand: rand(context, incoming),
            by_sampler: false,
        }
    }

    /// Decides by the options: by the sampler, which is called here; else by the decision that
    /// came with the trace; else by the rate.
    ///
    /// See <https://develop.sentry.dev/sdk/telemetry/traces/#sampling>.
    pub(crate) fn decide(
        context: &mut TransactionContext,
        incoming: Option<&IncomingTrace>,
        rpc: Option<&dyn AboutRpc>,
        options: &ClientOptions,
    ) -> Self {
        let rand = rand(context, incoming);
        let (rate, by_sampler) = match &options.traces_sampling_strategy {
            TracesSamplingStrategy::Function(sampler) => {
                describe(context, incoming, rpc);
                (SampleRate::new(sampler(context)), true)
            }
            TracesSamplingStrategy::FixedRate(rate) if context.sampled().is_none() => {
                (SampleRate::new(*rate), false)
            }
            _ => return Self::deferred(context, incoming),
        };
        Self {
            sampled: Some(rand.is_below(rate)),
            rate: Some(rate),
            rand,
            by_sampler,
        }
    }
}

/// Adds what a sampler may want to know, and the context has no field for.
fn describe(
    context: &mut TransactionContext,
    incoming: Option<&IncomingTrace>,
    rpc: Option<&dyn AboutRpc>,
) {
    if let Some(rate) = incoming.and_then(|incoming| incoming.sample_rate) {
        context.custom_insert(PARENT_SAMPLE_RATE.to_owned(), rate.get().into());
    }
    if let Some(rpc) = rpc {
        for (key, value) in [
            (fields::RPC_SYSTEM, "grpc"),
            (fields::RPC_SERVICE, rpc.service()),
            (fields::RPC_METHOD, rpc.method()),
        ] {
            context.custom_insert(key.to_owned(), value.into());
        }
    }
}

/// The `sample_rand` of the trace; where it came without one, one that agrees with the decision
/// that came with it.
fn rand(context: &TransactionContext, incoming: Option<&IncomingTrace>) -> SampleRand {
    let trace_id = context.trace_id();
    let Some(incoming) = incoming else {
        return SampleRand::of_trace(trace_id);
    };
    match (
        incoming.sample_rand,
        incoming.sample_rate,
        incoming.trace.sampled,
    ) {
        (Some(rand), _, _) => rand,
        (None, Some(rate), Some(sampled)) => SampleRand::consistent(trace_id, rate, sampled),
        (None, _, _) => SampleRand::of_trace(trace_id),
    }
}
