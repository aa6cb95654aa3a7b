//! The trace that a local root is part of.

use std::sync::{Arc, OnceLock};

use sentry_core::protocol::{SpanId, TraceId};
use sentry_core::{Client, TransactionOrSpan};

use crate::bridge::sampling::Sampling;
use crate::propagation::{Head, SamplingContext, SentryTrace, TraceHeaders, W3cSpan};

/// What a local root tells others of its trace.
#[derive(Debug)]
pub(crate) struct RootTrace {
    /// As another service would be told of the root.
    root: SentryTrace,
    source: Source,
    /// The `tracestate` that it came with, which belongs to others.
    state: String,
}

/// Where the sampling context comes from.
#[derive(Debug)]
enum Source {
    /// This root: it is the head.
    Head {
        sampling: Sampling,
        client: Arc<Client>,
        /// Set when it first leaves: it must not change from then on.
        settled: OnceLock<SamplingContext>,
    },
    /// From somebody before, once and for all.
    Settled(SamplingContext),
}

impl RootTrace {
    /// Of a trace that begins here.
    pub(crate) fn head(root: &SentryTrace, sampling: Sampling, client: Arc<Client>) -> Self {
        Self {
            root: *root,
            source: Source::Head {
                sampling,
                client,
                settled: OnceLock::new(),
            },
            state: String::new(),
        }
    }

    /// Of a trace whose sampling context is settled.
    pub(crate) fn settled(root: &SentryTrace, sampling_context: SamplingContext) -> Self {
        Self {
            root: *root,
            source: Source::Settled(sampling_context),
            state: String::new(),
        }
    }

    /// Where W3C's Trace Context names the same trace, it goes on with its state too.
    pub(crate) fn with_state_of(mut self, w3c: Option<&W3cSpan>) -> Self {
        let same = w3c.filter(|w3c| w3c.trace_id == self.root.trace_id);
        self.state = same.map(|w3c| w3c.state.clone()).unwrap_or_default();
        self
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.root.trace_id
    }

    pub(crate) fn root_id(&self) -> SpanId {
        self.root.span_id
    }

    /// What is settled of the trace. It leaves with this: `transaction` is asked at
    /// the first time for the name to leave with.
    pub(crate) fn sampling_context(
        &self,
        transaction: impl FnOnce() -> Option<String>,
    ) -> &SamplingContext {
        match &self.source {
            Source::Head {
                sampling,
                client,
                settled,
            } => settled.get_or_init(|| {
                SamplingContext::head(Head {
                    trace_id: self.root.trace_id,
                    sampled: sampling.sampled,
                    sample_rate: sampling.rate,
                    sample_rand: sampling.rand,
                    // Where nobody has decided, there is nothing to name yet.
                    transaction: sampling.sampled.and_then(|_| transaction()),
                    client: Arc::clone(client),
                })
            }),
            Source::Settled(context) => context,
        }
    }

    /// What goes from `span`, else from the root, to another service. `part` is that of the root
    /// which is current, where it is not the first. `w3c` is what
    /// OpenTelemetry knows of the span, or of the nearest around it that it knows: where
    /// the trace is the same there, so is a span that Sentry does not record.
    pub(crate) fn headers(
        &self,
        span: Option<&TransactionOrSpan>,
        part: Option<SpanId>,
        w3c: Option<&W3cSpan>,
        transaction: impl FnOnce() -> Option<String>,
    ) -> TraceHeaders {
        let same = w3c.filter(|w3c| w3c.trace_id == self.root.trace_id);
        let trace = SentryTrace {
            span_id: match (span, same) {
                (Some(TransactionOrSpan::Span(span)), _) => span.get_span_id(),
                (Some(TransactionOrSpan::Transaction(_)), same) => part
                    .or(same.map(|same| same.span_id))
                    .unwrap_or(self.root.span_id),
                (None, _) => self.root.span_id,
            },
            ..self.root
        };
        let baggage = self.sampling_context(transaction).baggage().clone();
        let w3c = w3c.map_or_else(
            || trace.to_w3c().with_state(self.state.as_str()),
            W3cSpan::clone,
        );
        TraceHeaders::new(&trace, w3c, baggage)
    }
}
