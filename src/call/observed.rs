//! Calls on their way through a tower layer: opened, watched, and not twice.

use std::sync::atomic::{AtomicU8, Ordering};

use http::request::Parts;
use http::{Extensions, Request};
use tracing::debug;

use crate::call::rpc_call::{RpcCall, RpcScope};
use crate::fields;
use crate::lifecycle::{self, CallGuard, Deadline};
use crate::rpc::RpcSide;

/// The request body that a service below this crate's middleware receives.
///
/// Services of tonic and axum take a body of any type. Middleware that is
/// written for `Request<tonic::body::Body>` alone takes it from a
/// `MapRequestLayer`:
///
/// ```
/// use http::Request;
/// use sentry_tonic::{SentryServerLayer, RequestBody};
/// use tonic::body::Body;
/// use tower::util::MapRequestLayer;
///
/// let server = tonic::transport::Server::builder()
///     .layer(SentryServerLayer::new())
///     .layer(MapRequestLayer::new(|request: Request<RequestBody<Body>>| {
///         request.map(Body::new)
///     }));
/// // .layer(TypedLayer)
/// # let _ = server;
/// ```
pub type RequestBody<B> = lifecycle::RequestBody<B, RpcScope>;
/// The body of a response that came through this crate's middleware.
///
/// It is of another type than that of the service below, so `option_layer(SentryServerLayer::new())`
/// does not compile. No switch is needed, as nothing is sent without a Sentry client. To have
/// one all the same, `MapResponseLayer` gives both ways the same type:
///
/// ```no_run
/// use http::Response;
/// use sentry_tonic::{SentryServerLayer, ResponseBody};
/// use tonic::body::Body;
/// use tower::util::{MapResponseLayer, option_layer};
///
/// let is_observed = true;
/// let layer = is_observed.then(|| {
///     let boxed = |response: Response<ResponseBody<Body>>| response.map(Body::new);
///     (MapResponseLayer::new(boxed), SentryServerLayer::new())
/// });
/// # let greeter = tonic::service::Routes::default();
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// tonic::transport::Server::builder()
///     .layer(option_layer(layer))
///     .add_routes(greeter) // or .add_service(GreeterServer::new(MyGreeter))
///     .serve("[::1]:50051".parse()?)
///     .await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type ResponseBody<B> = lifecycle::ResponseBody<B, RpcCall>;
/// The future of a call through this crate's middleware.
pub type ResponseFuture<F> = lifecycle::ResponseFuture<F, RpcCall>;

/// Left in the extensions of a request that is observed, in case the layer is applied twice. A
/// type for each side: without a value, it needs no memory.
#[derive(Debug, Clone, Copy)]
struct ByServer;
#[derive(Debug, Clone, Copy)]
struct ByClient;

/// How many layers a call of a side has gone through so far, at most.
const NO_CALL: u8 = 0;
const ONE_LAYER: u8 = 1;
const TWO_LAYERS: u8 = 2;

/// Marks a request as observed on `side`, and on no other: a server may pass the extensions of
/// its request on to a client. Returns whether it was marked for `side`.
fn mark(side: RpcSide, extensions: &mut Extensions) -> bool {
    let was_marked = match side {
        RpcSide::Server => {
            extensions.remove::<ByClient>();
            extensions.insert(ByServer).is_some()
        }
        RpcSide::Client => {
            extensions.remove::<ByServer>();
            extensions.insert(ByClient).is_some()
        }
    };
    match was_marked {
        true => saw_two_layers(side),
        false => saw_layer(side),
    }
    was_marked
}

/// Notes that a call has come by.
pub(crate) fn saw_layer(side: RpcSide) {
    // Written once: threads that call share it.
    if seen(side) == NO_CALL {
        let _ = seen_layers(side).fetch_max(ONE_LAYER, Ordering::Relaxed);
    }
}

/// Logs once for each side that there are two layers: the options of the inner one have no
/// effect.
fn saw_two_layers(side: RpcSide) {
    let layer = match side {
        RpcSide::Server => "SentryServerLayer",
        RpcSide::Client => "SentryClientLayer",
    };
    if seen_layers(side).swap(TWO_LAYERS, Ordering::Relaxed) != TWO_LAYERS {
        debug!(target: fields::TARGET, "a call goes through two layers of the type {layer}");
    }
}

/// Whether a call has gone through a layer of `side`.
pub(crate) fn is_layered(side: RpcSide) -> bool {
    seen(side) != NO_CALL
}

/// Whether a call has gone through two layers of `side`.
pub(crate) fn is_layered_twice(side: RpcSide) -> bool {
    seen(side) == TWO_LAYERS
}

fn seen(side: RpcSide) -> u8 {
    seen_layers(side).load(Ordering::Relaxed)
}

fn seen_layers(side: RpcSide) -> &'static AtomicU8 {
    static SERVER: AtomicU8 = AtomicU8::new(NO_CALL);
    static CLIENT: AtomicU8 = AtomicU8::new(NO_CALL);
    match side {
        RpcSide::Server => &SERVER,
        RpcSide::Client => &CLIENT,
    }
}

/// Opens a call of `request`, unless a layer on this side has it already.
pub(crate) fn observe<B>(
    side: RpcSide,
    request: Request<B>,
    open: impl FnOnce(&mut Parts) -> Option<(RpcCall, Deadline)>,
) -> (Request<B>, Option<(RpcCall, Deadline)>) {
    let (mut parts, body) = request.into_parts();
    let call = match mark(side, &mut parts.extensions) {
        true => None,
        false => open(&mut parts),
    };
    (Request::from_parts(parts, body), call)
}

/// Whether another layer on this side observes the call already.
#[cfg(feature = "tower-http")]
pub(crate) fn is_observed(side: RpcSide, parts: &Parts) -> bool {
    match side {
        RpcSide::Server => parts.extensions.get::<ByServer>().is_some(),
        RpcSide::Client => parts.extensions.get::<ByClient>().is_some(),
    }
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
    let request = request.map(|body| RequestBody::new(body, Some(rpc.scope())));
    let mut guard = CallGuard::new(rpc, deadline);
    match guard.poll(|| call(request)) {
        Ok(future) => ResponseFuture::new(future, Some(guard)),
        Err(panic) => {
            guard.end_panicked(panic, || ());
            ResponseFuture::panicked()
        }
    }
}
