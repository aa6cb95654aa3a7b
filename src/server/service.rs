//! The server service.

use std::any::Any;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tonic::server::NamedService;
use tower_service::Service;
use tracing::debug;

use crate::call::{RpcCall, RpcScope};
use crate::fields;
use crate::propagation::IncomingTrace;
use crate::rpc::{self, ContentType, MethodPath};
use crate::server::options::ServerOptions;
use crate::span_ext::RpcStart;
use crate::watch::{Deadline, Guard, RequestBody, ResponseBody, ResponseFuture};

/// The service that a [`GrpcServerLayer`](crate::GrpcServerLayer) makes.
///
/// Keeps the name of a tonic service, so that it can stand where that service
/// stood.
#[derive(Debug, Clone)]
pub struct GrpcServerService<S> {
    inner: S,
    options: Arc<ServerOptions>,
}

/// Left in a request that is observed, for the case that the layer is applied
/// twice.
#[derive(Debug, Clone, Copy)]
struct Observed;

impl<S> GrpcServerService<S> {
    pub(crate) fn new(inner: S, options: Arc<ServerOptions>) -> Self {
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

    fn observe<B>(&self, request: Request<B>) -> (Request<B>, Option<RpcCall>, Deadline) {
        match rpc::content_type(request.headers()) {
            ContentType::Grpc => {}
            ContentType::GrpcWeb => {
                debug!(
                    target: fields::TARGET,
                    "a grpc-web call passes through unobserved: \
                     GrpcServerLayer belongs inside GrpcWebLayer"
                );
                return (request, None, Deadline::default());
            }
            ContentType::Other => return (request, None, Deadline::default()),
        }
        if request.extensions().get::<Observed>().is_some() {
            return (request, None, Deadline::default());
        }
        let (mut parts, body) = request.into_parts();
        let path = MethodPath::new(&parts.uri);
        let call = RpcCall::open_server(&path, &mut parts);
        let deadline = match call {
            Some(_) => Deadline::new(
                rpc::grpc_timeout(&parts.headers),
                self.options.server_timeout,
            ),
            None => Deadline::default(),
        };
        if let Some(call) = &call {
            parts.extensions.insert(Observed);
            call.announce(|| RpcStart {
                op: self.options.op.clone(),
                name: self.options.name(&path, &parts),
                service: path.service().to_owned(),
                method: path.method().to_owned(),
                incoming: IncomingTrace::from_headers(&parts.headers),
                force_transaction: self.options.force_transaction,
            });
        }
        (Request::from_parts(parts, body), call, deadline)
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for GrpcServerService<S>
where
    S: Service<Request<RequestBody<ReqB, RpcScope>>, Response = Response<ResB>>,
    S::Error: Any,
    ResB: Body,
    ResB::Error: Any,
{
    type Response = Response<ResponseBody<ResB, RpcCall>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, RpcCall>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (request, call, deadline) = self.observe(request);
        let Some(call) = call else {
            let request = request.map(|body| RequestBody::new(body, None));
            return ResponseFuture::new(self.inner.call(request), None);
        };
        let progress = Arc::default();
        let scope = (call.scope(), Arc::clone(&progress));
        let mut guard = Guard::new(call, deadline, progress);
        let request = request.map(|body| RequestBody::new(body, Some(scope)));
        let future = guard.poll(|| self.inner.call(request));
        ResponseFuture::new(future, Some(guard))
    }
}

impl<S: NamedService> NamedService for GrpcServerService<S> {
    const NAME: &'static str = S::NAME;
}
