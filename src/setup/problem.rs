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
    /// There is a subscriber, without a [`SentryGrpcLayer`](crate::SentryGrpcLayer) in it.
    LayerMissing,
    /// The layer is there, and does not see the spans of calls: a filter, or its `span_level`,
    /// leaves them out.
    SpansFiltered,
    /// There is more than one [`SentryGrpcLayer`](crate::SentryGrpcLayer) in the subscriber.
    LayerTwice,
    /// sentry-tracing's `SpanLayer`, or `sentry::integrations::tracing::layer()`, makes
    /// transactions of the same spans.
    SpanLayerBeside,
    /// sentry-tracing's `ErrorLayer` sends the same `ERROR` events.
    ErrorLayerBeside,
    /// A call came through two [`GrpcServerLayer`](crate::GrpcServerLayer)s. Found once there
    /// was such a call.
    ServerLayerTwice,
    /// A call went through two [`GrpcClientLayer`](crate::GrpcClientLayer)s. Found once there
    /// was such a call.
    ClientLayerTwice,
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
            Self::LayerMissing => "The subscriber has no SentryGrpcLayer.",
            Self::SpansFiltered => {
                "A filter keeps the spans of calls, of the target sentry_tonic and the level \
                 INFO, from SentryGrpcLayer."
            }
            Self::LayerTwice => "The subscriber has more than one SentryGrpcLayer.",
            Self::SpanLayerBeside => {
                "Another layer makes Sentry transactions of the same spans: sentry-tracing's \
                 SpanLayer, or sentry_tracing::layer()."
            }
            Self::ErrorLayerBeside => {
                "sentry-tracing's ErrorLayer sends the ERROR events that SentryGrpcLayer sends: outside \
                 of calls they arrive twice."
            }
            Self::ServerLayerTwice => "A call came through two GrpcServerLayers.",
            Self::ClientLayerTwice => "A call went through two GrpcClientLayers.",
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
                "Call `tracing_subscriber::registry().with(SentryGrpcLayer::new()).init()` \
                 first, before this check and before the server starts."
            }
            Self::LayerMissing => {
                "Add `.with(SentryGrpcLayer::new())` to the registry, whose `init` must be the \
                 only one."
            }
            Self::SpansFiltered => {
                "Give each other layer a filter of its own, by `with_filter`. Or add \
                 sentry_tonic=info to the EnvFilter or RUST_LOG, or set the filter and the \
                 span_level of SentryGrpcLayer to INFO."
            }
            Self::LayerTwice => {
                "Leave one: the first has all spans, and what is in them; outside of spans both \
                 send each error."
            }
            Self::SpanLayerBeside => "Remove it: SentryGrpcLayer takes its place for all spans.",
            Self::ErrorLayerBeside => "Remove it, or set SentryGrpcLayer::capture_errors(false).",
            Self::ServerLayerTwice | Self::ClientLayerTwice => {
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
