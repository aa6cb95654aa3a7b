//! Streams of all kinds: a transaction lasts until its stream ends, and counts the messages
//! of both directions.
//!
//! `cargo run --example streaming` needs no account: it starts a Sentry ingest on loopback,
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

use sentry::ClientOptions;
use sentry_tonic::{SentryServerLayer, SentryTracingLayer};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::codegen::http::Uri;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::greeter::MyGreeter;
use support::helloworld::HelloRequest;
use support::helloworld::greeter_client::GreeterClient;
use support::helloworld::greeter_server::GreeterServer;
use support::stage::{self, Error, Ingest, Stopped};

const INTRODUCTION: &str = "\
Five streams: of replies, of requests, of both, one that fails in its trailers, and one
that its caller drops. This is what Sentry received. The server makes each reply after it
has sent the head of the response, and the spans of the replies are in the transaction.
";

const EXPECTED: &str = "\
operation    name                                requests  replies  spans  status
grpc.client  /helloworld.Greeter/SayHelloStream  1         3        0      ok
grpc.server  /helloworld.Greeter/SayHelloStream  1         3        9      ok
grpc.client  /helloworld.Greeter/CollectHellos   2         1        0      ok
grpc.server  /helloworld.Greeter/CollectHellos   2         1        5      ok
grpc.client  /helloworld.Greeter/Chat            2         2        0      ok
grpc.server  /helloworld.Greeter/Chat            2         2        6      ok
grpc.client  /helloworld.Greeter/Chat            2         1        0      internal_error
grpc.server  /helloworld.Greeter/Chat            2         1        5      internal_error
grpc.client  /helloworld.Greeter/SayHelloStream  1         1        0      cancelled
grpc.server  /helloworld.Greeter/SayHelloStream  1         1        3      cancelled
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
        ("requests", "/contexts/trace/data/rpc.request.message_count"),
        ("replies", "/contexts/trace/data/rpc.response.message_count"),
        ("spans", "/spans"),
        ("status", "/contexts/trace/status"),
    ];
    let table = stage::table(&items, "transaction", &columns);
    stage::show(INTRODUCTION, &items, &table, EXPECTED)
}

async fn serve(listener: TcpListener, stopped: Stopped) -> Result<(), Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .layer(SentryServerLayer::new())
        .add_service(GreeterServer::new(MyGreeter::default()))
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}

async fn call(uri: Uri) -> Result<(), Error> {
    // On the client, a call lasts until its stream ends, too.
    let mut client = GreeterClient::new(sentry_tonic::channel(uri));

    let mut replies = client.say_hello_stream(hello("Ada")).await?.into_inner();
    while let Some(reply) = replies.next().await {
        reply?;
    }

    let names = tokio_stream::iter(["Ada", "Grace"].map(hello));
    client.collect_hellos(names).await?;

    let names = tokio_stream::iter(["Ada", "Grace"].map(hello));
    let mut replies = client.chat(names).await?.into_inner();
    while let Some(reply) = replies.next().await {
        reply?;
    }

    let names = tokio_stream::iter(["Ada", "internal"].map(hello));
    let mut replies = client.chat(names).await?.into_inner();
    replies.next().await.transpose()?;
    stage::expect(Code::Internal, replies.next().await.transpose())?;

    let mut replies = client.say_hello_stream(hello("idle")).await?.into_inner();
    replies.next().await.transpose()?;
    drop(replies);
    Ok(())
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
    }
}
