//! Makes a call for each name, and shows what came of it.
//!
//! `cargo run --example client -- --addr http://127.0.0.1:50051 Ferris notfound`.
//! With `--streams` each name is sent by all four kinds of calls. Sentry is set
//! up by `SENTRY_DSN`, `SENTRY_TRACES_SAMPLE_RATE`, `SENTRY_ENVIRONMENT` and
//! `SENTRY_RELEASE`.

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
    pub(crate) mod setup;
}

use std::process::ExitCode;

use tokio_stream::StreamExt;
use tonic::codegen::http::Uri;
use tonic::{Status, Streaming};
use tracing::instrument;

use support::greeter::{Upstream, connect};
use support::helloworld::{HelloReply, HelloRequest};
use support::setup::{self, Error, parse_uri};

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
        tokio::select! {
            () = call(arguments) => Ok(()),
            result = setup::told_to_stop() => result,
        }
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
            option if option.starts_with("--") => {
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

async fn call(arguments: Arguments) {
    let client = connect(arguments.addr);
    for name in arguments.names {
        show(&name, greet(client.clone(), &name).await);
        if arguments.streams {
            show(&name, greet_in_streams(client.clone(), &name).await);
        }
    }
}

fn show(name: &str, result: Result<Vec<String>, Status>) {
    match result {
        Ok(messages) => println!("{name}: {}", messages.join(" ")),
        Err(status) => println!("{name}: {:?}: {}", status.code(), status.message()),
    }
}

/// The head of a trace.
#[instrument(skip(client), fields(sentry.op = "function"))]
async fn greet(mut client: Upstream, name: &str) -> Result<Vec<String>, Status> {
    let reply = client.say_hello(request(name)).await?;
    Ok(vec![reply.into_inner().message])
}

/// The head of a trace with three calls.
#[instrument(skip(client), fields(sentry.op = "function"))]
async fn greet_in_streams(mut client: Upstream, name: &str) -> Result<Vec<String>, Status> {
    let replies = client.say_hello_stream(request(name)).await?;
    let mut messages = collect(replies.into_inner()).await?;
    let names = tokio_stream::iter(vec![request(name); 3]);
    let reply = client.collect_hellos(names).await?;
    messages.push(reply.into_inner().message);
    let names = tokio_stream::iter(vec![request(name); 3]);
    let replies = client.chat(names).await?;
    messages.extend(collect(replies.into_inner()).await?);
    Ok(messages)
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
