//! A Greeter server that has tower-http's `TraceLayer`, whose callbacks report its calls to
//! Sentry.
//!
//! `cargo run --example trace_layer` needs no account: it starts a Sentry ingest on loopback,
//! prints what arrives there, and fails if that differs from what the example expects.

mod support {
    pub(crate) mod greeter;
    #[expect(
        clippy::allow_attributes,
        unreachable_pub,
        unused_qualifications,
        reason = "generated"
    )]
    #[rustfmt::skip]
    pub(crate) mod helloworld;
    pub(crate) mod stage;
}

use std::process::ExitCode;
use std::time::Duration;

use sentry::ClientOptions;
use sentry_tonic::{SentryMakeSpan, SentryServerLayer, SentryTraceCallbacks, SentryTracingLayer};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::codegen::http::Uri;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower_http::classify::GrpcFailureClass;
use tower_http::trace::{OnFailure, TraceLayer};
use tracing::{Span, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::greeter::MyGreeter;
use support::helloworld::HelloRequest;
use support::helloworld::greeter_client::GreeterClient;
use support::helloworld::greeter_server::GreeterServer;
use support::stage::{self, Error, Ingest, Stopped};

const INTRODUCTION: &str = "\
A client has called a Greeter server that has tower-http's TraceLayer. These are the
traces of the calls, as Sentry received them, the errors in them, and a table of both
sides. TraceLayer does not catch panics: tonic resets the stream, and the caller gets
CANCELLED.
";

const EXPECTED: &str = "\
operation    name                                status
grpc.client  /helloworld.Greeter/SayHello        ok
grpc.server  /helloworld.Greeter/SayHello        ok
grpc.client  /helloworld.Greeter/SayHello        not_found
grpc.server  /helloworld.Greeter/SayHello        not_found
grpc.client  /helloworld.Greeter/SayHelloStream  ok
grpc.server  /helloworld.Greeter/SayHelloStream  ok
grpc.client  /helloworld.Greeter/SayHelloStream  cancelled
grpc.server  /helloworld.Greeter/SayHelloStream  cancelled
grpc.client  /helloworld.Greeter/SayHello        cancelled
grpc.server  /helloworld.Greeter/SayHello        internal_error
";

fn main() -> ExitCode {
    stage::run(run)
}

fn run() -> Result<(), Error> {
    let ingest = Ingest::start()?;
    let sentry = sentry_tonic::init(
        ClientOptions::new()
            .dsn(&ingest.dsn("greeter"))
            .server_name("greeter")
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
    let trace = TraceLayer::new_for_grpc()
        .make_span_with(SentryMakeSpan::new(SentryServerLayer::new()))
        .on_response(SentryTraceCallbacks)
        .on_body_chunk(SentryTraceCallbacks)
        .on_eos(SentryTraceCallbacks)
        // A callback of the application, which calls that of this crate.
        .on_failure(
            |failure: GrpcFailureClass, latency: Duration, span: &Span| {
                warn!(%failure, ?latency, "a call has failed");
                SentryTraceCallbacks.on_failure(failure, latency, span);
            },
        );
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .layer(trace)
        .add_service(GreeterServer::new(MyGreeter::default()))
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}

async fn call(uri: Uri) -> Result<(), Error> {
    let mut client = GreeterClient::new(sentry_tonic::channel(uri));

    client.say_hello(hello("Ferris")).await?;
    let found = client.say_hello(hello("notfound")).await;
    stage::expect(Code::NotFound, found)?;

    let mut replies = client.say_hello_stream(hello("Ada")).await?.into_inner();
    while let Some(reply) = replies.next().await {
        reply?;
    }

    // Dropped after its first message.
    let mut replies = client
        .say_hello_stream(hello("endless"))
        .await?
        .into_inner();
    replies.next().await.transpose()?;
    drop(replies);

    // The handler panics, and tonic resets the stream.
    stage::expect(Code::Cancelled, client.say_hello(hello("panic")).await)
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
    }
}
