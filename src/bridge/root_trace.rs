//! The trace that a local root is part of.

use std::sync::{Arc, OnceLock};

use sentry_core::protocol::{SpanId, TraceId};
use sentry_core::{Client, TransactionOrSpan};

use crate::bridge::sampling::Sampling;
use crate::propagation::{Head, SamplingContext, SentryTrace, TraceHeaders};

/// What a local root tells others of its trace.
#[derive(Debug)]
pub(crate) struct RootTrace {
    trace_id: TraceId,
    sampled: Option<bool>,
    origin: TraceOrigin,
    /// Set when it first leaves: it must not change from then on.
    context: OnceLock<SamplingContext>,
}

/// Who speaks for the trace.
#[derive(Debug)]
enum TraceOrigin {
    /// This root: it is the head.
    Here {
        sampling: Sampling,
        client: Arc<Client>,
    },
    /// Somebody before it, once and for all.
    Elsewhere,
}

impl RootTrace {
    /// Of a trace that begins here.
    pub(crate) fn head(trace_id: TraceId, sampling: Sampling, client: Arc<Client>) -> Self {
        Self {
            trace_id,
            sampled: sampling.sampled,
            origin: TraceOrigin::Here { sampling, client },
            context: OnceLock::new(),
        }
    }

    /// Of a trace whose sampling context is settled.
    pub(crate) fn settled(
        trace_id: TraceId,
        sampled: Option<bool>,
        context: SamplingContext,
    ) -> Self {
        Self {
            trace_id,
            sampled,
            origin: TraceOrigin::Elsewhere,
            context: context.into(),
        }
    }

    /// What Sentry is told. It leaves with this: `transaction` is asked at the
    /// first time for the name to leave with.
    pub(crate) fn sampling_context(
        &self,
        transaction: impl FnOnce() -> Option<String>,
    ) -> &SamplingContext {
        self.context.get_or_init(|| match &self.origin {
            TraceOrigin::Here { sampling, client } => SamplingContext::head(Head {
                trace_id: self.trace_id,
                sampled: sampling.sampled,
                sample_rate: sampling.rate,
                sample_rand: sampling.rand,
                // Where nobody has decided, there is nothing to name yet.
                transaction: sampling.sampled.and_then(|_| transaction()),
                client: Arc::clone(client),
            }),
            TraceOrigin::Elsewhere => SamplingContext::empty(),
        })
    }

    /// What goes from `span` to another service.
    pub(crate) fn headers(
        &self,
        span: &TransactionOrSpan,
        transaction: impl FnOnce() -> Option<String>,
    ) -> TraceHeaders {
        let trace = SentryTrace {
            trace_id: self.trace_id,
            span_id: span_id(span),
            sampled: self.sampled,
        };
        let baggage = self.sampling_context(transaction).baggage().clone();
        TraceHeaders::new(&trace, baggage)
    }
}

fn span_id(span: &TransactionOrSpan) -> SpanId {
    match span {
        TransactionOrSpan::Transaction(transaction) => transaction.get_trace_context().span_id,
        TransactionOrSpan::Span(span) => span.get_span_id(),
    }
}
