//! Sentry for [tonic]: every gRPC call that a server receives is a transaction,
//! from the first header to the last byte, with the status that the caller saw.
//!
//! Three lines beside the tracing set-up that an application has already:
//!
//! ```no_run
//! use sentry_tonic::{GrpcServerLayer, SentryGrpcLayer};
//! use tracing_subscriber::layer::SubscriberExt;
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! let _guard = sentry::init(
//!     sentry::ClientOptions::new()
//!         .dsn("https://key@o0.ingest.sentry.io/0")
//!         .traces_sample_rate(1.0),
//! );
//! tracing_subscriber::registry()
//!     .with(SentryGrpcLayer::new())
//!     .init();
//! let server = tonic::transport::Server::builder().layer(GrpcServerLayer::new());
//! # let _ = server;
//! ```
//!
//! Hold the guard outside of the runtime: calls that the end of the runtime
//! cuts short are reported too.
//!
//! # What happens to a call
//!
//! [`GrpcServerLayer`] opens a tracing span `grpc.server` (target
//! `sentry_tonic`, level INFO), enters it for every poll of the call and of its
//! bodies, and records on it how the call ended. [`SentryGrpcLayer`] makes a
//! Sentry transaction of that span, and spans of what is nested in it. Either
//! works without the other: the middleware serves any tracing layer, and the
//! tracing layer takes any span.
//!
//! An RPC ends exactly once, with the first of these:
//!
//! 1. `grpc-status` in the response head
//! 2. `grpc-status` in the trailers
//! 3. an error of the response body
//! 4. the end of the body without trailers: UNKNOWN
//! 5. an error of the service, classified by what it is or wraps: a
//!    [`Status`](tonic::Status), a timeout, a failed connection; else UNKNOWN
//! 6. the end of a response with an HTTP status other than 200, [as gRPC maps
//!    it], where none of the above came first
//! 7. being dropped: UNKNOWN at the announced end of the body, INTERNAL by a panic, DEADLINE_EXCEEDED once the caller's
//!    `grpc-timeout` has run down, else CANCELLED. The last tenth of a timeout,
//!    at most 100 ms, counts as run down: callers start their clock earlier.
//!
//! The transaction is sent then, or, where spans inside it have been entered
//! and are still open, once they close.
//!
//! Only requests with the content type `application/grpc` are calls, alone or
//! followed by `+` or `;`; all others pass through. So do calls whose span no
//! subscriber wants.
//!
//! # Hubs
//!
//! Each transaction has a hub of its own, forked from the one that is current
//! where its first span is made, without its breadcrumbs. All spans entered in
//! it share that hub, so that what a handler writes to the scope holds for the
//! whole call, before and after an `.await`.
//!
//! A task that runs beside the call gets a fork, with what the scope holds then;
//! its spans, and the breadcrumbs of its tracing events, are the call's. With a
//! span of its own (`.instrument(info_span!(..))`) it keeps its fork. With the
//! span of somebody else (`.in_current_span()`) what it writes to the scope lasts
//! until its next `.await`, for such tasks cannot be told apart.
//!
//! Two things that a hub for each task forgives do harm on a shared one:
//!
//! * a `push_scope` guard that is held across an `.await`, in futures that are
//!   joined: guards of sentry panic where they are dropped out of order
//! * `bind_hub(Hub::current())` on a spawned task: the hub is then current on
//!   two threads. Bind a `Hub::new_from_top(Hub::current())`.
//!
//! # Features
//!
//! * `transport` (default): reads the peer's address and transport errors of
//!   `tonic::transport`.
//!
//! [tonic]: https://docs.rs/tonic
//! [as gRPC maps it]: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md

mod bridge;
mod call;
mod client;
mod fields;
mod interceptor;
mod propagation;
mod report;
mod rpc;
mod server;
mod span_ext;
mod watch;

pub use self::bridge::{SentryGrpcLayer, TraceTransport};
pub use self::call::{RequestBody, ResponseBody, ResponseFuture};
pub use self::client::{GrpcClientLayer, GrpcClientService};
pub use self::interceptor::TracePropagationInterceptor;
pub use self::propagation::TraceHeaders;
pub use self::server::{GrpcServerLayer, GrpcServerService};
pub use self::span_ext::{ContinueTraceError, SentrySpanExt};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
