//! What an OpenTelemetry collector receives of why calls failed.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_sdk::trace::Sampler;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower::Layer;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SemanticConventions, SentryClientLayer, StatusExt};

use crate::support::greeter::{Scripted, replies, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::otel::Otel;
use crate::support::otlp::{events, exception, in_both_orders, only, serve, told};
use crate::support::world::World;

#[derive(Debug)]
struct QueryFailed(RowLost);

#[derive(Debug)]
struct RowLost;

impl fmt::Display for QueryFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the query failed")
    }
}

impl fmt::Display for RowLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the row is lost")
    }
}

impl Error for QueryFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl Error for RowLost {}

fn failing(status: impl Fn() -> Status + Send + Sync + 'static) -> Scripted {
    let status = Arc::new(status);
    let of_stream = Arc::clone(&status);
    Scripted::new()
        .say_hello(move |_| std::future::ready(Err(status())))
        .say_hello_stream(move |_| std::future::ready(Ok(replies(vec![Err(of_stream())]))))
}

/// A call that fails; what its server tells of why.
type Case = (fn() -> Status, Option<(&'static str, Option<&'static str>)>);

#[test]
fn a_call_that_failed_has_what_it_failed_with() {
    let cases: [Case; 5] = [
        (
            || Status::internal("sorry").with_source(QueryFailed(RowLost)),
            Some(("RowLost", Some("the row is lost"))),
        ),
        (
            || Status::unavailable("sorry").with_source(Status::aborted("elsewhere")),
            Some(("ABORTED", Some("elsewhere"))),
        ),
        (|| Status::internal("nobody knows why"), None),
        // That is no failure of the server's.
        (|| Status::not_found("sorry").with_source(RowLost), None),
        (
            || Status::data_loss("sorry").with_source(Telltale(secret())),
            Some(("Telltale", None)),
        ),
    ];
    for (status, expected) in cases {
        let expected: Vec<_> = expected
            .map(|(ty, message)| exception(ty, message))
            .into_iter()
            .collect();
        let calls = async || {
            let (server, mut client) = serve(failing(status), SemanticConventions::Legacy).await;
            let request = || request("Ferris");
            client.say_hello(request()).await.unwrap_err();
            let replies = client.say_hello_stream(request()).await.unwrap();
            replies.into_inner().message().await.unwrap_err();
            drop(client);
            server.stop().await;
        };
        in_both_orders(calls, |_, spans, ()| {
            assert_eq!(spans.len(), 4);
            for span in &spans {
                let is_server = span.kind() == SpanKind::Server;
                let expected = if is_server { &expected[..] } else { &[] };
                assert_eq!(events(span), expected, "{:?}", span.kind());
            }
        });
    }
}

fn secret() -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", "Bearer hidden".parse().unwrap());
    Status::with_metadata(Code::Aborted, "denied", metadata)
}

/// An error that prints all that a status has.
#[derive(Debug)]
struct Telltale(Status);

impl fmt::Display for Telltale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Error for Telltale {}

#[test]
fn what_a_printed_status_has_is_told_nowhere() {
    let greeter = || {
        Scripted::new()
            .say_hello(|_| async { Err(Status::internal(format!("{:?}", secret()))) })
            .collect_hellos(|_| async { panic!("on {:?}", secret()) })
    };
    let calls = async || {
        let (server, mut client) = serve(greeter(), SemanticConventions::Legacy).await;
        client.say_hello(request("Ferris")).await.unwrap_err();
        let requests = tokio_stream::once(request("Ferris"));
        client.collect_hellos(requests).await.unwrap_err();
        drop(client);
        server.stop().await;
    };
    in_both_orders(calls, |_, spans, ()| {
        assert_eq!(spans.len(), 4);
        let all = format!("{spans:?}");
        assert!(!all.contains("hidden"), "{all}");
        assert_eq!(all.matches("[Filtered]").count(), 3, "{all}");
    });
}

#[test]
fn a_client_tells_why_its_transport_failed() {
    let calls = async || {
        let (server, client) = serve(Scripted::new(), SemanticConventions::Legacy).await;
        let (channel, address) = (server.endpoint().connect_lazy(), server.address);
        drop(client);
        server.stop().await;
        let mut client = GreeterClient::new(SentryClientLayer::new().layer(channel));
        client.say_hello(request("Ferris")).await.unwrap_err();
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        refused.to_string()
    };
    in_both_orders(calls, |_, spans, refused| {
        let client = only(&spans, SpanKind::Client);
        assert_eq!(events(client), [exception("Os", Some(&refused))]);
    });
}

#[test]
fn calls_that_did_not_fail_have_no_exceptions() {
    let calls = async || {
        let greeter = Scripted::new().collect_hellos(|_| std::future::pending());
        let (server, mut client) = serve(greeter, SemanticConventions::Legacy).await;
        client.say_hello(request("Ferris")).await.unwrap();
        let (send, requests) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let mut call: Pin<Box<_>> = Box::pin(client.collect_hellos(requests));
        tokio::select! {
            biased;
            _ = &mut call => panic!("it is pending"),
            // The second is taken once the first is on its way.
            () = async {
                send.send(request("Ada")).await.unwrap();
                send.send(request("Grace")).await.unwrap();
                send.reserve().await.unwrap();
            } => {}
        }
        drop(call);
        drop(client);
        server.stop().await;
    };
    in_both_orders(calls, |_, spans, ()| {
        let mut codes: Vec<_> = spans
            .iter()
            .map(|span| {
                assert_eq!(events(span), []);
                let (.., attributes) = told(span);
                format!("{:?}", attributes["rpc.response.status_code"])
            })
            .collect();
        codes.sort();
        let told = |code: &str| format!("StringValue({code:?})");
        let [ok, cancelled] = ["OK", "CANCELLED"].map(told);
        assert_eq!(codes, [cancelled.clone(), cancelled, ok.clone(), ok]);
    });
}

static PRINTED: AtomicUsize = AtomicUsize::new(0);

/// Counts how often it is printed.
#[derive(Debug)]
struct Counted;

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PRINTED.fetch_add(1, Ordering::Relaxed);
        f.write_str("counted")
    }
}

impl Error for Counted {}

#[test]
fn an_error_is_printed_only_where_a_span_is_recorded() {
    for (sampler, printed) in [
        (Some(Sampler::AlwaysOn), 1),
        (Some(Sampler::AlwaysOff), 0),
        (None, 0),
    ] {
        let otel = sampler.map(Otel::new);
        let layer = otel.as_ref().map(Otel::layer);
        let world = World::subscribed(registry().with(layer).with(LevelFilter::INFO));
        PRINTED.store(0, Ordering::Relaxed);
        world.run(async {
            let greeter = failing(|| Status::internal("sorry").with_source(Counted));
            let server = greeter.serve().await;
            let mut client = server.client().await;
            client.say_hello(request("Ferris")).await.unwrap_err();
            drop(client);
            server.stop().await;
        });
        assert_eq!(PRINTED.load(Ordering::Relaxed), printed);
    }
}
