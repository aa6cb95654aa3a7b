//! Sentry for [tonic].

mod bridge;
mod call;
mod fields;
mod propagation;
mod report;
mod rpc;
mod server;
mod span_ext;
mod watch;

pub use self::bridge::SentryGrpcLayer;
pub use self::server::{GrpcServerLayer, GrpcServerService};

/// The request body that a service below this crate's middleware receives.
pub type RequestBody<B> = watch::WatchedRequestBody<B, call::RpcScope>;
/// The body of a response that came through this crate's middleware.
pub type ResponseBody<B> = watch::WatchedBody<B, call::RpcCall>;
/// The future of a call through this crate's middleware.
pub type ResponseFuture<F> = watch::WatchedFuture<F, call::RpcCall>;
