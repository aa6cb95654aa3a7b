//! The client service.

use std::any::Any;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;
use tracing::Span;

use crate::call::{self, ResponseBody, ResponseFuture, RpcCall};
use crate::client::options::ClientLayerOptions;
use crate::lifecycle::Deadline;
use crate::rpc::{self, ContentType, MethodPath, RpcSide};
use crate::span_ext;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The service that a [`SentryClientLayer`](crate::SentryClientLayer) makes.
#[derive(Debug, Clone)]
pub struct SentryClientService<S> {
    inner: S,
    options: Arc<ClientLayerOptions>,
}

impl<S> SentryClientService<S> {
    pub(crate) fn new(inner: S, options: Arc<ClientLayerOptions>) -> Self {
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
            return None;
        }
        let server = match parts.uri.authority() {
            Some(_) => Some(&parts.uri),
            None => self.options.endpoint.as_ref(),
        };
        let mut rpc = RpcCall::open_client(&path, server, &self.options.call);
        if let Some(rpc) = &mut rpc {
            #[cfg(feature = "opentelemetry")]
            rpc.tell_otel(&parts.headers);
            rpc.announce(parts, |start| {
                start.only_if_parent = self.options.only_if_parent;
            });
        }
        if self.options.targets.include(server, path.full()) {
            let own = rpc.as_ref().map(RpcCall::span);
            let span = match own.filter(|span| !span.is_disabled()) {
                Some(own) => own,
                None => &Span::current(),
            };
            span_ext::inject(span, self.options.traceparent, &mut parts.headers);
        }
        let timeout = rpc::grpc_timeout(&parts.headers);
        Some((rpc?, Deadline::new(RpcSide::Client, timeout, None)))
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for SentryClientService<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<ResB>>,
    S::Error: Any,
    ReqB: Body<Data = Bytes> + Send + 'static,
    ReqB::Error: Into<BoxError>,
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
            ContentType::Grpc => call::observe(RpcSide::Client, request, |parts| self.open(parts)),
            ContentType::GrpcWeb | ContentType::Other => (request, None),
        };
        call::make(observed, request, |request| {
            // A `Channel` takes a body of no other type.
            self.inner.call(request.map(tonic::body::Body::new))
        })
    }
}
