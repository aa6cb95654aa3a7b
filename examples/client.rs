//! A client that makes a call for each name and prints the result. It exits with 0
//! if it made all calls, even if calls fail.
//!
//! `cargo run --example client -- --addr http://127.0.0.1:50051 Ferris notfound`.
//! With `--streams`, it sends each name by all four kinds of calls. `SENTRY_DSN`,
//! `SENTRY_TRACES_SAMPLE_RATE`, `SENTRY_ENVIRONMENT` and `SENTRY_RELEASE` configure
//! Sentry.

mod support {
    #[expect(
        clippy::allow_attributes,
        unreachable_pub,
        unused_qualifications,
        reason = "generated"
    )]
    #[rustfmt::skip]
    pub(crate) mod helloworld;
    pub(crate) mod setup;
    pub(crate) mod uri;
}

use std::process::ExitCode;

use sentry_tonic::SentryChannel;
use tokio_stream::{Stream, StreamExt};
use tonic::codegen::http::Uri;
use tonic::{Status, Streaming};
use tracing::instrument;

use support::helloworld::greeter_client::GreeterClient;
use support::helloworld::{HelloReply, HelloRequest};
use support::setup::{self, Error};
use support::uri::parse_uri;

const USAGE: &str = "usage: client --addr http://<host>:<port> [--streams] <name>...";

struct Arguments {
    addr: Uri,
    streams: bool,
    names: Vec<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let Some(arguments) = arguments(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let guard = setup::sentry()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let shutdown_signal = setup::shutdown_signal()?;
        tokio::select! {
            () = call(arguments) => {}
            () = shutdown_signal => {}
        }
        Ok::<(), Error>(())
    })?;
    drop(guard);
    Ok(())
}

/// `None` where help is wanted.
fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, Error> {
    let mut addr = None;
    let mut streams = false;
    let mut names = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--streams" => streams = true,
            "--addr" => {
                let value = arguments
                    .next()
                    .ok_or_else(|| format!("--addr needs a value, {USAGE}"))?;
                let uri = parse_uri(&value).ok_or_else(|| {
                    format!("--addr is not a URI such as http://127.0.0.1:50051: {value}")
                })?;
                addr = Some(uri);
            }
            option if option.starts_with('-') => {
                return Err(format!("unknown argument {option:?}, {USAGE}").into());
            }
            _ => names.push(argument),
        }
    }
    let addr = addr.ok_or_else(|| format!("--addr is missing, {USAGE}"))?;
    if names.is_empty() {
        return Err(format!("there is no name to greet, {USAGE}").into());
    }
    Ok(Some(Arguments {
        addr,
        streams,
        names,
    }))
}

type Client = GreeterClient<SentryChannel>;

async fn call(arguments: Arguments) {
    let client = GreeterClient::new(sentry_tonic::channel(arguments.addr));
    for name in arguments.names {
        show(&name, greet(client.clone(), &name).await);
        if arguments.streams {
            greet_in_streams(client.clone(), &name).await;
        }
    }
}

fn show(name: &str, result: Result<Vec<String>, Status>) {
    match result {
        Ok(messages) => println!("{name}: {}", messages.join(" ")),
        Err(status) => println!("{name}: {:?}: {}", status.code(), status.message()),
    }
}

/// The root of a trace.
#[instrument(skip(client), fields(sentry.op = "function"))]
async fn greet(mut client: Client, name: &str) -> Result<Vec<String>, Status> {
    let reply = client.say_hello(request(name)).await?;
    Ok(vec![reply.into_inner().message])
}

/// The root of a trace with three calls.
#[instrument(skip(client), fields(sentry.op = "function"))]
async fn greet_in_streams(client: Client, name: &str) {
    show(name, say_hello_stream(client.clone(), name).await);
    show(name, collect_hellos(client.clone(), name).await);
    show(name, chat(client, name).await);
}

async fn say_hello_stream(mut client: Client, name: &str) -> Result<Vec<String>, Status> {
    let replies = client.say_hello_stream(request(name)).await?;
    collect(replies.into_inner()).await
}

async fn collect_hellos(mut client: Client, name: &str) -> Result<Vec<String>, Status> {
    let reply = client.collect_hellos(three_times(name)).await?;
    Ok(vec![reply.into_inner().message])
}

async fn chat(mut client: Client, name: &str) -> Result<Vec<String>, Status> {
    let replies = client.chat(three_times(name)).await?;
    collect(replies.into_inner()).await
}

fn three_times(name: &str) -> impl Stream<Item = HelloRequest> + Send + 'static {
    tokio_stream::iter(vec![request(name); 3])
}

async fn collect(mut replies: Streaming<HelloReply>) -> Result<Vec<String>, Status> {
    let mut messages = Vec::new();
    while let Some(reply) = replies.next().await {
        messages.push(reply?.message);
    }
    Ok(messages)
}

fn request(name: &str) -> HelloRequest {
    HelloRequest {
        name: name.to_owned(),
    }
}
