//! What can be wrong, in plain words.

use std::error::Error;
use std::fmt;

/// What [`check_setup`](crate::check_setup) has found. Displayed, it says what is wrong, and
/// on the next line what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SetupProblem {
    /// Neither the current hub nor the main one has a Sentry client, nor the hub of the layer
    /// where that has one.
    NoClient,
    /// The client was made without a DSN, and sends nothing.
    NoDsn,
    /// The client was made without a transport, and sends nothing.
    NoTransport,
    /// The client was closed, as by the end of the guard of `sentry::init`.
    ClientClosed,
    /// The client has neither a `traces_sample_rate` nor a `traces_sampler`.
    TracingDisabled,
    /// There is no subscriber for `tracing`.
    NoSubscriber,
    /// There is a subscriber, without a [`SentryTracingLayer`](crate::SentryTracingLayer) in it.
    LayerMissing,
    /// The layer is there, and does not see the spans of calls: a filter, or its `span_level`,
    /// leaves them out.
    SpansFiltered,
    /// There is more than one [`SentryTracingLayer`](crate::SentryTracingLayer) in the subscriber.
    DuplicateLayer,
    /// sentry-tracing's `SpanLayer`, or `sentry::integrations::tracing::layer()`, makes
    /// transactions of the same spans.
    ConflictingSpanLayer,
    /// sentry-tracing's `ErrorLayer` sends the same `ERROR` events.
    ConflictingErrorLayer,
    /// A call came through two [`SentryServerLayer`](crate::SentryServerLayer)s. Found once there
    /// was such a call.
    DuplicateServerLayer,
    /// A call went through two [`SentryClientLayer`](crate::SentryClientLayer)s. Found once there
    /// was such a call.
    DuplicateClientLayer,
}

impl SetupProblem {
    fn is_wrong(self) -> &'static str {
        match self {
            Self::NoClient => "No Sentry client is bound to the current hub or the main one.",
            Self::NoDsn => "The Sentry client has no DSN, and sends nothing.",
            Self::NoTransport => "The Sentry client has no transport, and sends nothing.",
            Self::ClientClosed => "The Sentry client is closed, and sends nothing.",
            Self::TracingDisabled => "Tracing is disabled: errors are sent, transactions are not.",
            Self::NoSubscriber => "There is no subscriber for tracing on this thread.",
            Self::LayerMissing => "The subscriber has no SentryTracingLayer.",
            Self::SpansFiltered => {
                "A filter keeps the spans of calls, of the target sentry_tonic and the level \
                 INFO, from SentryTracingLayer."
            }
            Self::DuplicateLayer => "The subscriber has more than one SentryTracingLayer.",
            Self::ConflictingSpanLayer => {
                "Another layer makes Sentry transactions of the same spans: sentry-tracing's \
                 SpanLayer, or sentry_tracing::layer()."
            }
            Self::ConflictingErrorLayer => {
                "sentry-tracing's ErrorLayer sends the ERROR events that SentryTracingLayer sends: outside \
                 of calls they arrive twice."
            }
            Self::DuplicateServerLayer => "A call came through two SentryServerLayers.",
            Self::DuplicateClientLayer => "A call went through two SentryClientLayers.",
        }
    }

    fn to_do(self) -> &'static str {
        match self {
            Self::NoClient => {
                "Call sentry::init first in main, before the runtime starts. If you do: its \
                 sentry-core may be another one than ours, see `cargo tree -i sentry-core`."
            }
            Self::NoDsn => "Set ClientOptions::dsn, or SENTRY_DSN in the environment.",
            Self::NoTransport => {
                "Make it by sentry::init, with a feature of sentry such as ureq, or set \
                 ClientOptions::transport."
            }
            Self::ClientClosed => {
                "Hold the guard of sentry::init until the servers have stopped: not `let _ =`, \
                 but `let _guard =`."
            }
            Self::TracingDisabled => {
                "Set ClientOptions::traces_sample_rate, or traces_sampler. With a rate of 0 a \
                 service sends what its callers sample."
            }
            Self::NoSubscriber => {
                "Call `tracing_subscriber::registry().with(SentryTracingLayer::new()).init()` \
                 first, before this check and before the server starts."
            }
            Self::LayerMissing => {
                "Add `.with(SentryTracingLayer::new())` to the registry, whose `init` must be the \
                 only one."
            }
            Self::SpansFiltered => {
                "Give each other layer a filter of its own, by `with_filter`. Or add \
                 sentry_tonic=info to the EnvFilter or RUST_LOG, or set the filter and the \
                 span_level of SentryTracingLayer to INFO."
            }
            Self::DuplicateLayer => {
                "Leave one: the first has all spans, and what is in them; outside of spans both \
                 send each error."
            }
            Self::ConflictingSpanLayer => {
                "Remove it: SentryTracingLayer takes its place for all spans."
            }
            Self::ConflictingErrorLayer => {
                "Remove it, or set SentryTracingLayer::capture_errors(false)."
            }
            Self::DuplicateServerLayer | Self::DuplicateClientLayer => {
                "Leave one, on the server or on its service, on the channel or on the client: \
                 the options of the outer one count, those of the inner one do not."
            }
        }
    }
}

impl fmt::Display for SetupProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.is_wrong(), self.to_do())
    }
}

impl Error for SetupProblem {}
