//! The sampling decision of a transaction.

use sentry_core::protocol::TraceId;
use sentry_core::{ClientOptions, TracesSamplingStrategy, TransactionContext};

use crate::fields;
use crate::propagation::{IncomingTrace, SampleRand, SampleRate};
use crate::span_ext::{AboutRpc, guarded};

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
}

impl Sampling {
    /// Leaves the decision to others, as with tracing disabled.
    pub(crate) fn deferred(trace_id: TraceId, incoming: Option<&IncomingTrace>) -> Self {
        Self {
            sampled: incoming.and_then(|incoming| incoming.trace.sampled),
            rate: None,
            rand: rand(trace_id, incoming),
        }
    }

    /// Decides by the options: by the sampler, which is called here; else by the decision that
    /// came with the trace; else by the rate. Where the sampler panics, as if there were none.
    ///
    /// See <https://develop.sentry.dev/sdk/telemetry/traces/#sampling>.
    ///
    /// `context` makes what a sampler is given.
    pub(crate) fn decide(
        trace_id: TraceId,
        incoming: Option<&IncomingTrace>,
        rpc: Option<&dyn AboutRpc>,
        options: &ClientOptions,
        context: impl FnOnce(Option<bool>) -> TransactionContext,
    ) -> Self {
        let deferred = Self::deferred(trace_id, incoming);
        let rate = match &options.traces_sampling_strategy {
            TracesSamplingStrategy::Function(sampler) => {
                let mut context = context(deferred.sampled);
                describe(&mut context, incoming, rpc);
                guarded(|| sampler(&context))
            }
            TracesSamplingStrategy::FixedRate(rate) if deferred.sampled.is_none() => Some(*rate),
            _ => None,
        };
        let Some(rate) = rate.map(SampleRate::new) else {
            return deferred;
        };
        Self {
            sampled: Some(deferred.rand.is_below(rate)),
            rate: Some(rate),
            ..deferred
        }
    }
}

/// Adds what a sampler may want to know, and the context has no field for.
fn describe(
    context: &mut TransactionContext,
    incoming: Option<&IncomingTrace>,
    rpc: Option<&dyn AboutRpc>,
) {
    if let Some(rate) = incoming.and_then(|incoming| incoming.context.sample_rate) {
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
fn rand(trace_id: TraceId, incoming: Option<&IncomingTrace>) -> SampleRand {
    let Some(incoming) = incoming else {
        return SampleRand::of_trace(trace_id);
    };
    match (
        incoming.context.sample_rand,
        incoming.context.sample_rate,
        incoming.trace.sampled,
    ) {
        (Some(rand), _, _) => rand,
        (None, Some(rate), Some(sampled)) => SampleRand::consistent(trace_id, rate, sampled),
        (None, _, _) => SampleRand::of_trace(trace_id),
    }
}
