//! A policy for error events: which failures are events, how Sentry groups them, and how
//! many are sent.
//!
//! `cargo run --example capture_policy` needs no account: it starts a Sentry ingest on
//! loopback, prints what arrives there, and fails if that differs from what the example
//! expects.

mod support {
    pub(crate) mod shop;
    pub(crate) mod stage;
}

use std::fmt;
use std::process::ExitCode;

use sentry::ClientOptions;
use sentry_tonic::{
    RpcOutcome, SentryClientLayer, SentryServerLayer, SentryTracingLayer, StatusExt as _,
};
use tokio::net::TcpListener;
use tonic::codegen::http::Uri;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};
use tower::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::shop::orders_client::OrdersClient;
use support::shop::orders_server::{Orders, OrdersServer};
use support::shop::{Order, Receipt, order};
use support::stage::{self, Error, Ingest, Stopped};

const INTRODUCTION: &str = "\
Seven calls have failed, and none is sampled. The server ignores that the shop is closed,
sends an event for the lost database, and two events for the glass that broke four times.
The client sends an event for the item that was not found. This is what Sentry received.
";

const EXPECTED: &str = "\
side    status       message           fingerprint
server  UNAVAILABLE  try again         database
client  NOT_FOUND    there is no moon  /shop.Orders/Place, NOT_FOUND
server  INTERNAL     it broke          Place, Internal
server  INTERNAL     it broke          Place, Internal
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
            // Error events do not depend on it.
            .traces_sample_rate(0.0),
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
        ("side", "/contexts/rpc/kind"),
        ("status", "/contexts/rpc/status"),
        ("message", "/contexts/rpc/message"),
        ("fingerprint", "/fingerprint"),
    ];
    let table = stage::table(&items, "event", &columns);
    stage::show(INTRODUCTION, &items, &table, EXPECTED)
}

async fn serve(listener: TcpListener, stopped: Stopped) -> Result<(), Error> {
    let layer = SentryServerLayer::new()
        .capture_if(is_our_fault)
        .fingerprint(issue)
        // For each method and code. The default is 100.
        .max_events_per_minute(2);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .layer(layer)
        .add_service(OrdersServer::new(Shop))
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}

/// A closed shop is not an error, a lost database is one.
fn is_our_fault(outcome: &RpcOutcome<'_>) -> bool {
    match outcome.code() {
        Code::Internal | Code::Unknown | Code::DataLoss => true,
        Code::Unavailable => is_of_database(outcome),
        _ => false,
    }
}

/// All failures of the database are one issue, in all methods.
fn issue(outcome: &RpcOutcome<'_>) -> Vec<String> {
    match is_of_database(outcome) {
        true => vec!["database".to_owned()],
        false => vec![outcome.method().to_owned(), format!("{:?}", outcome.code())],
    }
}

/// Looks at the error that the handler passed to `with_source`.
fn is_of_database(outcome: &RpcOutcome<'_>) -> bool {
    let source = outcome.source();
    source.is_some_and(|source| source.is::<DatabaseError>())
}

#[derive(Debug)]
struct DatabaseError;

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the database does not answer")
    }
}

impl std::error::Error for DatabaseError {}

struct Shop;

#[tonic::async_trait]
impl Orders for Shop {
    async fn place(&self, request: Request<Order>) -> Result<Response<Receipt>, Status> {
        match request.into_inner().item.as_str() {
            "late" => Err(Status::unavailable("the shop is closed")),
            "lost" => Err(Status::unavailable("try again").with_source(DatabaseError)),
            "glass" => Err(Status::internal("it broke")),
            item => Err(Status::not_found(format!("there is no {item}"))),
        }
    }
}

async fn call(uri: Uri) -> Result<(), Error> {
    // By default, clients send no events. Options other than the defaults need the layer.
    let layer = SentryClientLayer::new()
        .endpoint(uri.clone())
        .capture_codes([Code::NotFound]);
    let channel = Channel::builder(uri).connect_lazy();
    let mut client = OrdersClient::new(layer.layer(channel));
    for (item, code) in [
        ("late", Code::Unavailable),
        ("lost", Code::Unavailable),
        ("moon", Code::NotFound),
        ("glass", Code::Internal),
        ("glass", Code::Internal),
        ("glass", Code::Internal),
        ("glass", Code::Internal),
    ] {
        stage::expect(code, client.place(order(item)).await)?;
    }
    Ok(())
}
