//! A Greeter server that tower-http's `TraceLayer` watches already, and what Sentry sees
//! of its calls through that layer's hooks.
//!
//! `cargo run --example trace_layer` needs no account: it brings a Sentry ingest of its
//! own on loopback, and prints what arrives there.

mod support {
    #[expect(
        clippy::indexing_slicing,
        reason = "of JSON, which has null for what is missing"
    )]
    pub(crate) mod errors;
    pub(crate) mod greeter;
    #[expect(
        clippy::allow_attributes,
        unreachable_pub,
        unused_qualifications,
        reason = "generated"
    )]
    #[rustfmt::skip]
    pub(crate) mod helloworld;
    #[expect(
        clippy::indexing_slicing,
        reason = "of JSON, which has null for what is missing"
    )]
    #[expect(dead_code, reason = "what Spotlight is sent is for other examples")]
    pub(crate) mod ingest;
    #[expect(
        clippy::indexing_slicing,
        reason = "of JSON, which has null for what is missing"
    )]
    #[expect(dead_code, reason = "totals are for many traces")]
    pub(crate) mod waterfall;
}

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use sentry::ClientOptions;
use sentry::transports::DefaultTransportFactory;
use sentry_tonic::{
    GrpcMakeSpan, GrpcServerLayer, GrpcTraceHooks, SentryGrpcLayer, TraceTransport,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tower_http::classify::GrpcFailureClass;
use tower_http::trace::{OnFailure, TraceLayer};
use tracing::{Span, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::errors;
use support::greeter::{MyGreeter, Upstream, connect};
use support::helloworld::HelloRequest;
use support::helloworld::greeter_server::GreeterServer;
use support::ingest::Ingest;
use support::waterfall;

type Error = Box<dyn std::error::Error + Send + Sync>;

const INTRODUCTION: &str = "\
A client has called a Greeter server that tower-http's TraceLayer watches. These are the
traces of the calls, as Sentry received them, and the errors in them.
";

/// What the calls end with, as Sentry names it.
const STATUSES: [&str; 5] = ["ok", "not_found", "ok", "cancelled", "internal_error"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trace_layer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    if let Some(argument) = std::env::args().nth(1) {
        return Err(format!("unknown argument {argument:?}, usage: trace_layer").into());
    }
    let ingest = Ingest::start()?;
    let sentry = sentry::init(
        ClientOptions::new()
            .dsn(&ingest.dsn("greeter"))
            .server_name("greeter")
            .traces_sample_rate(1.0)
            .transport_channel_capacity(1_000)
            .transport(TraceTransport::new(DefaultTransportFactory)),
    );
    tracing_subscriber::registry()
        .with(SentryGrpcLayer::new())
        .with(LevelFilter::INFO)
        .init();
    let runtime = Runtime::new()?;
    let called = runtime.block_on(serve_and_call());
    // The calls end with it, at last.
    drop(runtime);
    drop(sentry);
    called?;

    let items = ingest.items();
    let errors = errors::render(&items);
    let text = format!("{INTRODUCTION}\n{}{errors}", waterfall::render(&items));
    // A reader like `head` may have gone.
    let _ = std::io::stdout().write_all(text.as_bytes());

    let traces = items.iter().filter(|item| item.kind() == "transaction");
    let traces = traces.filter_map(|item| item.payload.pointer("/contexts/trace")?.as_object());
    let mut statuses: Vec<_> = traces
        .filter(|trace| trace.get("op").is_some_and(|op| op == "grpc.server"))
        .filter_map(|trace| trace.get("status")?.as_str())
        .collect();
    let mut expected = STATUSES;
    // They need not arrive in the order of the calls.
    statuses.sort_unstable();
    expected.sort_unstable();
    if statuses != expected {
        return Err(format!("the server told of {statuses:?} instead of {expected:?}").into());
    }
    Ok(())
}

async fn serve_and_call() -> Result<(), Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let trace = TraceLayer::new_for_grpc()
        .make_span_with(GrpcMakeSpan::new(GrpcServerLayer::new()))
        .on_response(GrpcTraceHooks)
        .on_body_chunk(GrpcTraceHooks)
        .on_eos(GrpcTraceHooks)
        // A hook that the application had, with ours in it.
        .on_failure(
            |failure: GrpcFailureClass, latency: Duration, span: &Span| {
                warn!(%failure, ?latency, "a call has failed");
                GrpcTraceHooks.on_failure(failure, latency, span);
            },
        );
    let server = Server::builder()
        .layer(trace)
        .add_service(GreeterServer::new(MyGreeter::default()))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async {
                let _ = stopped.await;
            },
        );
    let server = tokio::spawn(server);
    let called = call(address).await;
    let _ = stop.send(());
    server.await??;
    called
}

async fn call(server: SocketAddr) -> Result<(), Error> {
    let mut client: Upstream = connect(format!("http://{server}").parse()?);

    client.say_hello(hello("Ferris")).await?;
    let found = client.say_hello(hello("notfound")).await;
    expect(Code::NotFound, found)?;

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
    let answer = client.say_hello(hello("panic")).await;
    match answer {
        Err(_) => Ok(()),
        Ok(_) => Err("a handler that panics has answered".into()),
    }
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
    }
}

fn expect<T>(code: Code, result: Result<T, Status>) -> Result<(), Error> {
    match result.err().map(|status| status.code()) {
        Some(actual) if actual == code => Ok(()),
        other => Err(format!("a call ended with {other:?} instead of {code:?}").into()),
    }
}
