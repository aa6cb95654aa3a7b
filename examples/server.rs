//! A Greeter server that reports to Sentry.
//!
//! `cargo run --example server -- --addr 127.0.0.1:50051` serves. With
//! `--upstream http://127.0.0.1:50052`, `SayHello` calls that server.
//! `SENTRY_DSN`, `SENTRY_TRACES_SAMPLE_RATE`, `SENTRY_ENVIRONMENT` and
//! `SENTRY_RELEASE` configure Sentry. On SIGTERM and SIGINT, the server stops, and
//! sends the queued envelopes first.

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
    pub(crate) mod uri;
}

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::watch;
use tonic::codegen::http::Uri;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use support::greeter::MyGreeter;
use support::helloworld::greeter_client::GreeterClient;
use support::helloworld::greeter_server::GreeterServer;
use support::setup::{self, Error};
use support::uri::parse_uri;

const USAGE: &str = "usage: server --addr <ip>:<port> [--upstream http://<host>:<port>]";

/// How long running calls may take after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);

struct Arguments {
    addr: SocketAddr,
    upstream: Option<Uri>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let Some(arguments) = arguments(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let Arguments { addr, upstream } = arguments;
    let listener =
        TcpListener::bind(addr).map_err(|error| format!("cannot listen on {addr}: {error}"))?;
    listener.set_nonblocking(true)?;
    let guard = setup::sentry()?;
    // The runtime is dropped before the guard, and its end ends the last calls.
    tokio::runtime::Runtime::new()?.block_on(serve(listener, upstream))?;
    drop(guard);
    Ok(())
}

/// `None` where help is wanted.
fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, Error> {
    let mut addr = None;
    let mut upstream = None;
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--addr" | "--upstream" => arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value, {USAGE}"))?,
            _ => return Err(format!("unknown argument {argument:?}, {USAGE}").into()),
        };
        if argument == "--addr" {
            let parsed = value.parse().map_err(|_| {
                format!("--addr is not an address and a port such as 127.0.0.1:50051: {value}")
            })?;
            addr = Some(parsed);
        } else {
            let uri = parse_uri(&value).ok_or_else(|| {
                format!("--upstream is not a URI such as http://127.0.0.1:50051: {value}")
            })?;
            upstream = Some(uri);
        }
    }
    let addr = addr.ok_or_else(|| format!("--addr is missing, {USAGE}"))?;
    Ok(Some(Arguments { addr, upstream }))
}

async fn serve(listener: TcpListener, upstream: Option<Uri>) -> Result<(), Error> {
    let shutdown_signal = setup::shutdown_signal()?;
    println!("listening on {}", listener.local_addr()?);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));

    let (stop, stopped) = watch::channel(false);
    let greeter = MyGreeter {
        upstream: upstream.map(|uri| GreeterClient::new(sentry_tonic::channel(uri))),
    };
    let server = Server::builder()
        .layer(sentry_tonic::SentryServerLayer::new())
        .add_service(GreeterServer::new(greeter))
        .serve_with_incoming_shutdown(incoming, is_stopped(stopped));
    let grace_period = async {
        shutdown_signal.await;
        let _ = stop.send(true);
        tokio::time::sleep(GRACE).await;
        eprintln!("calls are still running, and are cut short");
    };
    tokio::select! {
        result = server => Ok(result?),
        () = grace_period => Ok(()),
    }
}

async fn is_stopped(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
