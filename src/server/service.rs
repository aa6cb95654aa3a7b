//! The server service.

use std::any::Any;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use crate::call::{self, RequestBody, ResponseBody, ResponseFuture};
use crate::rpc::RpcSide;
use crate::server::open::{self, Runner};
use crate::server::options::ServerLayerOptions;

/// The service that a [`SentryServerLayer`](crate::SentryServerLayer) makes.
///
/// Keeps the name of a tonic service, so that it can stand where that service
/// stood.
#[derive(Debug, Clone)]
pub struct SentryServerService<S> {
    inner: S,
    options: Arc<ServerLayerOptions>,
}

impl<S> SentryServerService<S> {
    pub(crate) fn new(inner: S, options: Arc<ServerLayerOptions>) -> Self {
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
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for SentryServerService<S>
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
        let (request, observed) = match open::is_call(request.headers()) {
            true => call::observe(RpcSide::Server, request, |parts| {
                Some(self.options.open(parts, Runner::Middleware))
            }),
            false => (request, None),
        };
        call::make(observed, request, |request| self.inner.call(request))
    }
}

impl<S: NamedService> NamedService for SentryServerService<S> {
    const NAME: &'static str = S::NAME;
}
