//! One observed RPC: opens its tracing span, and joins what is watched to what
//! is reported.

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Uri};
use tonic::Code;
use tracing::field::Empty;
use tracing::span::Entered;
use tracing::{Span, info_span};

use crate::call::address;
use crate::call::options::CallOptions;
use crate::fields;
use crate::report::{self, Capture, RpcOutcome};
use crate::rpc::{self, MethodPath, Outcome, RpcSide};
use crate::span_ext::{self, Muted, RpcEnd, RpcStart};
use crate::watch::{self, Deadline, Finished, Guard, Observer, Watch};

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

/// Left in the extensions of a request that is observed, for the case that a
/// layer is applied twice. A server may pass them on to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Observed(RpcSide);

/// The span of a running RPC.
#[derive(Debug)]
pub struct RpcCall {
    span: Span,
    /// It is left alone, with all that is traced in it.
    is_ignored: bool,
    side: RpcSide,
    path: MethodPath,
    capture: Capture,
    breadcrumbs: bool,
    /// Not one that the application gave it.
    has_default_name: bool,
}

/// Enters the span of an RPC and has no say in its end.
#[derive(Debug)]
pub struct RpcScope {
    span: Span,
    is_ignored: bool,
}

/// In a call, until it is dropped.
#[derive(Debug)]
pub struct RpcEntered<'a> {
    _span: Entered<'a>,
    _muted: Option<Muted>,
}

/// Opens a call of `request`, unless a layer on this side has it already.
pub(crate) fn observe<B>(
    side: RpcSide,
    request: Request<B>,
    open: impl FnOnce(&mut Parts) -> Option<(RpcCall, Deadline)>,
) -> (Request<B>, Option<(RpcCall, Deadline)>) {
    let (mut parts, body) = request.into_parts();
    let call = match parts.extensions.insert(Observed(side)) {
        Some(observed) if observed == Observed(side) => None,
        _ => open(&mut parts),
    };
    (Request::from_parts(parts, body), call)
}

/// Makes a call, watched where there is an RPC to watch.
pub(crate) fn make<B, F>(
    observed: Option<(RpcCall, Deadline)>,
    request: Request<B>,
    call: impl FnOnce(Request<RequestBody<B>>) -> F,
) -> ResponseFuture<F> {
    let Some((rpc, deadline)) = observed else {
        let request = request.map(|body| RequestBody::new(body, None));
        return ResponseFuture::new(call(request), None);
    };
    let progress = Arc::default();
    let scope = RpcScope {
        span: rpc.span.clone(),
        is_ignored: rpc.is_ignored,
    };
    let watched = (scope, Arc::clone(&progress));
    let request = request.map(|body| RequestBody::new(body, Some(watched)));
    let mut guard = Guard::new(rpc, deadline, progress);
    let future = guard.poll(|| call(request));
    ResponseFuture::new(future, Some(guard))
}

/// A span with the fields of an RPC; late ones are empty. Each side has a name
/// of its own, by which filters know it.
macro_rules! rpc_span {
    ($name:expr, $kind:expr, $path:expr, $authority:expr) => {
        info_span!(
            target: fields::TARGET,
            $name,
            { fields::OTEL_NAME } = $path.qualified(),
            { fields::OTEL_KIND } = $kind,
            { fields::RPC_SYSTEM } = "grpc",
            { fields::RPC_SERVICE } = $path.service(),
            { fields::RPC_METHOD } = $path.method(),
            { fields::SERVER_ADDRESS } = $authority.map(|a| rpc::clip(a.host(), MAX_HOST_LEN)),
            { fields::SERVER_PORT } = $authority.and_then(|a| a.port_u16()).map(i64::from),
            { fields::NETWORK_PEER_ADDRESS } = Empty,
            { fields::NETWORK_PEER_PORT } = Empty,
            { fields::RPC_GRPC_STATUS_CODE } = Empty,
            { fields::RPC_RESPONSE_STATUS_CODE } = Empty,
            { fields::RPC_REQUEST_MESSAGE_COUNT } = Empty,
            { fields::RPC_RESPONSE_MESSAGE_COUNT } = Empty,
            { fields::ERROR_TYPE } = Empty,
            { fields::OTEL_STATUS_CODE } = Empty,
            { fields::OTEL_STATUS_DESCRIPTION } = Empty,
        )
    };
}

impl RpcCall {
    /// Opens the span of an RPC that a server received; `None` where no
    /// subscriber wants it.
    pub(crate) fn open_server(
        path: &MethodPath,
        parts: &mut Parts,
        options: &CallOptions,
    ) -> Option<Self> {
        let host = address::host(parts);
        let authority = match address::is_of_unix_socket(parts) {
            true => None,
            false => parts.uri.authority().or(host.as_ref()),
        };
        let span = rpc_span!(fields::SERVER_SPAN, "server", path, authority);
        if span.is_disabled() {
            return None;
        }
        #[cfg(feature = "transport")]
        if let Some(peer) = address::remote_addr(parts) {
            span.record(
                fields::NETWORK_PEER_ADDRESS,
                tracing::field::display(peer.ip()),
            );
            span.record(fields::NETWORK_PEER_PORT, i64::from(peer.port()));
        }
        Some(Self::new(span, RpcSide::Server, path, options))
    }

    /// Opens the span of an RPC that a client makes; `None` where no subscriber
    /// wants it.
    pub(crate) fn open_client(
        path: &MethodPath,
        server: Option<&Uri>,
        options: &CallOptions,
    ) -> Option<Self> {
        let authority = server.and_then(Uri::authority);
        let span = rpc_span!(fields::CLIENT_SPAN, "client", path, authority);
        (!span.is_disabled()).then(|| Self::new(span, RpcSide::Client, path, options))
    }

    /// Of a call that is to be left alone.
    pub(crate) fn ignore(side: RpcSide, path: &MethodPath, options: &CallOptions) -> Self {
        Self {
            is_ignored: true,
            ..Self::new(Span::none(), side, path, options)
        }
    }

    /// tonic answers so where there is no such method.
    fn is_unknown_method(&self, outcome: &Outcome) -> bool {
        self.has_default_name
            && self.side == RpcSide::Server
            && outcome.code == Code::Unimplemented
            && outcome.message.is_none()
    }

    fn new(span: Span, side: RpcSide, path: &MethodPath, options: &CallOptions) -> Self {
        Self {
            span,
            is_ignored: false,
            side,
            path: path.clone(),
            capture: options.capture.clone(),
            breadcrumbs: options.breadcrumbs,
            has_default_name: options.name.is_none(),
        }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Tells the Sentry layer what this span is; `start` is asked only where
    /// there is one.
    pub(crate) fn announce(&self, start: impl FnOnce() -> RpcStart) {
        if let Some(sink) = span_ext::sink(&self.span) {
            sink.open(start());
        }
    }
}

impl Watch for RpcCall {
    type Entered<'a> = RpcEntered<'a>;

    fn enter(&self) -> RpcEntered<'_> {
        RpcEntered {
            _span: span_ext::enter_to_run(&self.span),
            _muted: self.is_ignored.then(Muted::new),
        }
    }
}

impl Watch for RpcScope {
    type Entered<'a> = RpcEntered<'a>;

    fn enter(&self) -> RpcEntered<'_> {
        RpcEntered {
            _span: self.span.enter(),
            _muted: self.is_ignored.then(Muted::new),
        }
    }
}

impl Observer for RpcCall {
    fn end(self, finished: Finished<'_>) {
        let Finished {
            outcome,
            cause,
            duration,
            request_messages,
            response_messages,
        } = finished;
        if self.is_ignored {
            return;
        }
        // An OpenTelemetry layer takes the last exit for the end of a span.
        let _entered = self.enter();
        report::record_outcome(
            &self.span,
            self.side,
            &outcome,
            request_messages,
            response_messages,
        );
        let Some(sink) = span_ext::sink(&self.span) else {
            return;
        };
        let known = RpcOutcome {
            side: self.side,
            path: &self.path,
            outcome: &outcome,
            duration,
            cause,
        };
        let breadcrumb = || report::breadcrumb_of_call(&known, request_messages, response_messages);
        let event = || report::event_of_status(&known);
        sink.end(RpcEnd {
            status: report::span_status(outcome.code),
            message: outcome.message.as_deref(),
            unknown_method: self.is_unknown_method(&outcome).then(|| self.path.full()),
            breadcrumb: self.breadcrumbs.then_some(&breadcrumb),
            event: self.capture.wants(&known).then_some(&event),
        });
    }
}
