//! One observed RPC: opens its tracing span, and joins what is watched to what
//! is reported.

use std::borrow::Cow;

use http::request::Parts;
use tracing::field::Empty;
use tracing::span::Entered;
use tracing::{Span, info_span};

use crate::fields;
use crate::report;
use crate::rpc::{self, MethodPath};
use crate::span_ext::{self, RpcEnd, RpcStart};
use crate::watch::{self, Finished, Observer, Watch};

/// The request body that a service below this crate's middleware receives.
///
/// Services of tonic and axum take a body of any type. Middleware that is
/// written for `Request<tonic::body::Body>` alone takes it from a
/// `MapRequestLayer`:
///
/// ```
/// use http::Request;
/// use sentry_tonic::{GrpcServerLayer, RequestBody};
/// use tonic::body::Body;
/// use tower::util::MapRequestLayer;
///
/// let server = tonic::transport::Server::builder()
///     .layer(GrpcServerLayer::new())
///     .layer(MapRequestLayer::new(|request: Request<RequestBody<Body>>| {
///         request.map(Body::new)
///     }));
/// // .layer(TypedLayer)
/// # let _ = server;
/// ```
pub type RequestBody<B> = watch::RequestBody<B, RpcScope>;
/// The body of a response that came through this crate's middleware.
pub type ResponseBody<B> = watch::ResponseBody<B, RpcCall>;
/// The future of a call through this crate's middleware.
pub type ResponseFuture<F> = watch::ResponseFuture<F, RpcCall>;

/// Of a DNS name; a caller may write more.
const MAX_HOST_LEN: usize = 253;

/// The span of a running RPC.
#[derive(Debug)]
pub struct RpcCall {
    span: Span,
}

/// Enters the span of an RPC and has no say in its end.
#[derive(Debug)]
pub struct RpcScope {
    span: Span,
}

impl RpcCall {
    /// Opens the span of an RPC that a server received; `None` where no
    /// subscriber wants it.
    pub(crate) fn open_server(path: &MethodPath, parts: &mut Parts) -> Option<Self> {
        let authority = parts.uri.authority();
        let span = info_span!(
            target: fields::TARGET,
            "grpc.server",
            { fields::OTEL_NAME } = path.qualified(),
            { fields::OTEL_KIND } = "server",
            { fields::RPC_SYSTEM } = "grpc",
            { fields::RPC_SERVICE } = path.service(),
            { fields::RPC_METHOD } = path.method(),
            { fields::SERVER_ADDRESS } = authority.map(|authority| rpc::clip(authority.host(), MAX_HOST_LEN)),
            { fields::SERVER_PORT } = authority.and_then(|a| a.port_u16()).map(i64::from),
            { fields::NETWORK_PEER_ADDRESS } = Empty,
            { fields::NETWORK_PEER_PORT } = Empty,
            { fields::RPC_GRPC_STATUS_CODE } = Empty,
            { fields::RPC_RESPONSE_STATUS_CODE } = Empty,
            { fields::RPC_REQUEST_MESSAGE_COUNT } = Empty,
            { fields::RPC_RESPONSE_MESSAGE_COUNT } = Empty,
            { fields::ERROR_TYPE } = Empty,
            { fields::OTEL_STATUS_CODE } = Empty,
            { fields::OTEL_STATUS_DESCRIPTION } = Empty,
        );
        if span.is_disabled() {
            return None;
        }
        #[cfg(feature = "transport")]
        if let Some(peer) = remote_addr(parts) {
            span.record(
                fields::NETWORK_PEER_ADDRESS,
                tracing::field::display(peer.ip()),
            );
            span.record(fields::NETWORK_PEER_PORT, i64::from(peer.port()));
        }
        Some(Self { span })
    }

    /// Tells the Sentry layer what this span is; `start` is asked only where
    /// there is one.
    pub(crate) fn announce(&self, start: impl FnOnce() -> RpcStart) {
        if let Some(sink) = span_ext::sink(&self.span) {
            sink.open(start());
        }
    }

    pub(crate) fn scope(&self) -> RpcScope {
        RpcScope {
            span: self.span.clone(),
        }
    }
}

impl Watch for RpcCall {
    type Entered<'a> = Entered<'a>;

    fn enter(&self) -> Entered<'_> {
        span_ext::enter_to_run(&self.span)
    }
}

impl Watch for RpcScope {
    type Entered<'a> = Entered<'a>;

    fn enter(&self) -> Entered<'_> {
        self.span.enter()
    }
}

impl Observer for RpcCall {
    fn end(self, finished: Finished) {
        let Finished {
            outcome,
            request_messages,
            response_messages,
        } = finished;
        // An OpenTelemetry layer takes the last exit for the end of a span.
        let _entered = self.enter();
        report::record_outcome(&self.span, &outcome, request_messages, response_messages);
        if let Some(sink) = span_ext::sink(&self.span) {
            sink.end(RpcEnd {
                status: report::span_status(outcome.code),
                message: outcome.message.map(Cow::into_owned),
            });
        }
    }
}

/// Asks tonic, which knows where each of its transports puts the address.
#[cfg(feature = "transport")]
fn remote_addr(parts: &mut Parts) -> Option<std::net::SocketAddr> {
    let extensions = std::mem::take(&mut parts.extensions);
    let request = tonic::Request::from_parts(tonic::metadata::MetadataMap::new(), extensions, ());
    let peer = request.remote_addr();
    (_, parts.extensions, ()) = request.into_parts();
    peer
}
