//! The server service.

use std::any::Any;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tonic::server::NamedService;
use tower_service::Service;
use tracing::debug;

use crate::call::{self, RequestBody, ResponseBody, ResponseFuture, RpcCall};
use crate::fields;
use crate::propagation::IncomingTrace;
use crate::rpc::{self, ContentType, MethodPath, RpcSide};
use crate::server::options::GrpcServerOptions;
#[cfg(feature = "opentelemetry")]
use crate::span_ext;
use crate::span_ext::RpcStart;
use crate::watch::Deadline;

/// The service that a [`GrpcServerLayer`](crate::GrpcServerLayer) makes.
///
/// Keeps the name of a tonic service, so that it can stand where that service
/// stood.
#[derive(Debug, Clone)]
pub struct GrpcServerService<S> {
    inner: S,
    options: Arc<GrpcServerOptions>,
}

impl<S> GrpcServerService<S> {
    pub(crate) fn new(inner: S, options: Arc<GrpcServerOptions>) -> Self {
        Self { inner, options }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without the middleware.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn open(&self, parts: &mut Parts) -> Option<(RpcCall, Deadline)> {
        let path = MethodPath::new(&parts.uri);
        if self.options.call.ignored.matches(&path, parts) {
            let ignored = RpcCall::ignore(RpcSide::Server, &path, &self.options.call);
            return Some((ignored, Deadline::new(RpcSide::Server, None, None)));
        }
        let mut rpc = RpcCall::open_server(&path, parts, &self.options.call)?;
        #[cfg(feature = "opentelemetry")]
        rpc.tell_otel(&parts.headers);
        let incoming = IncomingTrace::from_headers(&parts.headers, &self.options.formats);
        #[cfg(feature = "opentelemetry")]
        if let Some(incoming) = &incoming {
            span_ext::set_otel_parent(rpc.span(), incoming);
        }
        rpc.announce(|sends_pii| RpcStart {
            incoming,
            force_transaction: self.options.force_transaction,
            ..self.options.start(&path, parts, sends_pii)
        });
        let timeout = rpc::grpc_timeout(&parts.headers);
        let deadline = Deadline::new(RpcSide::Server, timeout, self.options.server_timeout);
        Some((rpc, deadline))
    }
}

impl GrpcServerOptions {
    /// What the Sentry layer is told of a call beside its trace.
    fn start(&self, path: &MethodPath, parts: &mut Parts, sends_pii: bool) -> RpcStart {
        let mut start = self.call.start(path, parts, sends_pii);
        let facts = &mut start.facts;
        facts.is_session = true;
        if sends_pii
            && let Some(context) = &mut facts.context
            && let Some(peer) = call::remote_addr(parts)
        {
            context.insert("peer_address".to_owned(), peer.ip().to_string().into());
        }
        // Who makes it is not known where the closure panics.
        let caller = self.caller.as_ref();
        let caller = caller.and_then(|f| rpc::contained(|| f(parts)));
        if let Some(caller) = caller {
            let told = caller.told_by(&self.claims);
            facts.user = told.user;
            facts.tags.extend(told.tags);
        }
        start
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for GrpcServerService<S>
where
    S: Service<Request<RequestBody<ReqB>>, Response = Response<ResB>>,
    S::Error: Any,
    ResB: Body,
    ResB::Error: Any,
{
    type Response = Response<ResponseBody<ResB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (request, observed) = match rpc::content_type(request.headers()) {
            ContentType::Grpc => call::observe(RpcSide::Server, request, |parts| self.open(parts)),
            ContentType::GrpcWeb => {
                debug!(
                    target: fields::TARGET,
                    "a grpc-web call passes through unobserved: \
                     GrpcServerLayer belongs inside GrpcWebLayer"
                );
                (request, None)
            }
            ContentType::Other => (request, None),
        };
        call::make(observed, request, |request| self.inner.call(request))
    }
}

impl<S: NamedService> NamedService for GrpcServerService<S> {
    const NAME: &'static str = S::NAME;
}
