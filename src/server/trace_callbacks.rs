//! The callbacks of tower-http's `TraceLayer`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use tower_http::classify::{GrpcFailureClass, ServerErrorsFailureClass};
use tower_http::trace::{MakeSpan, OnBodyChunk, OnEos, OnFailure, OnResponse};
use tracing::Span;

use crate::call::{self, ParkedCall};
use crate::lifecycle::PanicPolicy;
use crate::rpc::{Outcome, RpcSide};
use crate::server::layer::SentryServerLayer;
use crate::server::open::{self, Runner};
use crate::server::options::ServerLayerOptions;

/// Opens the span of each call for tower-http's `TraceLayer`, as a [`SentryServerLayer`]
/// does; with [`SentryTraceCallbacks`] as the other callbacks, Sentry gets what that layer
/// would report.
///
/// For services that have a `TraceLayer` already. Use this or a `SentryServerLayer`, not both: with
/// a `SentryServerLayer`, or another such `TraceLayer`, inside it each call is reported twice.
///
/// ```
/// use sentry_tonic::{SentryMakeSpan, SentryServerLayer, SentryTraceCallbacks};
/// use tonic::transport::Server;
/// use tower_http::trace::TraceLayer;
///
/// let trace = TraceLayer::new_for_grpc()
///     .make_span_with(SentryMakeSpan::new(SentryServerLayer::new()))
///     .on_response(SentryTraceCallbacks)
///     .on_body_chunk(SentryTraceCallbacks)
///     .on_eos(SentryTraceCallbacks)
///     .on_failure(SentryTraceCallbacks);
/// let server = Server::builder().layer(trace);
/// # let _ = server;
/// ```
///
/// # What it takes
///
/// Between the callbacks a call is kept with its span, in tracing-subscriber's `Registry`. On
/// any other subscriber, nothing is recorded after the call has begun.
///
/// `TraceLayer` tells nobody of a call that is dropped. A
/// [`SentryTracingLayer`](crate::SentryTracingLayer) ends it as its span closes: CANCELLED,
/// DEADLINE_EXCEEDED or, after a panic, INTERNAL. Other layers, such as OpenTelemetry's,
/// learn no status of it, and take its last poll for its end.
///
/// A span closes once nobody holds it and all spans in it have closed. So a task that holds
/// one of them delays the end of a dropped call, whose deadline may have passed by then.
/// Spans that are opened while another one closes stay in the `Registry` for good:
/// closures that are called for failures, such as that of
/// [`capture_if`](SentryServerLayer::capture_if), should open none.
///
/// # What `TraceLayer` cannot see
///
/// | | instead |
/// |---|---|
/// | a panic | it is not answered, so that the caller sees a broken stream: add tower-http's `CatchPanicLayer`, or take a [`SentryServerLayer`]. The event is that of `sentry`'s panic integration |
/// | the body of the request | no `rpc.request.message_count`, and no `method_type` if only the requests stream; spans of what polls it alone are not in the call, and of a request that is cut off the status counts that tonic answers with |
/// | the type of an error of the service or of the body | it is UNKNOWN, with its text |
/// | which of the tasks that are given its span runs the call | the panic of any is one of the call, if that is dropped later; and while one is in the span on another thread, what the handler writes to the scope is not kept: give each task a span of its own, `task.instrument(info_span!("task"))` |
/// | an ignored call ([`ignore`](SentryServerLayer::ignore) and so on) | spans in it begin transactions of their own |
/// | a call whose span nobody wants | it is not in the metrics |
/// | calls that are made | nothing is injected: take a [`SentryClientLayer`](crate::SentryClientLayer) or a [`TracePropagationInterceptor`](crate::TracePropagationInterceptor) |
#[derive(Debug, Clone)]
pub struct SentryMakeSpan {
    options: Arc<ServerLayerOptions>,
}

impl SentryMakeSpan {
    /// With the options of `layer`, but for [`panic_policy`](SentryServerLayer::panic_policy): a
    /// panic is left alone.
    #[must_use]
    pub fn new(layer: SentryServerLayer) -> Self {
        Self {
            options: layer.panic_policy(PanicPolicy::Ignore).into_options(),
        }
    }
}

impl Default for SentryMakeSpan {
    fn default() -> Self {
        Self::new(SentryServerLayer::new())
    }
}

impl<B> MakeSpan<B> for SentryMakeSpan {
    /// Disabled for what is no gRPC, and for calls that are left alone.
    fn make_span(&mut self, request: &Request<B>) -> Span {
        if !open::is_call(request.headers()) {
            return Span::none();
        }
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        *head.extensions_mut() = request.extensions().clone();
        let (mut parts, ()) = head.into_parts();
        if call::is_observed(RpcSide::Server, &parts) {
            return Span::none();
        }
        call::saw_layer(RpcSide::Server);
        let (rpc, deadline) = self.options.open(&mut parts, Runner::TraceLayer);
        ParkedCall::park(rpc, deadline)
    }
}

/// The callbacks `on_response`, `on_body_chunk`, `on_eos` and `on_failure` of tower-http's
/// `TraceLayer`, for calls whose span a [`SentryMakeSpan`] has made: they record how the call
/// goes and ends.
///
/// On any other span it does nothing. Your own callbacks can call it first:
///
/// ```
/// use sentry_tonic::SentryTraceCallbacks;
/// use tower_http::classify::GrpcFailureClass;
/// use tower_http::trace::{OnFailure, TraceLayer};
/// use tracing::warn;
///
/// let trace = TraceLayer::new_for_grpc().on_failure(
///     |failure: GrpcFailureClass, latency, span: &tracing::Span| {
///         warn!(%failure, "a call has failed");
///         SentryTraceCallbacks.on_failure(failure, latency, span);
///     },
/// );
/// # let _ = trace;
/// ```
///
/// `TraceLayer`'s own `DefaultOnFailure` logs an ERROR for each failure, whatever its code,
/// and each is an event in Sentry: a second one beside that of the call, where the head of the
/// response has the status. Without `on_eos` a successful call is CANCELLED; without
/// `on_body_chunk` the response has 0 messages.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "its state is kept with the span")]
pub struct SentryTraceCallbacks;

impl<B: Body> OnResponse<B> for SentryTraceCallbacks {
    fn on_response(self, response: &Response<B>, _: Duration, span: &Span) {
        ParkedCall::with(span, |guard| {
            guard.see_head(response);
            guard.set_at_end(response.body().is_end_stream());
        });
    }
}

impl<D: Buf> OnBodyChunk<D> for SentryTraceCallbacks {
    fn on_body_chunk(&mut self, chunk: &D, _: Duration, span: &Span) {
        ParkedCall::see_data(span, chunk);
    }
}

impl OnEos for SentryTraceCallbacks {
    fn on_eos(self, trailers: Option<&HeaderMap>, _: Duration, span: &Span) {
        ParkedCall::with(span, |guard| match trailers {
            Some(trailers) => guard.see_trailers(trailers),
            None => guard.end_without_status(),
        });
    }
}

impl OnFailure<GrpcFailureClass> for SentryTraceCallbacks {
    fn on_failure(&mut self, failure: GrpcFailureClass, _: Duration, span: &Span) {
        ParkedCall::with(span, |guard| match failure {
            // Only for the case that neither head nor trailers, which say more, are seen.
            GrpcFailureClass::Status(status) => {
                let outcome = Outcome::of_status(status.code_raw(), status.message());
                guard.foresee(outcome);
            }
            GrpcFailureClass::Error(text) => guard.end(Outcome::of_text(text)),
            _ => {}
        });
    }
}

impl OnFailure<ServerErrorsFailureClass> for SentryTraceCallbacks {
    fn on_failure(&mut self, failure: ServerErrorsFailureClass, _: Duration, span: &Span) {
        ParkedCall::with(span, |guard| match failure {
            // The status of a head that was seen already.
            ServerErrorsFailureClass::StatusCode(_) => {}
            ServerErrorsFailureClass::Error(text) => guard.end(Outcome::of_text(text)),
        });
    }
}
