//! The trace that a local root is part of.

use std::sync::{Arc, OnceLock};

use sentry_core::protocol::{SpanId, TraceId};
use sentry_core::{Client, TransactionOrSpan};

use crate::bridge::sampling::Sampling;
use crate::propagation::{SamplingContext, SentryTrace, TraceHead, TraceHeaders, W3cSpanContext};

/// The trace of a local root, as other services and Sentry are told of it.
#[derive(Debug)]
pub(crate) struct RootTrace {
    /// The ids of the root's span, as another service would be told them.
    root: SentryTrace,
    source: ContextSource,
    /// The `tracestate` that the trace came with: opaque, and passed on.
    state: String,
}

/// Where the sampling context comes from.
#[derive(Debug)]
enum ContextSource {
    /// The trace begins with this root.
    Head {
        sampling: Sampling,
        client: Arc<Client>,
        /// Set when it is first handed out: it must not change after that.
        settled: OnceLock<SamplingContext>,
    },
    /// The service that began the trace has set it.
    Settled(SamplingContext),
}

impl RootTrace {
    /// For a trace that begins here.
    pub(crate) fn head(root: &SentryTrace, sampling: Sampling, client: Arc<Client>) -> Self {
        Self {
            root: *root,
            source: ContextSource::Head {
                sampling,
                client,
                settled: OnceLock::new(),
            },
            state: String::new(),
        }
    }

    /// For a trace whose sampling context is settled already.
    pub(crate) fn settled(root: &SentryTrace, sampling_context: SamplingContext) -> Self {
        Self {
            root: *root,
            source: ContextSource::Settled(sampling_context),
            state: String::new(),
        }
    }

    /// Takes over the `tracestate` of `w3c`, if that names the same trace.
    pub(crate) fn with_state_of(mut self, w3c: Option<&W3cSpanContext>) -> Self {
        let same = w3c.filter(|w3c| w3c.trace_id == self.root.trace_id);
        self.state = same.map(|w3c| w3c.state.clone()).unwrap_or_default();
        self
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.root.trace_id
    }

    pub(crate) fn sampled(&self) -> Option<bool> {
        self.root.sampled
    }

    pub(crate) fn root_id(&self) -> SpanId {
        self.root.span_id
    }

    /// The sampling context, settled from now on. The first call asks `transaction` for the name
    /// that goes into it.
    pub(crate) fn sampling_context(
        &self,
        transaction: impl FnOnce() -> Option<String>,
    ) -> &SamplingContext {
        match &self.source {
            ContextSource::Head {
                sampling,
                client,
                settled,
            } => settled.get_or_init(|| {
                SamplingContext::head(TraceHead {
                    trace_id: self.root.trace_id,
                    sampled: sampling.sampled,
                    sample_rate: sampling.rate,
                    sample_rand: sampling.rand,
                    // Without a decision there may be no transaction to name.
                    transaction: sampling.sampled.and_then(|_| transaction()),
                    client: Arc::clone(client),
                })
            }),
            ContextSource::Settled(context) => context,
        }
    }

    /// The headers that go from `span`, else from the root, to another service.
    ///
    /// `part` is the current part of the root, unless that is the first. `w3c` has the ids of
    /// the span in OpenTelemetry, or of the nearest span around it that has some: if the trace is
    /// the same there, they also name a span that Sentry does not record.
    pub(crate) fn headers(
        &self,
        span: Option<&TransactionOrSpan>,
        part: Option<SpanId>,
        w3c: Option<&W3cSpanContext>,
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
            W3cSpanContext::clone,
        );
        TraceHeaders::new(&trace, w3c, baggage)
    }
}
