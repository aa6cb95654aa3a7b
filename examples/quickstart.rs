//! A Greeter server, a client, and what Sentry sees of their calls.
//!
//! `cargo run --example quickstart` needs no account: it brings a Sentry ingest
//! of its own on loopback, and prints what arrives there. With `--json` it
//! prints one line for each received envelope item instead. With `SENTRY_DSN`
//! set it sends to that project.

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use sentry::types::Dsn;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::greeter::MyGreeter;
use support::helloworld::HelloRequest;
use support::helloworld::greeter_client::GreeterClient;
use support::helloworld::greeter_server::GreeterServer;
use support::ingest::Ingest;
use support::waterfall;

const USAGE: &str = "usage: quickstart [--json]";

const INTRODUCTION: &str = "\
A Greeter server and a client have talked over TCP; this is what Sentry received
of it, by HTTP, in an ingest that the example brings with it. For each trace its
spans: operation and name, status, duration, and where it lies in the trace. A
span has the status that it was given: those inside a call that fails with `?`
or is cut short are `ok` unless they say otherwise.
";

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--json"] => true,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return Ok(());
        }
        _ => return Err(format!("unknown arguments {arguments:?}, {USAGE}").into()),
    };
    let own_dsn = std::env::var("SENTRY_DSN")
        .ok()
        .filter(|dsn| !dsn.is_empty());
    if own_dsn.is_some() && json {
        return Err("--json prints what the embedded ingest receives: unset SENTRY_DSN".into());
    }
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

    let text = match ingest {
        Some(ingest) => received(&ingest, json)?,
        None => format!(
            "Handed to Sentry's transport, for project {} on {}: look there.\n",
            project.project_id(),
            project.host()
        ),
    };
    // A reader like `head` may have gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn received(ingest: &Ingest, json: bool) -> Result<String, Error> {
    let items = ingest.items();
    if items.is_empty() {
        return Err("the ingest received nothing".into());
    }
    if !json {
        return Ok(format!("{INTRODUCTION}\n{}", waterfall::render(&items)));
    }
    let lines = items.iter().map(|item| {
        let line = serde_json::json!({
            "type": item.kind(),
            "envelope_header": item.envelope_header,
            "item_header": item.item_header,
            "payload": item.payload,
        });
        format!("{line}\n")
    });
    Ok(lines.collect())
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

    expect(Code::NotFound, client.say_hello(hello("notfound")).await)?;
    expect(Code::Internal, client.say_hello(hello("internal")).await)?;

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
    replies.next().await.transpose()?;
    let failure = replies.next().await.transpose();
    expect(Code::Internal, failure)?;

    // Dropped after its second message.
    let mut replies = client
        .say_hello_stream(hello("endless"))
        .await?
        .into_inner();
    replies.next().await.transpose()?;
    replies.next().await.transpose()?;
    drop(replies);

    let mut hurried = Request::new(hello("slow"));
    hurried.set_timeout(Duration::from_millis(200));
    // What tonic makes of a deadline that expires.
    expect(Code::Cancelled, client.say_hello(hurried).await)?;
    Ok(())
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
