//! Sentry and OpenTelemetry in one subscriber: both receive the same spans, with the same
//! ids.
//!
//! `cargo run --example otel` needs no account: it starts a Sentry ingest and an
//! OpenTelemetry collector on loopback. A client calls a Greeter server, which calls a
//! second one. The example prints what arrives at either side by side, and fails if they
//! differ. With `--apart`, Sentry does not get OpenTelemetry's ids, as without this crate.

mod support {
    pub(crate) mod collector;
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
    #[expect(dead_code, reason = "what envelopes say is for other examples")]
    pub(crate) mod ingest;
    #[expect(
        clippy::indexing_slicing,
        reason = "of JSON, which has null for what is missing"
    )]
    pub(crate) mod views;
}

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::trace::SdkTracerProvider;
use sentry::ClientOptions;
use sentry_tonic::{SentryChannel, SentryClientLayer, SentryServerLayer, SentryTracingLayer};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tower::Layer;
use tracing::{Instrument, info_span};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use support::collector::Collector;
use support::greeter::MyGreeter;
use support::helloworld::HelloRequest;
use support::helloworld::greeter_client::GreeterClient;
use support::helloworld::greeter_server::GreeterServer;
use support::ingest::Ingest;
use support::views;

type Error = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: otel [--apart]";

const INTRODUCTION: &str = "\
A client has called a Greeter server, which calls a second one. These are the spans of
the three, as an OpenTelemetry collector received them by OTLP, and as Sentry did: kind,
id, parent, status. In OpenTelemetry, the status of a server span is unset if the call
succeeds or the caller made a mistake.
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("otel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let mut is_apart = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--apart" => is_apart = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => return Err(format!("unknown argument {argument:?}, {USAGE}").into()),
        }
    }
    let ingest = Ingest::start()?;
    let collector = Collector::start()?;
    let sentry = sentry_tonic::init(
        ClientOptions::new()
            .dsn(&ingest.dsn("otel"))
            .traces_sample_rate(1.0),
    );
    // Declared after the guard, so that it is dropped before it if anything fails.
    let runtime = Runtime::new()?;
    let exporter = {
        // The connection of the exporter lives in the runtime.
        let _in = runtime.enter();
        SpanExporter::builder()
            .with_tonic()
            .with_endpoint(collector.endpoint())
            .build()?
    };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .build();
    let layer = match is_apart {
        true => SentryTracingLayer::new().otel_bridge(|_, _| None, |_, _| {}),
        false => SentryTracingLayer::new(),
    };
    tracing_subscriber::registry()
        .with(layer)
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("greeter")))
        // The exporter makes gRPC calls itself. Its libraries trace each frame below INFO, and
        // to export those spans would take more calls, without end.
        .with(LevelFilter::INFO)
        .init();

    let called = runtime.block_on(serve_and_call());
    // It blocks, so it runs outside of the runtime, which the exporter still needs.
    provider.shutdown()?;
    // Ends the calls that still run. They are reported to Sentry.
    drop(runtime);
    // Sends the queued envelopes.
    drop(sentry);
    called?;

    let exported = views::of_otel(&collector.spans());
    let reported = views::of_sentry(&ingest.items());
    if exported.is_empty() || reported.is_empty() {
        return Err("a backend received nothing".into());
    }
    let compared = views::compare(&exported, &reported);
    print!("{INTRODUCTION}\n{}", compared.text);
    let (traces, spans) = (compared.traces, compared.spans);
    if compared.differences.is_empty() {
        println!(
            "All agree: {spans} spans of {traces} traces have the same ids, parents and statuses."
        );
        return Ok(());
    }
    for difference in &compared.differences {
        println!("{difference}");
    }
    Err(format!(
        "OpenTelemetry and Sentry differ in {} places",
        compared.differences.len()
    )
    .into())
}

/// Returns once all calls have ended, on both sides.
async fn serve_and_call() -> Result<(), Error> {
    let back = Running::serve(None).await?;
    let front = Running::serve(Some(back.client()?)).await?;
    let called = call(front.client()?).await;
    front.stop().await?;
    back.stop().await?;
    called
}

async fn call(mut client: GreeterClient<SentryChannel>) -> Result<(), Error> {
    let main = info_span!("main", sentry.op = "function");
    async {
        client.say_hello(hello("Ferris")).await?;
        expect(Code::NotFound, client.say_hello(hello("notfound")).await)
    }
    .instrument(main)
    .await?;

    let mut replies = client.say_hello_stream(hello("Ada")).await?.into_inner();
    while let Some(reply) = replies.next().await {
        reply?;
    }

    expect(Code::Internal, client.say_hello(hello("internal")).await)
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

/// A running Greeter server.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    async fn serve(upstream: Option<GreeterClient<SentryChannel>>) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let (stop, stopped) = oneshot::channel();
        let server = Server::builder()
            .layer(SentryServerLayer::new())
            .add_service(GreeterServer::new(MyGreeter { upstream }))
            .serve_with_incoming_shutdown(incoming, async {
                let _ = stopped.await;
            });
        Ok(Self {
            address,
            stop,
            server: tokio::spawn(server),
        })
    }

    fn client(&self) -> Result<GreeterClient<SentryChannel>, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        let layer = SentryClientLayer::new()
            .endpoint(endpoint.uri().clone())
            // Sends OpenTelemetry's sampling decision, alongside `sentry-trace`.
            .propagate_traceparent(true);
        Ok(GreeterClient::new(layer.layer(endpoint.connect_lazy())))
    }

    async fn stop(self) -> Result<(), Error> {
        let _ = self.stop.send(());
        Ok(self.server.await??)
    }
}
