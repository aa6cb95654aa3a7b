//! The client layer and its options.

use std::sync::Arc;

use http::Uri;
use tower_layer::Layer;

use crate::call::{CallOptions, call_setters};
use crate::client::options::ClientLayerOptions;
use crate::client::service::SentryClientService;
use crate::propagation::PropagationTargets;

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
/// without a [`SentryTracingLayer`](crate::SentryTracingLayer), if a Sentry client is
/// enabled.
///
/// ```
/// use sentry_tonic::SentryClientLayer;
/// use tonic::transport::Endpoint;
/// use tower::ServiceBuilder;
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let endpoint = Endpoint::from_static("http://[::1]:50051");
/// let channel = ServiceBuilder::new()
///     .layer(SentryClientLayer::new().endpoint(endpoint.uri().clone()))
///     .service(endpoint.connect_lazy());
/// // let client = GreeterClient::new(channel);
/// # let _ = channel;
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a layer does nothing until it is added to a service"]
pub struct SentryClientLayer {
    options: Arc<ClientLayerOptions>,
}

impl SentryClientLayer {
    #[cfg(feature = "opentelemetry-metrics")]
    const SIDE: crate::rpc::RpcSide = crate::rpc::RpcSide::Client;

    /// A layer with default options.
    pub fn new() -> Self {
        Self::default()
    }

    call_setters!("SentryClientLayer");

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
    /// Where there is no enabled Sentry client, or no [`SentryTracingLayer`](crate::SentryTracingLayer),
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

    fn with(mut self, set: impl FnOnce(&mut ClientLayerOptions)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }
}

impl<S> Layer<S> for SentryClientLayer {
    type Service = SentryClientService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SentryClientService::new(inner, Arc::clone(&self.options))
    }
}
