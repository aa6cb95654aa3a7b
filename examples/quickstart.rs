//! A Greeter server, a client, and what Sentry sees of their calls.
//!
//! `cargo run --example quickstart` needs no account: it brings a Sentry ingest
//! of its own on loopback, and prints what arrives there. With `--json` it
//! prints one line for each received envelope item instead. With `SENTRY_DSN`
//! set it sends to that project.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use sentry::types::Dsn;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::transport::{Channel, Server};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::greeter::MyGreeter;
use support::helloworld::HelloRequest;
use support::helloworld::greeter_client::GreeterClient;
use support::helloworld::greeter_server::GreeterServer;
use support::ingest::Ingest;
use support::waterfall;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let json = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--json") => true,
        Some(other) => return Err(format!("unknown argument {other:?}, try --json").into()),
    };
    let own_dsn = std::env::var("SENTRY_DSN")
        .ok()
        .filter(|dsn| !dsn.is_empty());
    let (dsn, ingest) = match own_dsn {
        Some(dsn) => (dsn, None),
        None => {
            let ingest = Ingest::start()?;
            (ingest.dsn(), Some(ingest))
        }
    };
    // `ClientOptions::dsn` panics where the DSN is not one.
    let project: Dsn = dsn
        .parse()
        .map_err(|error| format!("SENTRY_DSN is not a DSN: {error}"))?;

    // The guard flushes what is queued, and must outlive the runtime, whose
    // end ends the last calls.
    let guard = sentry::init(
        sentry::ClientOptions::new()
            .dsn(&dsn)
            .traces_sample_rate(1.0),
    );
    tracing_subscriber::registry()
        .with(sentry_tonic::SentryGrpcLayer::new())
        .init();
    tokio::runtime::Runtime::new()?.block_on(serve_and_call())?;
    drop(guard);

    match ingest {
        Some(ingest) => print(&ingest, json),
        None => {
            println!(
                "sent to project {} on {}",
                project.project_id(),
                project.host()
            );
            Ok(())
        }
    }
}

fn print(ingest: &Ingest, json: bool) -> Result<(), Error> {
    let items = ingest.items();
    if items.is_empty() {
        return Err("the ingest received nothing".into());
    }
    if !json {
        print!("{}", waterfall::render(&items));
        return Ok(());
    }
    for item in items {
        let line = serde_json::json!({
            "type": item.kind(),
            "envelope_header": item.envelope_header,
            "item_header": item.item_header,
            "payload": item.payload,
        });
        println!("{line}");
    }
    Ok(())
}

async fn serve_and_call() -> Result<(), Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(
        Server::builder()
            .layer(sentry_tonic::GrpcServerLayer::new())
            .add_service(GreeterServer::new(MyGreeter))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            }),
    );
    let calls = call(address).await;
    let _ = stop.send(());
    server.await??;
    calls
}

/// One call of each kind, with each way to end. Those that are meant to fail
/// do so.
async fn call(address: SocketAddr) -> Result<(), Error> {
    let channel = Channel::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let mut client = GreeterClient::new(channel);

    client.say_hello(hello("Ferris")).await?;

    let mut in_a_trace = Request::new(hello("Grace"));
    in_a_trace.metadata_mut().insert(
        "sentry-trace",
        "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1".parse()?,
    );
    client.say_hello(in_a_trace).await?;

    expect_error(client.say_hello(hello("notfound")).await)?;
    expect_error(client.say_hello(hello("internal")).await)?;

    let mut replies = client.say_hello_stream(hello("Ada")).await?.into_inner();
    while let Some(reply) = replies.next().await {
        reply?;
    }

    let names = tokio_stream::iter(["Ada", "Grace", "Barbara"].map(hello));
    client.collect_hellos(names).await?;

    let names = tokio_stream::iter(["Ada", "Grace"].map(hello));
    let mut replies = client.chat(names).await?.into_inner();
    while let Some(reply) = replies.next().await {
        reply?;
    }

    let names = tokio_stream::iter(["Ada", "internal"].map(hello));
    let mut replies = client.chat(names).await?.into_inner();
    while let Some(reply) = replies.next().await {
        if reply.is_err() {
            break;
        }
    }

    // Dropped after its second message.
    let mut replies = client
        .say_hello_stream(hello("endless"))
        .await?
        .into_inner();
    replies.next().await;
    replies.next().await;
    drop(replies);

    let mut hurried = Request::new(hello("slow"));
    hurried.set_timeout(Duration::from_millis(200));
    expect_error(client.say_hello(hurried).await)?;
    Ok(())
}

fn hello(name: &str) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
    }
}

fn expect_error<T>(result: Result<T, tonic::Status>) -> Result<(), Error> {
    match result.err() {
        Some(_) => Ok(()),
        None => Err("a call that was meant to fail did not".into()),
    }
}
