//! HTTP routes and a tonic service on one axum router, with `SentryServerLayer` around both:
//! gRPC calls are transactions, HTTP requests pass through.
//!
//! `cargo run --example axum` needs no account: it starts a Sentry ingest on loopback, prints
//! what arrives there, and fails if that differs from what the example expects. gRPC needs
//! the feature `http2` of axum.

mod support {
    pub(crate) mod shop;
    pub(crate) mod stage;
}

use std::process::ExitCode;

use axum::body::Bytes;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sentry::ClientOptions;
use sentry_tonic::{SentryServerLayer, SentryTracingLayer};
use tokio::net::TcpListener;
use tonic::codegen::http::Uri;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tracing::{info, instrument};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::shop::orders_client::OrdersClient;
use support::shop::orders_server::{Orders, OrdersServer};
use support::shop::{Order, Receipt, order};
use support::stage::{self, Error, Ingest, Stopped};

const INTRODUCTION: &str = "\
An axum server has answered two gRPC calls and an HTTP request. This is what Sentry
received: the calls, from their client and from the server.
";

const EXPECTED: &str = "\
operation    name                status
grpc.client  /shop.Orders/Place  ok
grpc.server  /shop.Orders/Place  ok
grpc.client  /shop.Orders/Place  internal_error
grpc.server  /shop.Orders/Place  internal_error
";

fn main() -> ExitCode {
    stage::run(run)
}

fn run() -> Result<(), Error> {
    let ingest = Ingest::start()?;
    let sentry = sentry_tonic::init(
        ClientOptions::new()
            .dsn(&ingest.dsn("shop"))
            .server_name("shop")
            .traces_sample_rate(1.0),
    );
    tracing_subscriber::registry()
        .with(SentryTracingLayer::new())
        .with(LevelFilter::INFO)
        .init();
    stage::serve_and_call(serve, call)?;
    // Sends the queued envelopes.
    drop(sentry);

    let items = ingest.items();
    let columns = [
        ("operation", "/contexts/trace/op"),
        ("name", "/transaction"),
        ("status", "/contexts/trace/status"),
    ];
    let table = stage::table(&items, "transaction", &columns);
    stage::show(INTRODUCTION, &items, &table, EXPECTED)
}

async fn serve(listener: TcpListener, stopped: Stopped) -> Result<(), Error> {
    let app = Routes::new(OrdersServer::new(Shop))
        .into_axum_router()
        .route("/health", get(|| async { "open" }))
        // Applies to all routes above.
        .layer(SentryServerLayer::new());
    axum::serve(listener, app)
        .with_graceful_shutdown(stopped)
        .await?;
    Ok(())
}

struct Shop;

#[tonic::async_trait]
impl Orders for Shop {
    async fn place(&self, request: Request<Order>) -> Result<Response<Receipt>, Status> {
        let text = pack(&request.into_inner().item).await?;
        Ok(Response::new(Receipt { text }))
    }
}

#[instrument(fields(sentry.op = "function"))]
async fn pack(item: &str) -> Result<String, Status> {
    info!(item, "packing");
    match item {
        "glass" => Err(Status::internal("it broke")),
        _ => Ok(format!("a box of {item}")),
    }
}

async fn call(uri: Uri) -> Result<(), Error> {
    let channel = sentry_tonic::channel(uri.clone());
    let mut client = OrdersClient::new(channel);
    client.place(order("tea")).await?;

    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = http.get(format!("{uri}health").parse()?).await?;
    let answer = response.into_body().collect().await?.to_bytes();
    if answer != "open" {
        return Err(format!("the HTTP route answered {answer:?}").into());
    }

    stage::expect(Code::Internal, client.place(order("glass")).await)
}
