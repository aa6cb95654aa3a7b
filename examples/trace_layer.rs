//! A Greeter server that tower-http's `TraceLayer` watches already, and what Sentry sees
//! of its calls through that layer's hooks.
//!
//! `cargo run --example trace_layer` needs no account: it brings a Sentry ingest of its
//! own on loopback, and prints what arrives there.

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
use sentry::transports::DefaultTransportFactory;
use sentry_tonic::{
    SentryMakeSpan, SentryServerLayer, SentryTraceCallbacks, SentryTracingLayer, TraceTransport,
};
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

use support::greeter::{MyGreeter, connect};
use support::helloworld::HelloRequest;
use support::helloworld::greeter_server::GreeterServer;
use support::stage::{self, Error, Ingest, Stopped};

const INTRODUCTION: &str = "\
A client has called a Greeter server that tower-http's TraceLayer watches. These are the
traces of the calls, as Sentry received them, the errors in them, and a table of both
sides. A panic that nobody catches resets its stream: to the caller, it is cancelled.
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
    let sentry = sentry::init(
        ClientOptions::new()
            .dsn(&ingest.dsn("greeter"))
            .server_name("greeter")
            .traces_sample_rate(1.0)
            .transport(TraceTransport::new(DefaultTransportFactory)),
    );
    tracing_subscriber::registry()
        .with(SentryTracingLayer::new())
        .with(LevelFilter::INFO)
        .init();
    stage::serve_and_call(serve, call)?;
    // Sends what is queued.
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
        // A hook that the application had, with ours in it.
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
    let mut client = connect(uri);

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

    // Nobody answers for a handler that panics: its stream is reset.
    stage::expect(Code::Cancelled, client.say_hello(hello("panic")).await)
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
    }
}
