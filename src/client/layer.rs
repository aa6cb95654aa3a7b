//! The client layer and its options.

use std::borrow::Cow;
use std::sync::Arc;

use http::Uri;
use http::request::Parts;
use tonic::Code;
use tower_layer::Layer;

use crate::call::{CallOptions, call_setters};
use crate::client::options::GrpcClientOptions;
use crate::client::service::GrpcClientService;
use crate::propagation::PropagationTargets;
use crate::report::Capture;

/// A tower layer that opens a tracing span for each gRPC call a client makes,
/// keeps it until the call has ended, and takes its trace to the server.
///
/// Goes below a generated client, on a `Channel` of any kind or on any tower
/// stack that takes its requests. Requests that are not gRPC pass through
/// untouched. Applied twice to the same call, it counts once. With a retry layer above
/// it each attempt is a call; with one below it all attempts are one call.
///
/// The span is a child of the span in which the call is made, and a transaction
/// where there is none. The request gets the headers `sentry-trace` and
/// `baggage`, also where no layer wants the span, with tracing disabled, and
/// without a [`SentryGrpcLayer`](crate::SentryGrpcLayer), if a Sentry client is
/// enabled.
///
/// ```
/// use sentry_tonic::GrpcClientLayer;
/// use tonic::transport::Endpoint;
/// use tower::ServiceBuilder;
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let endpoint = Endpoint::from_static("http://[::1]:50051");
/// let channel = ServiceBuilder::new()
///     .layer(GrpcClientLayer::new().endpoint(endpoint.uri().clone()))
///     .service(endpoint.connect_lazy());
/// // let client = GreeterClient::new(channel);
/// # let _ = channel;
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct GrpcClientLayer {
    options: Arc<GrpcClientOptions>,
}

impl GrpcClientLayer {
    #[cfg(feature = "opentelemetry-metrics")]
    const SIDE: crate::rpc::RpcSide = crate::rpc::RpcSide::Client;

    /// A layer with default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The [operation](https://develop.sentry.dev/sdk/telemetry/traces/span-operations/)
    /// of the spans.
    ///
    /// Defaults to `grpc.client`.
    pub fn op(self, op: impl Into<Cow<'static, str>>) -> Self {
        self.with_call(|call| call.op = op.into())
    }

    /// Names the spans. Called once for each call, before its span is first
    /// entered, where a [`SentryGrpcLayer`](crate::SentryGrpcLayer) records it,
    /// sampled or not.
    ///
    /// Sentry groups by name: it should have few values. It is cut at 200 bytes. Where
    /// `name` panics, the call goes on under its default name.
    ///
    /// Defaults to the path of the method, `/helloworld.Greeter/SayHello`.
    pub fn name(self, name: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        self.with_call(|call| call.name = Some(Arc::new(name)))
    }

    /// Whether each call leaves a breadcrumb: for the errors of the call, span or
    /// transaction that it is made in. Outside of any, for those of the hub that
    /// its span would be forked from: the pinned one, else the one that is current
    /// where the call is made, else the main one. Tasks that share that hub share
    /// its breadcrumbs.
    ///
    /// It has the type `grpc` and the category `grpc.client`; the data `method`,
    /// `status`, `status_code`, `duration_ms`, `request_message_count` and
    /// `response_message_count`; the message of a failure; and the level `error`
    /// where that is the server's fault, `warning` where it is the caller's, else
    /// `info`.
    ///
    /// Defaults to `true`.
    pub fn breadcrumbs(self, breadcrumbs: bool) -> Self {
        self.with_call(|call| call.breadcrumbs = breadcrumbs)
    }

    /// Services whose calls are left alone, by their exact names: such a call
    /// is not recorded, and takes no trace to the server.
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
    /// Defaults to none: only the caller knows what a failed call means.
    pub fn capture_codes(self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.with_call(|call| call.capture = Capture::Codes(codes.into_iter().collect()))
    }

    call_setters!();

    /// The URI of the server, for `server.address`, `server.port` and
    /// [`trace_propagation_targets`](Self::trace_propagation_targets).
    ///
    /// A request above a `tonic::transport::Channel` does not name its server.
    /// Where it does, as with `GreeterClient::with_origin`, that counts. Do not set
    /// this for a Unix socket, for which `Endpoint::uri` is `http://tonic`.
    ///
    /// Defaults to none.
    pub fn endpoint(self, uri: Uri) -> Self {
        self.with(|options| options.endpoint = Some(uri))
    }

    /// Whether a call that is made outside of any span is left out of Sentry, instead of being a
    /// transaction.
    ///
    /// The request carries a trace all the same: that of the current scope, to which errors
    /// outside of any span belong too. All such calls of a scope are one trace, and a server
    /// that decides for itself samples all of them or none.
    ///
    /// Defaults to `false`.
    pub fn only_if_parent(self, only: bool) -> Self {
        self.with(|options| options.only_if_parent = only)
    }

    /// Whether calls that carry `sentry-trace` carry [`traceparent`] too, for services that
    /// know nothing of Sentry. It names the same span, and replaces a `traceparent` that the
    /// request has. A `tracestate` that the trace came with replaces one that the request has;
    /// without one, that of the request stays.
    ///
    /// Where there is no enabled Sentry client, or no [`SentryGrpcLayer`](crate::SentryGrpcLayer),
    /// or where that leaves the span of the call out, by its level or a filter, calls carry the
    /// `traceparent` of tracing-opentelemetry 0.34 all the same, with the feature `opentelemetry`.
    ///
    /// Sentry calls this [`propagateTraceparent`].
    ///
    /// Defaults to `false`.
    ///
    /// [`traceparent`]: https://www.w3.org/TR/trace-context/#traceparent-header
    /// [`propagateTraceparent`]: https://develop.sentry.dev/sdk/foundations/trace-propagation/#propagatetraceparent
    pub fn propagate_traceparent(self, propagate: bool) -> Self {
        self.with(|options| options.traceparent = propagate)
    }

    /// Which calls carry `sentry-trace` and `baggage`: those whose URL,
    /// `http://host:port/helloworld.Greeter/SayHello`, contains one of these.
    /// Where the server is not [known](Self::endpoint), the path alone is compared.
    /// A short one may match more than is meant: `payments` is in the path of a
    /// `payments.v1.Payments` on any host. With an empty list no call carries them; traces of
    /// incoming requests are continued all the same.
    ///
    /// Sentry calls these [`tracePropagationTargets`][targets].
    ///
    /// Defaults to all calls.
    ///
    /// [targets]: https://develop.sentry.dev/sdk/foundations/trace-propagation/#tracepropagationtargets
    pub fn trace_propagation_targets(
        self,
        targets: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let targets = PropagationTargets::new(targets);
        self.with(|options| options.targets = targets)
    }

    fn with_call(self, set: impl FnOnce(&mut CallOptions)) -> Self {
        self.with(|options| set(Arc::make_mut(&mut options.call)))
    }

    fn with(mut self, set: impl FnOnce(&mut GrpcClientOptions)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }
}

impl<S> Layer<S> for GrpcClientLayer {
    type Service = GrpcClientService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcClientService::new(inner, Arc::clone(&self.options))
    }
}
