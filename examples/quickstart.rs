//! Two Greeter servers, a client, and what Sentry sees of their calls.
//!
//! `cargo run --example quickstart` needs no account: it brings a Sentry ingest
//! of its own on loopback, and prints what arrives there. With `--json` it
//! prints one line for each received envelope item instead. With `--spotlight URL`
//! or `SENTRY_SPOTLIGHT` it also hands what it received on to Spotlight, a Sentry
//! UI on this machine. With `SENTRY_DSN` set it sends to that project.

mod support;

use std::future::Future;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sentry::transports::DefaultTransportFactory;
use sentry::types::Dsn;
use sentry::{ClientOptions, Hub};
use sentry_tonic::{GrpcServerLayer, SentryGrpcLayer, TraceTransport};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Status};
use tracing::dispatcher::{self, Dispatch};
use tracing::{Instrument, info_span};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use support::greeter::{MyGreeter, Upstream, connect};
use support::helloworld::HelloRequest;
use support::helloworld::greeter_server::GreeterServer;
use support::ingest::Ingest;
use support::spotlight::Spotlight;
use support::waterfall;

const USAGE: &str = "usage: quickstart [--json] [--spotlight http://<host>:<port>]";

const INTRODUCTION: &str = "\
A client has called a Greeter server, which asks a second one for its answers.
This is what Sentry received from the three of them, by HTTP, in an ingest that
the example brings with it. For each trace its spans: where, operation and name,
status, duration, and where it lies in the trace. A span has the status that it
was given: those inside a call that fails with `?` or is cut short are `ok` unless
they say otherwise.
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

struct Arguments {
    json: bool,
    spotlight: Option<Spotlight>,
}

fn run() -> Result<(), Error> {
    let Some(arguments) = arguments(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let Arguments { json, spotlight } = arguments;
    let own_dsn = std::env::var("SENTRY_DSN")
        .ok()
        .filter(|dsn| !dsn.is_empty());
    if own_dsn.is_some() && json {
        return Err("--json prints what the embedded ingest receives: unset SENTRY_DSN".into());
    }
    if own_dsn.is_some() && spotlight.is_some() {
        return Err("Spotlight gets what the embedded ingest receives: unset SENTRY_DSN".into());
    }
    let ingest = match own_dsn {
        Some(_) => None,
        None => Some(Ingest::start()?),
    };
    let dsn = |name: &str| match (&own_dsn, &ingest) {
        (Some(dsn), _) => dsn.clone(),
        (None, Some(ingest)) => ingest.dsn(name),
        (None, None) => String::new(),
    };
    // `ClientOptions::dsn` panics where the DSN is not one.
    let project: Dsn = dsn("client")
        .parse()
        .map_err(|error| format!("SENTRY_DSN is not a DSN: {error}"))?;

    let back = Service::new("back", &dsn("back")).serve(None)?;
    let front = Service::new("front", &dsn("front")).serve(Some(back.address))?;
    let client = Service::new("client", &dsn("client"));
    let calls = client.run(call(front.address))?;
    front.stop()?;
    back.stop()?;
    calls?;

    let text = match &ingest {
        Some(ingest) => received(ingest, json)?,
        None => format!(
            "Handed to Sentry's transport, for project {} on {}: look there.\n",
            project.project_id(),
            project.host()
        ),
    };
    // A reader like `head` may have gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if let (Some(spotlight), Some(ingest)) = (spotlight, ingest) {
        let forwarded = spotlight.forward(ingest.envelopes())?;
        // Standard output may be JSON; and a reader of this may have gone too.
        let _ = writeln!(std::io::stderr(), "{forwarded}");
    }
    Ok(())
}

/// `None` where help is wanted.
fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, Error> {
    let mut json = false;
    let mut spotlight = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => json = true,
            "--spotlight" => {
                let url = arguments
                    .next()
                    .ok_or_else(|| format!("--spotlight needs a value, {USAGE}"))?;
                let at = Spotlight::at(&url).map_err(|error| format!("--spotlight {error}"))?;
                spotlight = Some(at);
            }
            _ => return Err(format!("unknown argument {argument:?}, {USAGE}").into()),
        }
    }
    if spotlight.is_none() {
        let value = std::env::var_os("SENTRY_SPOTLIGHT").unwrap_or_default();
        spotlight = Spotlight::configured(&value.to_string_lossy())
            .map_err(|error| format!("SENTRY_SPOTLIGHT {error}"))?;
    }
    Ok(Some(Arguments { json, spotlight }))
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

/// A Sentry client and a subscriber that goes with it. A process has one of each,
/// `sentry::init` and a global subscriber; this example is three in one.
struct Service {
    hub: Arc<Hub>,
    subscriber: Dispatch,
}

impl Service {
    fn new(name: &'static str, dsn: &str) -> Self {
        let options = ClientOptions::new()
            .dsn(dsn)
            .server_name(name)
            .traces_sample_rate(1.0)
            .transport_channel_capacity(1_000)
            .transport(TraceTransport::new(DefaultTransportFactory));
        let client = sentry::Client::from(sentry::apply_defaults(options));
        let hub = Arc::new(Hub::new(Some(Arc::new(client)), Arc::default()));
        let subscriber = tracing_subscriber::registry()
            .with(SentryGrpcLayer::new().hub(Arc::clone(&hub)))
            .with(LevelFilter::INFO);
        Self {
            hub,
            subscriber: subscriber.into(),
        }
    }

    /// Runs on this thread, and sends what is reported in it.
    fn run<F: Future>(self, future: F) -> Result<F::Output, Error> {
        let output = dispatcher::with_default(&self.subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok::<_, Error>(runtime.block_on(future))
        })?;
        if let Some(client) = self.hub.client() {
            client.close(None);
        }
        Ok(output)
    }

    /// Serves a Greeter on a thread of its own.
    fn serve(self, upstream: Option<SocketAddr>) -> Result<Running, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || self.run(serve(listener, upstream, stopped))?);
        Ok(Running {
            address,
            stop,
            thread,
        })
    }
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn stop(self) -> Result<(), Error> {
        let _ = self.stop.send(());
        let result = self.thread.join();
        result.map_err(|_| "a server panicked")?
    }
}

async fn serve(
    listener: TcpListener,
    upstream: Option<SocketAddr>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let greeter = MyGreeter {
        upstream: upstream.map(client).transpose()?,
    };
    Server::builder()
        .layer(GrpcServerLayer::new())
        .add_service(GreeterServer::new(greeter))
        .serve_with_incoming_shutdown(incoming, async {
            let _ = stopped.await;
        })
        .await?;
    Ok(())
}

fn client(server: SocketAddr) -> Result<Upstream, Error> {
    Ok(connect(format!("http://{server}").parse()?))
}

/// One call of each kind, with each way to end. Those that are meant to fail
/// do so.
async fn call(server: SocketAddr) -> Result<(), Error> {
    let mut client = client(server)?;

    let main = info_span!("main", sentry.op = "function");
    async {
        client.say_hello(hello("Ferris")).await?;
        let found = client.say_hello(hello("notfound")).await;
        expect(Code::NotFound, found)
    }
    .instrument(main)
    .await?;

    for (name, code) in [
        ("internal", Code::Internal),
        ("unavailable", Code::Unavailable),
    ] {
        expect(code, client.say_hello(hello(name)).await)?;
    }

    let mut replies = client.say_hello_stream(hello("Ada")).await?.into_inner();
    while let Some(reply) = replies.next().await {
        reply?;
    }

    let names = tokio_stream::iter(["Ada", "Grace"].map(hello));
    client.collect_hellos(names).await?;

    let names = tokio_stream::iter(["Ada", "internal"].map(hello));
    let mut replies = client.chat(names).await?.into_inner();
    replies.next().await.transpose()?;
    let failure = replies.next().await.transpose();
    expect(Code::Internal, failure)?;

    // Dropped after its first message.
    let mut replies = client
        .say_hello_stream(hello("endless"))
        .await?
        .into_inner();
    replies.next().await.transpose()?;
    drop(replies);

    let mut hurried = Request::new(hello("slow"));
    hurried.set_timeout(Duration::from_millis(200));
    // What tonic makes of a deadline that expires.
    expect(Code::Cancelled, client.say_hello(hurried).await)
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
