//! The server layer and its options.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tower_layer::Layer;

use crate::call::{CallOptions, call_setters};
use crate::lifecycle::PanicPolicy;
use crate::propagation::{TraceFormat, TraceFormats};
use crate::report::CallerIdentity;
use crate::rpc::MethodPatterns;
use crate::server::options::ServerLayerOptions;
use crate::server::service::SentryServerService;

/// A tower layer that opens a tracing span for each gRPC call a server
/// receives, and keeps it until the call has ended.
///
/// Goes wherever a tower layer goes: on `tonic::transport::Server`, on one
/// service, on an axum router. Requests that are not gRPC pass through
/// untouched. Applied twice to the same call, it counts once.
///
/// The span continues the trace that the request brings, in `sentry-trace` and
/// `baggage` or in `traceparent`, unless that is one of [another organization]. A
/// [`SentryTracingLayer`](crate::SentryTracingLayer) in the subscriber reports it to
/// Sentry; any other layer sees it too. Where no layer wants it, for its level
/// (INFO) or its target (`sentry_tonic`), the call passes through.
///
/// [another organization]: https://develop.sentry.dev/sdk/foundations/trace-propagation/#strict-trace-continuation
///
/// ```
/// use sentry_tonic::SentryServerLayer;
/// use tonic::transport::Server;
///
/// let server = Server::builder().layer(SentryServerLayer::new());
/// # let _ = server;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct SentryServerLayer {
    options: Arc<ServerLayerOptions>,
}

impl SentryServerLayer {
    #[cfg(feature = "opentelemetry-metrics")]
    const SIDE: crate::rpc::RpcSide = crate::rpc::RpcSide::Server;

    /// A layer with default options.
    pub fn new() -> Self {
        Self::default()
    }

    call_setters!("SentryServerLayer");

    /// What becomes of a panic in a handler: in its call, or in the stream of its
    /// replies. A panic in a task that the handler spawns is neither.
    ///
    /// The panic is one error event, fatal and unhandled, whatever
    /// [`capture_codes`](Self::capture_codes) says. With `sentry`'s panic integration it is the
    /// event of that, which has the stack trace. If another event was sent in the call, it is
    /// left out, unless
    /// [`deduplicate_errors`](crate::SentryTracingLayer::deduplicate_errors) is off: then the
    /// event of the integration is held until the panic has reached this layer, and is lost if a
    /// panic hook ends the process. The span is INTERNAL, and the session has crashed. With
    /// `panic = "abort"` nothing can be caught.
    ///
    /// Defaults to [`PanicPolicy::ReturnInternal`].
    pub fn panic_policy(self, panic_policy: PanicPolicy) -> Self {
        self.with_call(|call| call.panic_policy = panic_policy)
    }

    /// A function that says who makes a call, from the head of its request: the user and the
    /// tags of the transaction and of all errors in it. Called once for each call, before its
    /// handler, where a [`SentryTracingLayer`](crate::SentryTracingLayer) records it, sampled or not.
    /// Where it panics, the caller is not known.
    ///
    /// The extensions have what layers outside of this one left there: verified claims, or
    /// tonic's `TlsConnectInfo`. A handler or an interceptor that finds out more sets it on the
    /// scope (`sentry::configure_scope`), or in the fields `user.id`, `user.email` and
    /// `user.name` of any span in the call. The scope outranks this function, and both outrank
    /// the fields.
    ///
    /// Defaults to none.
    pub fn identify_caller(
        self,
        identify: impl Fn(&Parts) -> CallerIdentity + Send + Sync + 'static,
    ) -> Self {
        self.with(|options| options.identify_caller = Some(Arc::new(identify)))
    }

    /// Which [claims](CallerIdentity::claim) of a caller are sent, and as what: pairs of a claim
    /// and either a field of the user, such as `user.id`, `user.email`, `user.username` or
    /// `user.plan`, or the name of a tag. Claims that are not texts, numbers or booleans are
    /// omitted.
    ///
    /// The pairs replace those of a previous call. Defaults to none.
    ///
    /// ```
    /// let layer = sentry_tonic::SentryServerLayer::new()
    ///     .claims([("sub", "user.id"), ("tenant", "auth.tenant")]);
    /// # let _ = layer;
    /// ```
    pub fn claims<C, T>(self, pairs: impl IntoIterator<Item = (C, T)>) -> Self
    where
        C: Into<String>,
        T: Into<String>,
    {
        let pairs = pairs.into_iter().map(|(c, t)| (c.into(), t.into()));
        self.with(|options| options.claims = pairs.collect())
    }

    /// Which of several servers this one is: `server_id` in the `rpc` context of
    /// events.
    ///
    /// Defaults to none; `sentry`'s own `server_name` names the machine.
    pub fn server_id(self, id: impl Into<String>) -> Self {
        self.with_call(|call| call.server_id = Some(id.into()))
    }

    /// The headers in which a request may name its trace, in order: the first that is there and
    /// valid counts. With an empty list, each call begins a trace.
    ///
    /// A trace that is named by `traceparent` alone, without members of Sentry's in
    /// `baggage`, comes from services that know nothing of Sentry: in Sentry it begins here.
    ///
    /// Defaults to [`TraceFormat::SentryTrace`], then [`TraceFormat::Traceparent`].
    pub fn incoming_trace_formats(self, formats: impl IntoIterator<Item = TraceFormat>) -> Self {
        let formats = TraceFormats::new(formats);
        self.with(|options| options.formats = formats)
    }

    /// Which calls continue the trace that their request names: those for which `trusts`
    /// returns `true`. All others begin traces of their own: their `sentry-trace`,
    /// `traceparent`, `tracestate` and `baggage` are ignored, in Sentry and as the parent in
    /// OpenTelemetry, and are not passed on to other services.
    ///
    /// A caller that names a trace decides whether it is sampled, and appears in it. A server
    /// that untrusted callers can reach should set this.
    ///
    /// Called once for each call that names a trace and is observed, before its handler. The
    /// extensions have what the server and layers outside of this one left there. Behind a proxy
    /// the peer is the proxy. Where `trusts` panics, the trace is not continued.
    ///
    /// Defaults to all calls.
    ///
    /// ```
    /// use sentry_tonic::SentryServerLayer;
    /// use tonic::transport::server::TcpConnectInfo;
    ///
    /// let layer = SentryServerLayer::new().trust_incoming_trace_if(|parts| {
    ///     let peer = parts.extensions.get::<TcpConnectInfo>();
    ///     let address = peer.and_then(TcpConnectInfo::remote_addr);
    ///     address.is_some_and(|address| address.ip().is_loopback())
    /// });
    /// # let _ = layer;
    /// ```
    pub fn trust_incoming_trace_if(
        self,
        trusts: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|options| options.trusts = Some(Arc::new(trusts)))
    }

    /// Which methods exist, by patterns for their paths as in
    /// [`ignore`](Self::ignore). All others are named `_OTHER` from the start, in
    /// Sentry and in an OpenTelemetry layer, [as the conventions say], with their paths in
    /// `rpc.method_original`: callers may make up any number of them.
    ///
    /// Defaults to all. Then a method that does not exist is recognized only when its call ends,
    /// see [`span_name`](Self::span_name), and the name of an OpenTelemetry span cannot be changed then.
    ///
    /// [as the conventions say]: https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/
    pub fn known_methods(self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let patterns = patterns.into_iter().map(Into::into);
        self.with_call(|call| call.known = Some(MethodPatterns::new(patterns)))
    }

    /// Whether each call is a transaction of its own, even where it is made
    /// inside another span and brings no trace.
    ///
    /// Defaults to `false`: such a call is a child of the span around it. A
    /// call that brings a trace is always a transaction.
    pub fn force_transaction(self, force: bool) -> Self {
        self.with(|options| options.force_transaction = force)
    }

    /// The timeout that the server applies to its calls, as in
    /// `tonic::transport::Server::timeout`, which this layer cannot see.
    ///
    /// This limits nothing. A call that is dropped before its response head, and after this
    /// time or in its last tenth (at most 100 ms), is reported as `deadline_exceeded` instead of
    /// `cancelled`. The caller's own `grpc-timeout` counts in any case, and for the response too.
    ///
    /// Defaults to none.
    pub fn assume_server_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.server_timeout = Some(timeout))
    }

    #[cfg(feature = "tower-http")]
    pub(crate) fn into_options(self) -> Arc<ServerLayerOptions> {
        self.options
    }

    fn with_call(self, set: impl FnOnce(&mut CallOptions)) -> Self {
        self.with(|options| set(Arc::make_mut(&mut options.call)))
    }

    fn with(mut self, set: impl FnOnce(&mut ServerLayerOptions)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }
}

impl<S> Layer<S> for SentryServerLayer {
    type Service = SentryServerService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SentryServerService::new(inner, Arc::clone(&self.options))
    }
}
