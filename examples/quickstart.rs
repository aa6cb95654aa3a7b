//! Two Greeter servers, a client, and what Sentry receives of their calls.
//!
//! `cargo run --example quickstart` needs no account: it starts a Sentry ingest on
//! loopback, and prints what arrives there. With `--json`, it prints one line for
//! each received envelope item instead. With `--spotlight URL` or
//! `SENTRY_SPOTLIGHT`, it also forwards the envelopes to Spotlight, a Sentry UI on
//! this machine. If `SENTRY_DSN` is set, it sends to that project.

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
use sentry::{ClientOptions, Hub, User};
use sentry_tonic::{
    CallerIdentity, SentryChannel, SentryServerLayer, SentryTracingLayer, TraceTransport,
};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tonic::codegen::http::request::Parts;
use tonic::metadata::MetadataValue;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Status};
use tracing::dispatcher::{self, Dispatch};
use tracing::{Instrument, info_span};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use support::arguments::{self, Arguments};
use support::greeter::MyGreeter;
use support::helloworld::HelloRequest;
use support::helloworld::greeter_client::GreeterClient;
use support::helloworld::greeter_server::GreeterServer;
use support::ingest::Ingest;
use support::printed;

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
    let Some(Arguments { json, spotlight }) = Arguments::read(std::env::args().skip(1))? else {
        println!("{}", arguments::USAGE);
        return Ok(());
    };
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

    let back = Service::new("back", &dsn("back"), 1.0).serve(None)?;
    let front = Service::new("front", &dsn("front"), 1.0).serve(Some(back.address))?;
    let client = Service::new("client", &dsn("client"), 1.0);
    let calls = client.run(call(front.address))?;
    // The root of a trace decides for all services: these calls send errors only.
    let storm = Service::new("storm", &dsn("storm"), 0.0).run(storm(back.address))?;
    front.stop()?;
    back.stop()?;
    calls?;
    let failed = storm?;

    let text = match &ingest {
        Some(ingest) if ingest.items().is_empty() => {
            return Err("the ingest received nothing".into());
        }
        Some(ingest) if json => printed::json(&ingest.items()),
        Some(ingest) => printed::text(&ingest.items(), failed),
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

/// A Sentry client, and the subscriber that belongs to it. A usual process has one of
/// each, by `sentry_tonic::init` and a global subscriber. This one stands for several
/// processes, so it makes its clients itself, with the same settings as `init`.
struct Service {
    name: &'static str,
    hub: Arc<Hub>,
    subscriber: Dispatch,
}

impl Service {
    fn new(name: &'static str, dsn: &str, sample_rate: f32) -> Self {
        let options = ClientOptions::new()
            .dsn(dsn)
            .server_name(name)
            .traces_sample_rate(sample_rate)
            .transport_channel_capacity(1_000)
            .transport(TraceTransport::new(DefaultTransportFactory));
        let client = sentry::Client::from(sentry::apply_defaults(options));
        let hub = Arc::new(Hub::new(Some(Arc::new(client)), Arc::default()));
        let subscriber = tracing_subscriber::registry()
            .with(
                SentryTracingLayer::new()
                    .hub(Arc::clone(&hub))
                    .tag_params(["table"]),
            )
            .with(LevelFilter::INFO);
        Self {
            name,
            hub,
            subscriber: subscriber.into(),
        }
    }

    /// Runs on this thread, then sends the queued envelopes.
    fn run<F: Future>(self, future: F) -> Result<F::Output, Error> {
        let output = dispatcher::with_default(&self.subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok::<_, Error>(runtime.block_on(future))
        })?;
        if let Some(client) = self.hub.client() {
            client.close(Some(Duration::from_secs(20)));
        }
        Ok(output)
    }

    /// Serves a Greeter on a thread of its own.
    fn serve(self, upstream: Option<SocketAddr>) -> Result<Running, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        // The message of a panic names its thread.
        let thread = thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || self.run(serve(listener, upstream, stopped))?)?;
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
    let layer = SentryServerLayer::new()
        .identify_caller(caller)
        // By default, mistakes of the caller are not events.
        .capture_codes([
            Code::InvalidArgument,
            Code::Unknown,
            Code::Internal,
            Code::DataLoss,
        ])
        // For each method and code. The default is 100.
        .max_events_per_minute(3);
    Server::builder()
        .layer(layer)
        .add_service(GreeterServer::new(greeter))
        .serve_with_incoming_shutdown(incoming, async {
            let _ = stopped.await;
        })
        .await?;
    Ok(())
}

/// The caller. In an application, a layer authenticates it.
fn caller(request: &Parts) -> CallerIdentity {
    let header = |name| request.headers.get(name)?.to_str().ok();
    let caller = CallerIdentity::from(User {
        id: header("x-user-id").map(str::to_owned),
        ..User::default()
    });
    match header("x-tenant") {
        Some(tenant) => caller.tag("tenant", tenant),
        None => caller,
    }
}

fn client(server: SocketAddr) -> Result<GreeterClient<SentryChannel>, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))?;
    Ok(GreeterClient::new(sentry_tonic::channel(endpoint)))
}

/// Makes calls of each kind that end in different ways, and checks the code of each
/// failure.
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

    let names = tokio_stream::iter(["Ada", "panic"].map(hello));
    let failure = client.collect_hellos(by_grace(names)).await;
    expect(Code::Internal, failure)?;

    let unnamed = by_grace(hello(""));
    expect(Code::InvalidArgument, client.say_hello(unnamed).await)?;

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
    // The code that tonic returns if a deadline expires.
    expect(Code::Cancelled, client.say_hello(hurried).await)
}

/// Makes calls that all fail in the same way, and returns their number.
async fn storm(server: SocketAddr) -> Result<usize, Error> {
    let mut client = client(server)?;
    let mut failed = 0;
    for _ in 0..40 {
        expect(Code::DataLoss, client.say_hello(hello("dataloss")).await)?;
        failed += 1;
    }
    Ok(failed)
}

fn by_grace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-user-id", MetadataValue::from_static("grace"));
    metadata.insert("x-tenant", MetadataValue::from_static("navy"));
    request
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
