//! Finds sentry-tower's `SentryHttpLayer` around gRPC services, and only there. Each in a process of
//! its own: what is found concerns the process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use sentry::protocol::SpanStatus;
use sentry::test::TestTransport;
use sentry::{ClientOptions, Hub, SentryFutureExt, TransactionContext, protocol};
use sentry_tonic::{
    RequestBody, SentryClientLayer, SentryServerLayer, SentryTracingLayer, SetupProblem,
    TraceTransport, check_setup,
};
use sentry_tower::{NewSentryLayer, SentryHttpLayer};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tower::{Layer, ServiceBuilder, service_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::migrating::stack::serve;
use crate::support::alone::alone;
use crate::support::greeter::{Running, Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::received::Received;
use crate::support::world::DSN;

const SAY_HELLO: &str = "/helloworld.Greeter/SayHello";
const POST_SAY_HELLO: &str = "POST /helloworld.Greeter/SayHello";

/// Runs `calls` in a process that is set up as an application is. Returns the names and statuses
/// of the transactions that Sentry received, sorted.
fn sent_by<F: Future>(calls: F) -> Vec<(String, SpanStatus)> {
    let transport = TestTransport::new();
    let guard = sentry_tonic::init(
        ClientOptions::new()
            .dsn(DSN)
            .traces_sample_rate(1.0)
            .transport(TraceTransport::new(Arc::clone(&transport))),
    );
    registry().with(SentryTracingLayer::new()).init();
    Runtime::new().unwrap().block_on(calls);
    assert!(guard.flush(None));
    let mut sent = Received::new(&transport.fetch_and_clear_envelopes()).statuses();
    sent.sort_by(|(name, _), (other, _)| name.cmp(other));
    sent
}

fn named<const N: usize>(sent: [(&str, SpanStatus); N]) -> Vec<(String, SpanStatus)> {
    sent.map(|(name, status)| (name.to_owned(), status)).into()
}

fn problems() -> Vec<SetupProblem> {
    check_setup().problems().to_vec()
}

fn greeter() -> Scripted {
    Scripted::new().say_hello(async |name| match name.as_str() {
        "unknown" => Err(Status::not_found("no such name")),
        name => Ok(reply(name)),
    })
}

/// The layers of sentry-tower, in their order, for requests with this body.
macro_rules! sentry_tower {
    ($body:ty) => {
        ServiceBuilder::new()
            .layer(NewSentryLayer::<Request<$body>>::new_from_top())
            .layer(SentryHttpLayer::new().enable_transaction())
    };
}

/// Makes a call that fails, and stops the server.
async fn call_unknown(server: Running) {
    let mut client = server.client().await;
    let failed = client.say_hello(request("unknown")).await.unwrap_err();
    assert_eq!(failed.code(), Code::NotFound);
    drop(client);
    server.stop().await;
}

/// Serves a router over TCP until the runtime ends.
async fn listen(app: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    address
}

#[test]
fn around_a_tonic_server_it_is_a_problem() {
    let name = "setup_http_layer::around_a_tonic_server_it_is_a_problem";
    alone(name, || {
        let sent = sent_by(async {
            let layer = sentry_tower!(Body);
            let server = serve!(greeter(), layer.layer(SentryServerLayer::new()));
            assert_eq!(problems(), []);
            call_unknown(server).await;
            assert_eq!(problems(), [SetupProblem::ConflictingHttpLayer]);
        });
        let both = named([
            (SAY_HELLO, SpanStatus::NotFound),
            (POST_SAY_HELLO, SpanStatus::Ok),
        ]);
        assert_eq!(sent, both);
    });
}

#[test]
fn inside_of_the_server_layer_it_is_a_problem() {
    let name = "setup_http_layer::inside_of_the_server_layer_it_is_a_problem";
    alone(name, || {
        sent_by(async {
            let layer = ServiceBuilder::new()
                .layer(SentryServerLayer::new())
                .layer(sentry_tower!(RequestBody<Body>));
            call_unknown(serve!(greeter(), layer)).await;
            assert_eq!(problems(), [SetupProblem::ConflictingHttpLayer]);
        });
    });
}

#[test]
fn around_grpc_routes_of_axum_it_is_a_problem() {
    let name = "setup_http_layer::around_grpc_routes_of_axum_it_is_a_problem";
    alone(name, || {
        let sent = sent_by(async {
            let app = Routes::new(GreeterServer::new(greeter()))
                .into_axum_router()
                .layer(SentryServerLayer::new())
                .layer(sentry_tower!(axum::body::Body));
            let address = listen(app).await;
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let mut client = GreeterClient::new(endpoint.connect().await.unwrap());
            client.say_hello(request("Ferris")).await.unwrap();
            assert_eq!(problems(), [SetupProblem::ConflictingHttpLayer]);
        });
        // The call is a span of the transaction.
        assert_eq!(sent, named([(POST_SAY_HELLO, SpanStatus::Ok)]));
    });
}

#[test]
fn without_a_server_layer_it_makes_the_only_transaction() {
    let name = "setup_http_layer::without_a_server_layer_it_makes_the_only_transaction";
    alone(name, || {
        let sent = sent_by(async {
            call_unknown(serve!(greeter(), sentry_tower!(Body))).await;
            assert_eq!(problems(), []);
        });
        assert_eq!(sent, named([(POST_SAY_HELLO, SpanStatus::Ok)]));
    });
}

/// A handler calls a service over TCP, and another one in this process.
#[test]
fn on_an_http_server_that_calls_grpc_it_is_fine() {
    let name = "setup_http_layer::on_an_http_server_that_calls_grpc_it_is_fine";
    alone(name, || {
        let sent = sent_by(async {
            let back = greeter().serve().await;
            let remote = back.observed_client(SentryClientLayer::new()).await;
            let local = SentryServerLayer::new().layer(GreeterServer::new(greeter()));
            let local = GreeterClient::new(local);
            let greet = move || {
                let (mut remote, mut local) = (remote.clone(), local.clone());
                async move {
                    remote.say_hello(request("Ferris")).await.unwrap();
                    local.say_hello(request("Ferris")).await.unwrap();
                    "greeted"
                }
            };
            let app = axum::Router::new()
                .route("/greet", axum::routing::get(greet))
                .layer(sentry_tower!(axum::body::Body));
            let address = listen(app).await;
            let client = legacy::Client::builder(TokioExecutor::new()).build_http::<Body>();
            let uri = format!("http://{address}/greet").parse().unwrap();
            let response = client.get(uri).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "greeted");
            assert_eq!(problems(), []);
        });
        let front_and_back = named([(SAY_HELLO, SpanStatus::Ok), ("GET /greet", SpanStatus::Ok)]);
        assert_eq!(sent, front_and_back);
    });
}

/// Its transaction differs from one of `SentryHttpLayer` only by its origin.
#[test]
fn a_transaction_of_the_application_is_fine() {
    let name = "setup_http_layer::a_transaction_of_the_application_is_fine";
    alone(name, || {
        let sent = sent_by(async {
            let traced = |inner| {
                service_fn(move |request: Request<Body>| {
                    let mut inner: GreeterService = Clone::clone(&inner);
                    async move {
                        let transaction = start_transaction(&request);
                        let response = tower::Service::call(&mut inner, request).await;
                        transaction.finish();
                        response
                    }
                    .bind_hub(Hub::new_from_top(Hub::current()))
                })
            };
            let service = SentryServerLayer::new().layer(GreeterServer::new(greeter()));
            let mut client = GreeterClient::new(traced(service));
            client.say_hello(request("Ferris")).await.unwrap();
            assert_eq!(problems(), []);
        });
        assert_eq!(sent, named([(POST_SAY_HELLO, SpanStatus::Ok)]));
    });
}

type GreeterService = sentry_tonic::SentryServerService<GreeterServer<Scripted>>;

fn start_transaction(request: &Request<Body>) -> sentry::Transaction {
    assert_eq!(request.method(), Method::POST);
    let context = TransactionContext::new(POST_SAY_HELLO, "http.server");
    let transaction = sentry::start_transaction(context);
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    transaction.set_request(protocol::Request {
        headers: headers.collect(),
        ..Default::default()
    });
    transaction.set_status(SpanStatus::Ok);
    sentry::configure_scope(|scope| scope.set_span(Some(transaction.clone().into())));
    transaction
}
