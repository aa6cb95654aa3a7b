//! Sentry for [tonic]: every gRPC call, in and out, is part of one distributed
//! trace, from the first header to the last byte, with the status that the caller
//! saw.
//!
//! A few lines beside the tracing set-up that an application has already:
//!
//! ```no_run
//! use sentry_tonic::{GrpcClientLayer, GrpcServerLayer, SentryGrpcLayer, TraceTransport};
//! use tonic::transport::{Channel, Server};
//! use tower::ServiceBuilder;
//! use tracing_subscriber::layer::SubscriberExt;
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! let _guard = sentry::init(
//!     sentry::ClientOptions::new()
//!         .dsn("https://key@o0.ingest.sentry.io/0")
//!         .traces_sample_rate(1.0)
//!         .transport(TraceTransport::new(sentry::transports::DefaultTransportFactory)),
//! );
//! tracing_subscriber::registry()
//!     .with(SentryGrpcLayer::new())
//!     .init();
//! let server = Server::builder().layer(GrpcServerLayer::new());
//! let channel = Channel::from_static("http://[::1]:50051").connect_lazy();
//! let channel = ServiceBuilder::new()
//!     .layer(GrpcClientLayer::new())
//!     .service(channel);
//! # let _ = (server, channel);
//! ```
//!
//! Hold the guard outside of the runtime: calls that the end of the runtime
//! cuts short are reported too.
//!
//! # What happens to a call
//!
//! [`GrpcServerLayer`] and [`GrpcClientLayer`] open a tracing span, `grpc.server`
//! or `grpc.client` (target `sentry_tonic`, level INFO), enter it for every poll of
//! the call and of its bodies, and record on it how the call ended.
//! [`SentryGrpcLayer`] makes a Sentry transaction of the first such span, and spans
//! of what is nested in it. Either works without the other: the middleware serves
//! any tracing layer, and the tracing layer takes any span.
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
//! 7. being dropped: UNKNOWN at the announced end of the body, INTERNAL by a
//!    panic, DEADLINE_EXCEEDED once the `grpc-timeout` has run down, else
//!    CANCELLED. On a server the last tenth of a timeout, at most 100 ms, counts as
//!    run down: callers start their clock earlier.
//!
//! The transaction is sent then, or, where spans inside it have been entered
//! and are still open, once they close.
//!
//! Only requests with the content type `application/grpc` are calls, alone or
//! followed by `+` or `;`; all others pass through. So do calls whose span no
//! subscriber wants.
//!
//! # Traces
//!
//! A server continues the trace in `sentry-trace` and `baggage`, and a client takes
//! it to the next server. The [sampling context] that the head of a trace wrote
//! goes on as it is, and to Sentry with every transaction, and with every error
//! that is captured in one. A trace that begins here gets one, with a
//! `sample_rand` that follows from the trace's id.
//!
//! Of the [sampling decision], a `traces_sampler` has the first word: it is asked
//! once for each transaction, with the name, the operation, the decision of the
//! caller, and under [`custom`](sentry_core::TransactionContext::custom)
//! `rpc.system`, `rpc.service`, `rpc.method`, and `parent_sample_rate` where it is
//! known. Without a sampler the caller's decision holds, and where there is none, a
//! trace is sampled if its `sample_rand` is below the rate. A sampler that panics
//! counts as none, without a rate.
//!
//! sentry-core knows none of this. So a transaction is started on a second client,
//! made from the options of the real one, which hands it over when it is finished.
//! `sentry::capture_error`, `get_span().start_child()` and the like are unaware of
//! it. That sentry's transports drop the context again is what [`TraceTransport`]
//! is for.
//!
//! [sampling context]: https://develop.sentry.dev/sdk/foundations/trace-propagation/dynamic-sampling-context/
//! [sampling decision]: https://develop.sentry.dev/sdk/telemetry/traces/#sampling
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
//! A hub that the application itself forks, and binds to a task without a tracing
//! span, leads to the call as well: spans in it are the call's. Once the call was
//! sent, they are transactions of their own that go on from it.
//!
//! Three things that a hub for each task forgives do harm on a shared one:
//!
//! * `scope.clear()`: what is captured on the hub after that, outside of the spans in
//!   the call, is not the call's
//! * a `push_scope` guard that is held across an `.await`, in futures that are
//!   joined: guards of sentry panic where they are dropped out of order
//! * `bind_hub(Hub::current())` on a spawned task: the hub is then current on
//!   two threads. Bind a `Hub::new_from_top(Hub::current())`.
//!
//! # At high rates
//!
//! Sentry's transports send one envelope at a time, and a sampled call is one: 20 in a second
//! where Sentry answers in 50 ms, 160 where a Relay does in 5 ms. What comes faster waits in a
//! queue of 30, which errors wait in too, and is lost where that is full. So, for each process:
//!
//! * [`traces_sample_rate`]: 0.5 / (seconds to an answer × calls in a second), or less. For
//!   1000 calls a second that is 0.01 at 50 ms, and 0.1 at 5 ms.
//! * [`transport_channel_capacity`]: 1000, for bursts. It takes 0.5 MB at once, and 5 to 15 MB
//!   when it is full, of calls with 1 to 11 spans.
//! * [`shutdown_timeout`] (default 2 s): what is waiting may take as long as all its answers.
//! * Servers stop before the guard of `sentry::init` goes. What is sent after
//!   [`close`](sentry_core::Client::close) is dropped by sentry-core.
//!
//! What finds no room is counted, and Sentry told of it in a client report, with the next
//! envelope: what arrives and what is reported is together every sampled call, up to `close`, but
//! for what a [`TraceTransport`] loses to the network, a 5xx or a limit to everything.
//! What is waiting when `close` runs out of time, what no envelope has come after to report, and
//! what is sent later is not told.
//!
//! [`traces_sample_rate`]: sentry_core::ClientOptions::traces_sample_rate
//! [`transport_channel_capacity`]: sentry_core::ClientOptions::transport_channel_capacity
//! [`shutdown_timeout`]: sentry_core::ClientOptions::shutdown_timeout
//!
//! # Features
//!
//! * `error-details`: reads the `google.rpc` details of failed calls, by
//!   [tonic-types](https://docs.rs/tonic-types).
//! * `opentelemetry`: gives spans in Sentry the ids that they have in
//!   OpenTelemetry, by tracing-opentelemetry 0.34 in the same subscriber, and tells that
//!   of remote parents and of metadata.
//! * `opentelemetry-metrics`: [`GrpcServerLayer::otel_metrics`], by opentelemetry 0.33.
//! * `sentry-metrics`: [`GrpcServerLayer::sentry_metrics`].
//! * `release-health` (default): makes each call of a server a [session], where the
//!   Sentry client asks for sessions that are requests. A call that panics has crashed,
//!   one in which an error was sent has errored. Failures that were held back in a storm do
//!   not count as errors.
//! * `tower-http`: [`GrpcMakeSpan`] and [`GrpcTraceHooks`], for services that are watched
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
//! [as gRPC maps it]: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md

#![forbid(unsafe_code)]

mod bridge;
mod call;
mod client;
mod fields;
mod interceptor;
// Text alone, that nobody has to compile.
#[cfg(any(doc, doctest))]
pub mod manual;
mod propagation;
mod report;
mod rpc;
mod server;
mod span_ext;
mod sync;
mod watch;

pub use self::bridge::{SentryGrpcLayer, TraceTransport};
pub use self::call::{RequestBody, ResponseBody, ResponseFuture};
pub use self::client::{GrpcClientLayer, GrpcClientService};
pub use self::interceptor::TracePropagationInterceptor;
pub use self::propagation::{TraceFormat, TraceHeaders, W3cSpan};
pub use self::report::{InvalidMetadataKey, RpcCaller, RpcOutcome, SemanticConventions};
pub use self::rpc::RpcSide;
#[cfg(feature = "tower-http")]
pub use self::server::{GrpcMakeSpan, GrpcTraceHooks};
pub use self::server::{GrpcServerLayer, GrpcServerService};
pub use self::span_ext::{ContinueTraceError, SentrySpanExt, keep_source};
pub use self::watch::OnPanic;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
