//! Sentry for [tonic]: every gRPC call, in and out, is part of one distributed
//! trace, from the first header to the last byte, with the status that the caller
//! saw.
//!
//! # Set-up
//!
//! ```toml
//! [dependencies]
//! sentry = { version = "0.49", default-features = false, features = ["backtrace", "contexts", "panic", "reqwest", "rustls"] }
//! sentry-tonic = "0.1"
//! tower = "0.5"
//! tracing = "0.1"
//! tracing-subscriber = { version = "0.3", features = ["env-filter"] }
//! ```
//!
//! One layer for `tracing`, one for the server, one for each client:
//!
//! ```rust,no_run
//! use std::time::Duration;
//!
//! use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentryTracingLayer, TraceTransport};
//! use tonic::transport::{Endpoint, Server};
//! use tower::ServiceBuilder;
//! use tracing_subscriber::filter::LevelFilter;
//! use tracing_subscriber::layer::{Layer, SubscriberExt};
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Outside of the runtime: calls that its end cuts short are reported too.
//!     let _guard = sentry::init(
//!         sentry::ClientOptions::new()
//!             .dsn("https://key@o0.ingest.sentry.io/0")
//!             .maybe_release(sentry::release_name!())
//!             .traces_sample_rate(1.0)
//!             // Of a burst, the default queue of 30 loses the rest; and what is in it takes time.
//!             .transport_channel_capacity(1_000)
//!             .shutdown_timeout(Duration::from_secs(20))
//!             // Without it, Sentry samples and counts each service for itself.
//!             .transport(TraceTransport::new(sentry::transports::DefaultTransportFactory)),
//!     );
//!     tracing_subscriber::registry()
//!         // Below INFO, tonic's libraries log every frame.
//!         .with(tracing_subscriber::fmt::layer().with_filter(LevelFilter::INFO))
//!         .with(SentryTracingLayer::new())
//!         .init();
//!     if cfg!(debug_assertions) {
//!         // Says in plain words what is wrong.
//!         eprintln!("{}", sentry_tonic::check_setup());
//!     }
//!     // Declared after the guard, and so dropped ahead of it.
//!     let runtime = tokio::runtime::Runtime::new()?;
//!     runtime.block_on(serve())
//! }
//!
//! async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//!     let endpoint = Endpoint::from_static("http://[::1]:50052");
//!     let channel = ServiceBuilder::new()
//!         .layer(SentryClientLayer::new().endpoint(endpoint.uri().clone()))
//!         .service(endpoint.connect_lazy());
//!     // let client = GreeterClient::new(channel);
//!     # let _ = channel;
//!     # let greeter = tonic::service::Routes::default();
//!     Server::builder()
//!         .layer(SentryServerLayer::new())
//!         .add_routes(greeter) // or .add_service(GreeterServer::new(MyGreeter))
//!         // A process that a signal kills loses what is queued.
//!         .serve_with_shutdown("[::1]:50051".parse()?, told_to_stop())
//!         .await?;
//!     Ok(())
//! }
//!
//! /// Ctrl-C; SIGTERM, too, is in `examples/support/setup.rs`.
//! async fn told_to_stop() {
//!     let _ = tokio::signal::ctrl_c().await;
//! }
//! ```
//!
//! [`check_setup`] looks for the usual mistakes. Why the guard is outside of the runtime, and
//! other kinds of servers and clients: [`setup`](manual::setup).
//!
//! The middleware opens a tracing span for each call; [`SentryTracingLayer`] makes Sentry's
//! transactions and spans of these, and of all others. Other layers, such as an
//! OpenTelemetry exporter, see the same spans.
//!
//! # The manual
//!
//! | | |
//! |---|---|
//! | [`setup`](manual::setup) | where the layers go, for each kind of server and client; filters, guard and runtime |
//! | [`calls`](manual::calls) | what happens to a call, when it ends, what arrives in Sentry for each way to end |
//! | [`options`](manual::options) | every option: what it does, its default, and why that is the default |
//! | [`people`](manual::people) | whom and what Sentry is told of, and which secrets it never is |
//! | [`traces`](manual::traces) | which headers go from service to service, and who decides what is sampled |
//! | [`fields`](manual::fields) | the fields that spans of calls have, and those that any span may carry |
//! | [`hubs`](manual::hubs) | scopes, tasks and threads |
//! | [`opentelemetry`](manual::opentelemetry) | both backends in one subscriber, with the same ids |
//! | [`performance`](manual::performance) | what it costs, high rates, long streams, reliability |
//! | [`troubleshooting`](manual::troubleshooting) | from what is wrong to why, how to tell, and what to do |
//! | [`migrating`](manual::migrating) | from sentry-tower, sentry-tracing, tower-http or tonic-tracing-opentelemetry |
//! | [`limits`](manual::limits) | what it cannot do |
//!
//! # Features
//!
//! * `error-details`: reads the `google.rpc` details of failed calls, by
//!   [tonic-types](https://docs.rs/tonic-types).
//! * `opentelemetry`: gives spans in Sentry the ids that they have in
//!   OpenTelemetry, by tracing-opentelemetry 0.34 in the same subscriber, and tells that
//!   of remote parents and of metadata.
//! * `opentelemetry-metrics`: [`SentryServerLayer::otel_metrics`], by opentelemetry 0.33.
//! * `sentry-metrics`: [`SentryServerLayer::sentry_metrics`].
//! * `release-health` (default): makes each call of a server a [session], where the
//!   Sentry client asks for sessions that are requests. A call that panics has crashed,
//!   one in which an error was sent has errored. Failures that were held back in a storm do
//!   not count as errors.
//! * `tower-http`: [`SentryMakeSpan`] and [`SentryTraceCallbacks`], for services that are watched
//!   by `TraceLayer` of tower-http 0.7 already.
//! * `transport` (default): reads the peer's address and the transport errors of
//!   `tonic::transport`, hyper and h2.
//!
//! # Types of other crates
//!
//! What this crate takes and returns is made of these as well. One of them in a version that is
//! not compatible with that here comes with a version of this crate that is not, either:
//!
//! | crate | what is in the API |
//! |---|---|
//! | `bytes` 1 | the data of bodies |
//! | `http` 1 | `Request`, `Response`, `request::Parts`, `HeaderMap`, `Uri` |
//! | `http-body` 1 | `Body` |
//! | `sentry-core` 0.49 | `Hub`, the traits of transports, and of its `protocol` `User` and `Value`, which are those of `sentry-types` 0.49 and `serde_json` 1 |
//! | `tonic` 0.14 | `Code`, `Status`, `Request`, `body::Body`, `service::Interceptor`, `server::NamedService` |
//! | `tower-layer` 0.3 | `Layer` |
//! | `tower-service` 0.3 | `Service` |
//! | `tracing` 0.1 | `Span`, and, of its `tracing-core` 0.1, `Dispatch`, `LevelFilter` and `span::Id` |
//! | `tracing-subscriber` 0.3 | `Layer` and what its methods take |
//! | `opentelemetry` 0.33 | `metrics::Meter`, with `opentelemetry-metrics` |
//! | `tower-http` 0.7 | the traits of hooks, and what these take, with `tower-http` |
//!
//! No type of tracing-opentelemetry is, but `opentelemetry` works with that version alone, so
//! that another one counts as breaking too. So does a newer Rust than 1.89. All other
//! dependencies may change at any time.
//!
//! [session]: https://docs.sentry.io/product/releases/health/
//! [tonic]: https://docs.rs/tonic

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod bridge;
mod call;
mod client;
mod fields;
#[cfg(feature = "init")]
mod init;
mod interceptor;
// Text alone, that nobody has to compile.
mod lifecycle;
#[cfg(any(doc, doctest))]
pub mod manual;
mod propagation;
mod report;
mod rpc;
mod server;
mod setup;
mod span_ext;
mod sync;

pub use self::bridge::{SentryTracingLayer, TraceTransport};
pub use self::call::{RequestBody, ResponseBody, ResponseFuture};
#[cfg(feature = "transport")]
pub use self::client::{SentryChannel, channel, connect};
pub use self::client::{SentryClientLayer, SentryClientService};
#[cfg(feature = "init")]
pub use self::init::{InitGuard, init};
pub use self::interceptor::TracePropagationInterceptor;
pub use self::lifecycle::PanicPolicy;
pub use self::propagation::{TraceFormat, TraceHeaders, W3cSpanContext};
pub use self::report::{CallerIdentity, RpcOutcome, SemanticConventions};
pub use self::rpc::RpcSide;
#[cfg(feature = "tower-http")]
pub use self::server::{SentryMakeSpan, SentryTraceCallbacks};
pub use self::server::{SentryServerLayer, SentryServerService};
pub use self::setup::{SetupProblem, SetupReport, check_setup};
pub use self::span_ext::{ContinueTraceError, SentrySpanExt, StatusExt};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
