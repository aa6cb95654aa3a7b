//! Sentry for [tonic] services. One layer for `tracing`, one for the server and one for each client
//! report every gRPC call, unary or streaming, as part of one distributed trace: with the gRPC
//! status that the caller got, one event per failure with its causes, and the breadcrumbs, tags and
//! user of that call.
//!
//! # Setup
//!
//! ```sh
//! cargo add tonic@0.14 tonic-prost@0.14 prost@0.14
//! cargo add tokio --features fs,rt-multi-thread
//! cargo add sentry-tonic tracing tracing-subscriber
//! cargo add sentry@0.49 --no-default-features --features backtrace,contexts,panic,reqwest,rustls
//! ```
//!
//! The program below serves `shop.Orders`, calls it, and reports the failure. It reads the DSN from
//! `SENTRY_DSN`. `shop` is the module of `tonic::include_proto!("shop")`.
//!
//! ```rust,no_run
//! # mod shop {
//! #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/support/shop/generated.rs"));
//! # }
//! use sentry_tonic::{SentryServerLayer, SentryTracingLayer, StatusExt};
//! use shop::{Order, Receipt, orders_client::OrdersClient, orders_server::{Orders, OrdersServer}};
//! use tonic::{Request, Response, Status, transport::{Endpoint, Server, server::TcpIncoming}};
//! use tracing_subscriber::{filter::Targets, fmt, prelude::*, registry};
//!
//! struct Shop;
//! #[tonic::async_trait]
//! impl Orders for Shop {
//!     #[tracing::instrument(skip_all)]
//!     async fn place(&self, _: Request<Order>) -> Result<Response<Receipt>, Status> {
//!         let failed = |error| Status::internal("the stock is unreadable").with_source(error);
//!         let text = tokio::fs::read_to_string("stock.txt").await.map_err(failed)?;
//!         Ok(Response::new(Receipt { text }))
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let _guard = sentry_tonic::init(sentry::ClientOptions::new().traces_sample_rate(1.0));
//!     let logs = fmt::layer().with_filter("info,sentry_tonic=off".parse::<Targets>()?);
//!     registry().with(logs).with(SentryTracingLayer::new()).init();
//!     let runtime = tokio::runtime::Runtime::new()?;
//!     runtime.block_on(async {
//!         let incoming = TcpIncoming::bind("127.0.0.1:50051".parse()?)?;
//!         let mut server = Server::builder().layer(SentryServerLayer::new());
//!         tokio::spawn(server.add_service(OrdersServer::new(Shop)).serve_with_incoming(incoming));
//!         let channel = sentry_tonic::channel(Endpoint::from_static("http://127.0.0.1:50051"));
//!         println!("{:?}", OrdersClient::new(channel).place(Order::default()).await);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! An existing service needs four lines of it: [`init()`], `.with(SentryTracingLayer::new())`,
//! `.layer(SentryServerLayer::new())`, and [`channel(endpoint)`](channel()) instead of
//! `endpoint.connect_lazy()`. The filter `sentry_tonic=off` keeps the fields of the call out of log
//! lines.
//!
//! * **Causes.** [`with_source`](StatusExt::with_source) attaches the error behind a status. Sentry
//!   shows it with all of its sources; the caller never sees it.
//! * **`#[instrument]` without `err`.** The server layer reports failed calls itself. With `err`, a
//!   failure of any code becomes an event, NOT_FOUND included, and that event has no causes.
//! * **[`check_setup`].** Print it once after the setup, and again after the first calls: it lists
//!   what is missing or in conflict, with the fix.
//!
//! A client in a struct has the type `OrdersClient<SentryChannel>`, see [`SentryChannel`]. Before you
//! deploy, read the [production checklist](manual::production). Other kinds of servers and clients are
//! in [`setup`](manual::setup).
//!
//! | sentry-tonic | tonic | sentry | tracing-subscriber | OpenTelemetry (optional) | tower-http (optional) |
//! |---|---|---|---|---|---|
//! | 0.1 | 0.14 | 0.49 | 0.3 | opentelemetry 0.33, tracing-opentelemetry 0.34 | 0.7 |
//!
//! Needs Rust 1.89, and a transport of sentry: `reqwest`, `ureq` or `curl`. In sentry 0.49,
//! `reqwest` also needs `rustls` or `native-tls`.
//!
//! The tower layers open a tracing span for each call. [`SentryTracingLayer`] turns these spans, and
//! all others, into Sentry's transactions and spans. Other layers, such as an OpenTelemetry exporter,
//! see the same spans.
//!
//! # The manual
//!
//! | page | content |
//! |---|---|
//! | [`setup`](manual::setup) | where the layers go, for each kind of server and client; subscriber and filters |
//! | [`production`](manual::production) | production checklist: sampling, queue, shutdown, SIGTERM, untrusted callers |
//! | [`calls`](manual::calls) | when a call ends, and what arrives in Sentry for each way to end |
//! | [`options`](manual::options) | every option and its default |
//! | [`people`](manual::people) | personal data and secret filtering |
//! | [`traces`](manual::traces) | trace headers, who decides what is sampled, untrusted callers |
//! | [`fields`](manual::fields) | the attributes of calls, and the fields that any span may have |
//! | [`hubs`](manual::hubs) | scopes, tasks and threads |
//! | [`opentelemetry`](manual::opentelemetry) | Sentry and OpenTelemetry in one subscriber, with the same ids |
//! | [`performance`](manual::performance) | cost, high rates, long streams |
//! | [`troubleshooting`](manual::troubleshooting) | symptoms, causes and fixes |
//! | [`migrating`](manual::migrating) | from sentry-tower, sentry-tracing, tower-http or tonic-tracing-opentelemetry |
//! | [`limits`](manual::limits) | known limitations |
//!
//! # Features
//!
//! * `init` (default): [`init()`], by the crate `sentry` without its default features.
//! * `error-details`: reads the `google.rpc` details of failed calls, by
//!   [tonic-types](https://docs.rs/tonic-types).
//! * `opentelemetry`: gives spans in Sentry the ids that they have in OpenTelemetry, and sets
//!   remote parents and metadata there, by tracing-opentelemetry 0.34 in the same subscriber.
//! * `opentelemetry-metrics`: [`SentryServerLayer::otel_metrics`], by opentelemetry 0.33.
//! * `sentry-metrics`: [`SentryServerLayer::sentry_metrics`].
//! * `release-health` (default): makes each call of a server a [session], if the Sentry client
//!   has `SessionMode::Request`. A call that panics has crashed, one in which an error was sent
//!   has errored. Failures that the rate limit dropped do not count as errors.
//! * `tower-http`: [`SentryMakeSpan`] and [`SentryTraceCallbacks`], for services that have a
//!   `TraceLayer` of tower-http 0.7 already.
//! * `transport` (default): [`channel()`], [`connect()`] and [`SentryChannel`]; reads the peer's
//!   address and the errors of `tonic::transport`, hyper and h2.
//!
//! # Types of other crates
//!
//! The public API contains types of these crates. A breaking upgrade of any of them is a breaking
//! change of this crate:
//!
//! | crate | what is in the API |
//! |---|---|
//! | `bytes` 1 | the data of bodies |
//! | `http` 1 | `Request`, `Response`, `request::Parts`, `HeaderMap`, `HeaderName`, `Uri` |
//! | `http-body` 1 | `Body` |
//! | `sentry-core` 0.49, which `sentry` re-exports | `Client`, `ClientOptions`, `Hub`, the traits of transports, and of `protocol` `User` and `Value`, which are those of `sentry-types` 0.49 and `serde_json` 1 |
//! | `tonic` 0.14 | `Code`, `Status`, `Request`, `body::Body`, `service::Interceptor`, `server::NamedService`; with `transport` `Channel`, `Endpoint` and `Error` |
//! | `tower-layer` 0.3 | `Layer` |
//! | `tower-service` 0.3 | `Service` |
//! | `tracing` 0.1 | `Span`, and, of its `tracing-core` 0.1, `Dispatch`, `LevelFilter` and `span::Id` |
//! | `tracing-subscriber` 0.3 | `Layer` and what its methods take |
//! | `opentelemetry` 0.33 | `metrics::Meter`, with `opentelemetry-metrics` |
//! | `tower-http` 0.7 | the traits of callbacks, and what these take, with `tower-http` |
//!
//! Another version of tracing-opentelemetry for the feature `opentelemetry` is a breaking change
//! too, although none of its types is public, and so is a Rust newer than 1.89. All other
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
mod lifecycle;
// Text alone, which applications need not compile.
#[cfg(any(doc, doctest))]
pub mod manual;
mod propagation;
mod report;
mod rpc;
mod send;
mod server;
mod setup;
mod span_ext;
mod sync;

pub use self::bridge::SentryTracingLayer;
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
pub use self::send::TraceTransport;
#[cfg(feature = "tower-http")]
pub use self::server::{SentryMakeSpan, SentryTraceCallbacks};
pub use self::server::{SentryServerLayer, SentryServerService};
pub use self::setup::{SetupProblem, SetupReport, check_setup};
pub use self::span_ext::{ContinueTraceError, SentrySpanExt, StatusExt};
