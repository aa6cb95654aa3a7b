//! Two services in one server, each with its own `SentryServerLayer` and options.
//!
//! `cargo run --example per_service` needs no account: it starts a Sentry ingest on loopback,
//! prints what arrives there, and fails if that differs from what the example expects.

mod support {
    pub(crate) mod shop;
    pub(crate) mod stage;
}

use std::process::ExitCode;

use sentry::ClientOptions;
use sentry_tonic::{SentryChannel, SentryServerLayer, SentryTracingLayer};
use tokio::net::TcpListener;
use tonic::codegen::http::Uri;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tower::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::shop::orders_client::OrdersClient;
use support::shop::orders_server::{Orders, OrdersServer};
use support::shop::stock_client::StockClient;
use support::shop::stock_server::{Stock, StockServer};
use support::shop::{Order, Receipt, order};
use support::stage::{self, Error, Ingest, Stopped};

const INTRODUCTION: &str = "\
A client has called Orders, which calls Stock and returns its failures. Both are in one
server, and only Orders sends error events. This is what Sentry received.
";

const EXPECTED: &str = "\
transaction         team       status
/shop.Orders/Place  checkout   ok
/shop.Stock/Take    warehouse  ok
/shop.Orders/Place  checkout   failed_precondition
/shop.Stock/Take    warehouse  failed_precondition

error of            team      status
/shop.Orders/Place  checkout  FAILED_PRECONDITION
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
    let transactions = [
        ("transaction", "/transaction"),
        ("team", "/tags/team"),
        ("status", "/contexts/trace/status"),
    ];
    let errors = [
        ("error of", "/transaction"),
        ("team", "/tags/team"),
        ("status", "/contexts/rpc/status"),
    ];
    let transactions = stage::table(&items, "transaction", &transactions);
    let errors = stage::table(&items, "event", &errors);
    let tables = format!("{transactions}\n{errors}");
    stage::show(INTRODUCTION, &items, &tables, EXPECTED)
}

async fn serve(listener: TcpListener, stopped: Stopped) -> Result<(), Error> {
    let orders = SentryServerLayer::new()
        .tag("team", "checkout")
        .capture_codes([Code::FailedPrecondition, Code::Internal, Code::Unknown]);
    // No events: the services that call it decide which failures are errors.
    let stock = SentryServerLayer::new()
        .tag("team", "warehouse")
        .capture_codes([]);
    let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr()?))?;
    let shop = Shop {
        stock: StockClient::new(sentry_tonic::channel(endpoint)),
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    // Each service keeps its NAME, which the server routes by.
    Server::builder()
        .add_service(orders.layer(OrdersServer::new(shop)))
        .add_service(stock.layer(StockServer::new(Warehouse)))
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}

struct Shop {
    stock: StockClient<SentryChannel>,
}

#[tonic::async_trait]
impl Orders for Shop {
    async fn place(&self, request: Request<Order>) -> Result<Response<Receipt>, Status> {
        let order = request.into_inner();
        self.stock.clone().take(order).await
    }
}

struct Warehouse;

#[tonic::async_trait]
impl Stock for Warehouse {
    async fn take(&self, request: Request<Order>) -> Result<Response<Receipt>, Status> {
        match request.into_inner().item.as_str() {
            "gold" => Err(Status::failed_precondition("there is none left")),
            item => Ok(Response::new(Receipt {
                text: format!("a box of {item}"),
            })),
        }
    }
}

async fn call(uri: Uri) -> Result<(), Error> {
    let mut client = OrdersClient::connect(uri.to_string()).await?;
    client.place(order("tea")).await?;
    stage::expect(Code::FailedPrecondition, client.place(order("gold")).await)
}
