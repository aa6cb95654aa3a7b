//! The server layer and its options.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tonic::Code;
use tower_layer::Layer;

use crate::call::{CallOptions, call_setters};
use crate::propagation::{TraceFormat, TraceFormats};
use crate::report::{Capture, RpcCaller};
use crate::rpc::MethodPatterns;
use crate::server::options::GrpcServerOptions;
use crate::server::service::GrpcServerService;
use crate::watch::OnPanic;

/// A tower layer that opens a tracing span for each gRPC call a server
/// receives, and keeps it until the call has ended.
///
/// Goes wherever a tower layer goes: on `tonic::transport::Server`, on one
/// service, on an axum router. Requests that are not gRPC pass through
/// untouched. Applied twice to the same call, it counts once.
///
/// The span continues the trace that the request brings, in `sentry-trace` and
/// `baggage` or in `traceparent`, unless that is one of [another organization]. A
/// [`SentryGrpcLayer`](crate::SentryGrpcLayer) in the subscriber reports it to
/// Sentry; any other layer sees it too. Where no layer wants it, for its level
/// (INFO) or its target (`sentry_tonic`), the call passes through.
///
/// [another organization]: https://develop.sentry.dev/sdk/foundations/trace-propagation/#strict-trace-continuation
///
/// ```
/// use sentry_tonic::GrpcServerLayer;
/// use tonic::transport::Server;
///
/// let server = Server::builder().layer(GrpcServerLayer::new());
/// # let _ = server;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct GrpcServerLayer {
    options: Arc<GrpcServerOptions>,
}

impl GrpcServerLayer {
    #[cfg(feature = "opentelemetry-metrics")]
    const SIDE: crate::rpc::RpcSide = crate::rpc::RpcSide::Server;

    /// A layer with default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The [operation](https://develop.sentry.dev/sdk/telemetry/traces/span-operations/)
    /// of the transactions, and of calls inside another span.
    ///
    /// Defaults to `grpc.server`.
    pub fn op(self, op: impl Into<Cow<'static, str>>) -> Self {
        self.with_call(|call| call.op = op.into())
    }

    /// Names the transactions. Called once for each call, before its span is
    /// first entered, where a [`SentryGrpcLayer`](crate::SentryGrpcLayer) records
    /// it, sampled or not.
    ///
    /// Sentry groups by name: it should have few values. It is cut at 200 bytes. Where
    /// `name` panics, the call goes on under its default name.
    ///
    /// Defaults to the path of the method, `/helloworld.Greeter/SayHello`; of one that
    /// the server does not know, which is answered with UNIMPLEMENTED and no
    /// message, to `_OTHER`, with the path in `rpc.method_original`.
    pub fn name(self, name: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        self.with_call(|call| call.name = Some(Arc::new(name)))
    }

    /// Whether each call leaves a breadcrumb: for the errors of the span that it is
    /// in, else of the hub that its transaction is forked from, which calls share.
    ///
    /// It looks as that of a
    /// [client](crate::GrpcClientLayer::breadcrumbs), with the category
    /// `grpc.server`.
    ///
    /// Defaults to `false`.
    pub fn breadcrumbs(self, breadcrumbs: bool) -> Self {
        self.with_call(|call| call.breadcrumbs = breadcrumbs)
    }

    /// Services whose calls are left alone, by their exact names: such a call
    /// is not recorded, and the spans of its handler begin no transaction. Errors in
    /// it are sent.
    ///
    /// Defaults to `grpc.health.v1.Health`, `grpc.reflection.v1.ServerReflection` and
    /// `grpc.reflection.v1alpha.ServerReflection`, which are replaced.
    pub fn ignore_services(self, services: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let services = services.into_iter().map(Into::into);
        self.with_call(|call| call.ignored.set_services(services))
    }

    /// Which failed calls become error events: those with one of these codes.
    ///
    /// An event has the exceptions of the status and of its
    /// [source](tonic::Status::set_source), and belongs to the span of the call.
    /// It is left out if another event was sent in the call before its end, as far as the
    /// `last_event_id` of the hub that captured that shows it. A fingerprint on the scope does
    /// not replace that of the event; `before_send` can.
    ///
    /// Defaults to UNKNOWN, INTERNAL and DATA_LOSS, which are faults of the
    /// service itself; with no codes there are no events.
    pub fn capture_codes(self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.with_call(|call| call.capture = Capture::Codes(codes.into_iter().collect()))
    }

    call_setters!();

    /// What becomes of a panic in a handler: in its call, or in the stream of its
    /// replies. A panic in a task that the handler spawns is neither.
    ///
    /// The panic is one error event, fatal and unhandled, whatever
    /// [`capture_codes`](Self::capture_codes) says. With `sentry`'s panic integration it is the
    /// event of that, which has the stack trace. If another event was sent in the call, it is
    /// left out, unless
    /// [`one_event_per_failure`](crate::SentryGrpcLayer::one_event_per_failure) is off: then the
    /// event of the integration is held until the panic has reached this layer, and is lost if a
    /// panic hook ends the process. The span is INTERNAL, and the session has crashed. With
    /// `panic = "abort"` nothing can be caught.
    ///
    /// Defaults to [`OnPanic::Answer`].
    pub fn on_panic(self, on_panic: OnPanic) -> Self {
        self.with_call(|call| call.on_panic = on_panic)
    }

    /// A function that says who makes a call, from the head of its request: the user and the
    /// tags of the transaction and of all errors in it. Called once for each call, before its
    /// handler, where a [`SentryGrpcLayer`](crate::SentryGrpcLayer) records it, sampled or not.
    /// Where it panics, the caller is not known.
    ///
    /// The extensions have what layers outside of this one left there: verified claims, or
    /// tonic's `TlsConnectInfo`. A handler or an interceptor that finds out more sets it on the
    /// scope (`sentry::configure_scope`), or in the fields `user.id`, `user.email` and
    /// `user.name` of any span in the call. The scope outranks this function, and both outrank
    /// the fields.
    ///
    /// Defaults to nobody.
    pub fn caller(self, caller: impl Fn(&Parts) -> RpcCaller + Send + Sync + 'static) -> Self {
        self.with(|options| options.caller = Some(Arc::new(caller)))
    }

    /// Which [claims](RpcCaller::claim) of a caller are tags: pairs of a claim and the
    /// tag it becomes. Claims that are not texts, numbers or booleans are left out.
    ///
    /// Defaults to none.
    pub fn claim_tags<C, T>(self, pairs: impl IntoIterator<Item = (C, T)>) -> Self
    where
        C: Into<String>,
        T: Into<String>,
    {
        let pairs = pairs.into_iter().map(|(c, t)| (c.into(), t.into()));
        self.with(|options| options.claims.tags = pairs.collect())
    }

    /// Which [claims](RpcCaller::claim) of a caller are fields of the user: pairs of a
    /// claim and `id`, `email`, `username`, `ip_address` or any other field.
    ///
    /// Defaults to none.
    pub fn claim_user_fields<C, F>(self, pairs: impl IntoIterator<Item = (C, F)>) -> Self
    where
        C: Into<String>,
        F: Into<String>,
    {
        let pairs = pairs.into_iter().map(|(c, f)| (c.into(), f.into()));
        self.with(|options| options.claims.user_fields = pairs.collect())
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
    pub fn continue_traces(self, formats: impl IntoIterator<Item = TraceFormat>) -> Self {
        let formats = TraceFormats::new(formats);
        self.with(|options| options.formats = formats)
    }

    /// Which calls continue the trace that their request names: those for which `trusts`
    /// returns `true`. All others begin traces of their own: their `sentry-trace`,
    /// `traceparent`, `tracestate` and `baggage` are ignored, in Sentry and as the parent in
    /// OpenTelemetry, and are not passed on to other services.
    ///
    /// A caller that names a trace decides whether it is sampled, and appears in it. A server
    /// that anybody can call should not leave that to everybody.
    ///
    /// Called once for each call that names a trace and is observed, before its handler. The
    /// extensions have what the server and layers outside of this one left there. Behind a proxy
    /// the peer is the proxy. Where `trusts` panics, the trace is not continued.
    ///
    /// Defaults to all calls.
    ///
    /// ```
    /// use sentry_tonic::GrpcServerLayer;
    /// use tonic::transport::server::TcpConnectInfo;
    ///
    /// let layer = GrpcServerLayer::new().continue_traces_if(|parts| {
    ///     let peer = parts.extensions.get::<TcpConnectInfo>();
    ///     let address = peer.and_then(TcpConnectInfo::remote_addr);
    ///     address.is_some_and(|address| address.ip().is_loopback())
    /// });
    /// # let _ = layer;
    /// ```
    pub fn continue_traces_if(
        self,
        trusts: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|options| options.trusts = Some(Arc::new(trusts)))
    }

    /// Which methods exist, by patterns for their paths as in
    /// [`ignore_methods`](Self::ignore_methods). All others are named `_OTHER` from the start, in
    /// Sentry and in an OpenTelemetry layer, [as the conventions say], with their paths in
    /// `rpc.method_original`: callers may make up any number of them.
    ///
    /// Defaults to all. Then a method that does not exist shows by how its call ends, see
    /// [`name`](Self::name); by then the name of an OpenTelemetry span cannot be changed.
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
    pub fn server_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.server_timeout = Some(timeout))
    }

    #[cfg(feature = "tower-http")]
    pub(crate) fn into_options(self) -> Arc<GrpcServerOptions> {
        self.options
    }

    fn with_call(self, set: impl FnOnce(&mut CallOptions)) -> Self {
        self.with(|options| set(Arc::make_mut(&mut options.call)))
    }

    fn with(mut self, set: impl FnOnce(&mut GrpcServerOptions)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }
}

impl<S> Layer<S> for GrpcServerLayer {
    type Service = GrpcServerService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcServerService::new(inner, Arc::clone(&self.options))
    }
}
