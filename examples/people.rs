//! Personal data of calls: users, tags, parameters and metadata, without secrets.
//!
//! `cargo run --example people` needs no account: it starts a Sentry ingest on loopback,
//! prints what arrives there, and fails if that differs from what the example expects.

mod support {
    pub(crate) mod shop;
    pub(crate) mod stage;
}

use std::process::ExitCode;

use http::HeaderName;
use http::header::AUTHORIZATION;
use sentry::{ClientOptions, User};
use sentry_tonic::{CallerIdentity, SentryServerLayer, SentryTracingLayer};
use tokio::net::TcpListener;
use tonic::codegen::http::Uri;
use tonic::codegen::http::request::Parts;
use tonic::metadata::MetadataValue;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tracing::instrument;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::shop::orders_client::OrdersClient;
use support::shop::orders_server::{Orders, OrdersServer};
use support::shop::{Order, Receipt, order};
use support::stage::{self, Error, Ingest, Stopped};

const INTRODUCTION: &str = "\
Grace has placed two orders, one of which failed. An unknown caller has placed a third one.
This is what Sentry received. It contains neither the bearer token nor the card token.
";

const EXPECTED: &str = "\
transaction of  authenticated  email              tenant  item  card_token  x-request-id  authorization
grace           true           grace@example.com  navy    tea   [Filtered]  r-1           [Filtered]
grace           true           grace@example.com  navy    gold  [Filtered]  r-2           [Filtered]
-               false          -                  -       -     -           -             -

error of  item  metadata
grace     gold  {\"authorization\":[\"[Filtered]\"],\"x-request-id\":[\"r-2\"]}
";

const BEARER: &str = "Bearer of-grace";
const CARD_TOKEN: &str = "card-of-grace";

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
        .with(SentryTracingLayer::new().tag_params(["item"]))
        .with(LevelFilter::INFO)
        .init();
    stage::serve_and_call(serve, call)?;
    // Sends the queued envelopes.
    drop(sentry);

    let items = ingest.items();
    let received = |secret| {
        items
            .iter()
            .any(|item| item.payload.to_string().contains(secret))
    };
    if received(BEARER) || received(CARD_TOKEN) {
        return Err("Sentry received a secret".into());
    }
    let transactions = [
        ("transaction of", "/user/id"),
        ("authenticated", "/tags/auth.authenticated"),
        ("email", "/user/email"),
        ("tenant", "/tags/tenant"),
        ("item", "/tags/rpc.param.item"),
        ("card_token", "/contexts/trace/data/rpc.param.card_token"),
        (
            "x-request-id",
            "/contexts/trace/data/rpc.grpc.request.metadata.x_request_id",
        ),
        (
            "authorization",
            "/contexts/trace/data/rpc.grpc.request.metadata.authorization",
        ),
    ];
    let errors = [
        ("error of", "/user/id"),
        ("item", "/tags/rpc.param.item"),
        ("metadata", "/contexts/rpc/request_metadata"),
    ];
    let transactions = stage::table(&items, "transaction", &transactions);
    let errors = stage::table(&items, "event", &errors);
    let tables = format!("{transactions}\n{errors}");
    stage::show(INTRODUCTION, &items, &tables, EXPECTED)
}

async fn serve(listener: TcpListener, stopped: Stopped) -> Result<(), Error> {
    let layer = SentryServerLayer::new()
        .identify_caller(caller)
        .request_metadata([HeaderName::from_static("x-request-id"), AUTHORIZATION]);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        // Outside of the Sentry layer, so that `caller` finds the claims.
        .layer(InterceptorLayer::new(authenticate))
        .layer(layer)
        .add_service(OrdersServer::new(Shop))
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}

/// The claims of a token.
#[derive(Clone)]
struct Claims {
    subject: String,
    tenant: String,
}

/// Stands for a check of a signature. It lets calls without a token pass: handlers decide.
fn authenticate(mut request: Request<()>) -> Result<Request<()>, Status> {
    let token = request.metadata().get("authorization");
    if token.is_some_and(|token| token == BEARER) {
        request.extensions_mut().insert(Claims {
            subject: "grace".to_owned(),
            tenant: "navy".to_owned(),
        });
    }
    Ok(request)
}

fn caller(request: &Parts) -> CallerIdentity {
    let Some(claims) = request.extensions.get::<Claims>() else {
        return CallerIdentity::new().authenticated(false);
    };
    let user = User {
        id: Some(claims.subject.clone()),
        ..User::default()
    };
    CallerIdentity::from(user)
        .authenticated(true)
        .tag("tenant", &claims.tenant)
}

struct Shop;

#[tonic::async_trait]
impl Orders for Shop {
    async fn place(&self, request: Request<Order>) -> Result<Response<Receipt>, Status> {
        if request.extensions().get::<Claims>().is_none() {
            return Err(Status::unauthenticated("who are you?"));
        }
        let text = charge(&request.into_inner().item, CARD_TOKEN).await?;
        Ok(Response::new(Receipt { text }))
    }
}

// The user's email address and parameters of the call. The name of `card_token` marks it as a
// secret.
#[instrument(skip_all, fields(
    sentry.op = "function",
    user.email = "grace@example.com",
    rpc.param.item = item,
    rpc.param.card_token = card_token,
))]
async fn charge(item: &str, card_token: &str) -> Result<String, Status> {
    match item {
        "gold" => Err(Status::internal("the bank does not answer")),
        _ => Ok(format!("a box of {item}")),
    }
}

async fn call(uri: Uri) -> Result<(), Error> {
    let mut client = OrdersClient::connect(uri.to_string()).await?;
    client.place(by_grace("tea", "r-1")).await?;
    stage::expect(Code::Internal, client.place(by_grace("gold", "r-2")).await)?;
    stage::expect(Code::Unauthenticated, client.place(order("tea")).await)
}

fn by_grace(item: &str, id: &'static str) -> Request<Order> {
    let mut request = Request::new(order(item));
    let metadata = request.metadata_mut();
    metadata.insert("authorization", MetadataValue::from_static(BEARER));
    metadata.insert("x-request-id", MetadataValue::from_static(id));
    request
}
