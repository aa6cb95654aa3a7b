//! The problems that a check finds, and their texts.

use std::fmt;

/// A problem that [`check_setup`](crate::check_setup) finds.
///
/// `Display` writes the problem and then the fix, each sentence on a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SetupProblem {
    /// The hub of the [`SentryTracingLayer`](crate::SentryTracingLayer) has no Sentry client. If
    /// the layer has no hub of its own, neither the current hub nor the main hub has one.
    NoClient,
    /// The client has no DSN, so it sends nothing.
    NoDsn,
    /// The client has no transport, so it sends nothing.
    NoTransport,
    /// The client is closed, for example because the guard of `sentry_tonic::init` or
    /// `sentry::init` was dropped.
    ClientClosed,
    /// The thread has no `tracing` subscriber.
    NoSubscriber,
    /// The subscriber has no [`SentryTracingLayer`](crate::SentryTracingLayer).
    LayerMissing,
    /// A filter, or `span_level`, hides the spans of calls from the
    /// [`SentryTracingLayer`](crate::SentryTracingLayer).
    SpansFiltered,
    /// The subscriber has more than one [`SentryTracingLayer`](crate::SentryTracingLayer).
    DuplicateLayer,
    /// sentry-tracing's `SpanLayer`, or `sentry::integrations::tracing::layer()`, makes
    /// transactions of the same spans.
    ConflictingSpanLayer,
    /// sentry-tracing's `ErrorLayer` sends the same `ERROR` events.
    ConflictingErrorLayer,
    /// sentry-tower's `SentryHttpLayer` makes an additional HTTP transaction of each gRPC call.
    ///
    /// It is found once such a transaction was sent by a client with a
    /// [`TraceTransport`](crate::TraceTransport), if calls have passed through a
    /// [`SentryServerLayer`](crate::SentryServerLayer). A `SentryHttpLayer` on an HTTP server that
    /// calls gRPC services is no problem.
    ConflictingHttpLayer,
    /// A call passed through two [`SentryServerLayer`](crate::SentryServerLayer)s. It is found once
    /// there was such a call.
    DuplicateServerLayer,
    /// A call passed through two [`SentryClientLayer`](crate::SentryClientLayer)s. It is found once
    /// there was such a call.
    DuplicateClientLayer,
}

impl SetupProblem {
    fn what(self) -> &'static str {
        match self {
            Self::NoClient => "No Sentry client is bound to the hub that reports calls.",
            Self::NoDsn => "The Sentry client has no DSN, so it sends nothing.",
            Self::NoTransport => "The Sentry client has no transport, so it sends nothing.",
            Self::ClientClosed => "The Sentry client is closed, so it sends nothing.",
            Self::NoSubscriber => "This thread has no tracing subscriber.",
            Self::LayerMissing => "The tracing subscriber has no SentryTracingLayer.",
            Self::SpansFiltered => {
                "A filter hides the spans of calls from SentryTracingLayer.\n\
                 They have the target sentry_tonic and the level INFO."
            }
            Self::DuplicateLayer => "The tracing subscriber has more than one SentryTracingLayer.",
            Self::ConflictingSpanLayer => {
                "Another layer makes transactions of the same spans: sentry-tracing's SpanLayer \
                 or sentry_tracing::layer()."
            }
            Self::ConflictingErrorLayer => {
                "sentry-tracing's ErrorLayer sends the same ERROR events as SentryTracingLayer.\n\
                 Errors outside of calls arrive twice."
            }
            Self::ConflictingHttpLayer => {
                "sentry-tower's SentryHttpLayer makes an additional HTTP transaction of each gRPC \
                 call.\n\
                 It reports failed calls as ok."
            }
            Self::DuplicateServerLayer => "A call passed through two SentryServerLayers.",
            Self::DuplicateClientLayer => "A call passed through two SentryClientLayers.",
        }
    }

    fn fix(self) -> &'static str {
        match self {
            Self::NoClient => {
                "call sentry_tonic::init, or sentry::init, first in main, before the runtime \
                 starts.\n\
                 If main does so, `cargo tree -i sentry-core` must list one version."
            }
            Self::NoDsn => {
                "set ClientOptions::dsn, or the environment variable SENTRY_DSN, which \
                 sentry_tonic::init and sentry::init read.\n\
                 They ignore a value of SENTRY_DSN that is not a DSN: it must be \
                 https://<key>@<host>/<project>."
            }
            Self::NoTransport => {
                "create the client with sentry_tonic::init, or with sentry::init, and enable a \
                 transport feature of sentry, such as reqwest or ureq.\n\
                 Or set ClientOptions::transport."
            }
            Self::ClientClosed => {
                "hold the guard of sentry_tonic::init, or of sentry::init, until the servers have \
                 stopped.\n\
                 `let _guard =` holds it, `let _ =` drops it at once."
            }
            Self::NoSubscriber => {
                "call `tracing_subscriber::registry().with(SentryTracingLayer::new()).init()` \
                 before this check and before the server starts."
            }
            Self::LayerMissing => {
                "add `.with(SentryTracingLayer::new())` to the registry.\n\
                 Only the first subscriber that calls `init` is used."
            }
            Self::SpansFiltered => {
                "add sentry_tonic=info to the EnvFilter or to RUST_LOG, or give each layer a \
                 filter of its own with `with_filter`.\n\
                 The filter and the span_level of SentryTracingLayer must pass INFO."
            }
            Self::DuplicateLayer => {
                "keep one.\n\
                 The first layer records all spans, but each layer sends the errors outside of \
                 spans."
            }
            Self::ConflictingSpanLayer => "remove it. SentryTracingLayer replaces it.",
            Self::ConflictingErrorLayer => {
                "remove it, or set SentryTracingLayer::capture_errors(false)."
            }
            Self::ConflictingHttpLayer => {
                "remove it from the gRPC server.\n\
                 On an HTTP server that calls gRPC services, or forwards gRPC requests to another \
                 process, it can stay."
            }
            Self::DuplicateServerLayer => {
                "keep one, either on the server or on the service.\n\
                 Only the options of the outer one have an effect."
            }
            Self::DuplicateClientLayer => {
                "keep one. sentry_tonic::channel and sentry_tonic::connect add one to each \
                 channel.\n\
                 Only the options of the outer one have an effect."
            }
        }
    }
}

impl fmt::Display for SetupProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nFix: {}", self.what(), self.fix())
    }
}
