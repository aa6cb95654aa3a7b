//! Calls that nobody wants to read about.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::ready;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::Empty;
use sentry::protocol::SpanStatus;
use serde_json::json;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Instrument, error, info, info_span};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer as _, registry};

use sentry_tonic::{RequestBody, SentryClientLayer, SentryServerLayer, SentryTracingLayer};

use crate::support::body::{ScriptedBody, Step, grpc_status};
use crate::support::greeter::{Scripted, replies, reply, request};
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::received::Tx;
use crate::support::world::World;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Calls a service that opens a span and answers OK, in a stream.
async fn call(layer: &SentryServerLayer, path: &str) {
    let service = service_fn(|_: Request<RequestBody<Empty<&'static [u8]>>>| {
        info_span!("inside").in_scope(|| {});
        let body = ScriptedBody::<BoxError>::new([Step::Trailers(grpc_status(0))]);
        ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .body(Empty::new())
        .unwrap();
    let response = layer.layer(service).oneshot(request).await.unwrap();
    http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
}

fn names(layer: &SentryServerLayer, paths: &[&str]) -> Vec<String> {
    let world = World::new();
    world.run(async {
        for path in paths {
            call(layer, path).await;
        }
    });
    let txs = world.received().txs().into_iter();
    txs.map(|tx| tx.name).collect()
}

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

#[test]
fn health_and_reflection_are_left_alone_with_what_is_in_them() {
    let paths = [
        HEALTH,
        "/grpc.health.v1.Health/Watch",
        REFLECTION,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.HealthX/Check",
        "/x.grpc.health.v1.Health/Check",
        "/grpc.health.v1.health/Check",
    ];
    assert_eq!(names(&SentryServerLayer::new(), &paths), paths[4..]);
}

#[test]
fn what_is_left_alone_can_be_chosen() {
    let none: [&str; 0] = [];
    let all = SentryServerLayer::new().ignore(none);
    assert_eq!(names(&all, &[HEALTH]), [HEALTH]);
    let mine = SentryServerLayer::new().ignore(["/a.B/*"]);
    assert_eq!(names(&mine, &[HEALTH, "/a.B/C"]), [HEALTH]);
    let by_header = SentryServerLayer::new().ignore_if(|parts| parts.uri.path().ends_with("/Ping"));
    let paths = [HEALTH, "/a.B/Ping", "/a.B/C"];
    assert_eq!(names(&by_header, &paths), ["/a.B/C"]);
    let bad = SentryServerLayer::new().ignore_if(|_| panic!("a bad filter"));
    assert_eq!(names(&bad, &[HEALTH, "/a.B/C"]), ["/a.B/C"]);
}

#[test]
fn spans_and_streams_of_a_call_that_is_left_alone_begin_nothing_and_errors_are_sent() {
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello_stream(|name| async move {
            async {
                info_span!("inside").in_scope(|| error!("failed"));
                tokio::task::yield_now().await;
                info_span!("later").in_scope(|| {});
            }
            .instrument(info_span!("handler"))
            .await;
            // It begins a trace by its own word.
            info_span!(parent: None, "job").in_scope(|| {});
            Ok(replies(vec![
                Ok(reply(&name)),
                Err(Status::internal("late")),
            ]))
        });
        let layer = SentryServerLayer::new().ignore(["/helloworld.Greeter/*"]);
        let server = greeter.serve_with(layer).await;
        let mut client = server.client().await;
        let stream = client.say_hello_stream(request("a")).await.unwrap();
        let mut stream = stream.into_inner();
        stream.message().await.unwrap();
        assert_eq!(stream.message().await.unwrap_err().code(), Code::Internal);
        drop((client, stream));
        server.stop().await;
        // The thread is free again.
        info_span!("after").in_scope(|| {});
    });
    let received = world.received();
    let names = received.txs().into_iter().map(|tx| tx.name);
    assert_eq!(names.collect::<Vec<_>>(), ["job", "after"]);
    assert_eq!(received.only_event().message.as_deref(), Some("failed"));
}

#[test]
fn a_clients_call_that_is_left_alone_takes_no_trace_along() {
    let world = World::new();
    world.run(async {
        let (server, arrivals) = Scripted::new().serve_unobserved().await;
        let layer = SentryClientLayer::new().ignore(["/helloworld.Greeter/*"]);
        let mut client = server.observed_client(layer).await;
        let call = client.say_hello(request("a"));
        call.instrument(info_span!("job")).await.unwrap();
        drop(client);
        server.stop().await;
        assert_eq!(arrivals.recv().unwrap().get("sentry-trace"), None);
    });
    assert_eq!(world.received().only_tx().spans, []);
}

/// What tonic answers for each path.
fn unknown(paths: impl IntoIterator<Item = String>) -> Vec<Tx> {
    let world = World::new();
    world.run(async {
        let routes = Routes::new(GreeterServer::new(Scripted::new())).prepare();
        let service = SentryServerLayer::new().layer(routes);
        for path in paths {
            let request = Request::post(format!("http://localhost{path}"))
                .header("content-type", "application/grpc")
                .body(tonic::body::Body::empty())
                .unwrap();
            drop(service.clone().oneshot(request).await.unwrap());
        }
    });
    world.received().txs()
}

#[test]
fn unknown_methods_have_one_name() {
    let paths = (0..10_000).map(|number: u64| {
        let odd = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match number % 3 {
            0 => format!("/s{odd:x}.S/M"),
            1 => format!("/helloworld.Greeter/M{odd:x}"),
            _ => format!("/{odd:x}"),
        }
    });
    let txs = unknown(paths);
    assert_eq!(txs.len(), 10_000);
    let names: BTreeSet<_> = txs.iter().map(|tx| tx.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["_OTHER"]));
}

#[test]
fn an_unknown_method_keeps_its_path() {
    let txs = unknown(["/a.B/C".to_owned()]);
    let [tx] = txs.as_slice() else {
        panic!("{txs:?}")
    };
    assert_eq!(tx.status, SpanStatus::Unimplemented);
    assert_eq!(tx.data["rpc.method_original"], json!("/a.B/C"));
}

#[test]
fn a_method_that_says_why_it_does_nothing_keeps_its_name() {
    let world = World::new();
    world.run(async {
        let greeter =
            Scripted::new().say_hello(|_| async { Err(Status::unimplemented("next year")) });
        greeter.say_hello_once("a").await.unwrap_err();
    });
    assert_eq!(
        world.received().only_tx().name,
        "/helloworld.Greeter/SayHello"
    );
}

/// Keeps what `fmt` writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `fmt` writes in a call with the filter of README's program, or with another one.
fn logged(filter: &str) -> (String, Tx) {
    let log = Log::default();
    let writer = log.clone();
    let filter: Targets = filter.parse().unwrap();
    let fmt = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .with_filter(filter);
    let world = World::subscribed(registry().with(fmt).with(SentryTracingLayer::new()));
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            info_span!(target: "test", "handler", %name)
                .in_scope(|| info!(target: "test", "greeting"));
            Ok(reply(&name))
        });
        greeter.say_hello_once("Ferris").await.unwrap();
    });
    let written = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (written, world.received().only_tx())
}

#[test]
fn log_lines_have_the_span_of_the_call_unless_a_filter_refuses_it() {
    let (written, tx) = logged("info,sentry_tonic=off");
    assert_eq!(written, " INFO handler{name=Ferris}: test: greeting\n");
    assert_eq!(tx.spans.len(), 1);
    let (written, same) = logged("info");
    assert!(written.starts_with(" INFO grpc.server{"), "{written}");
    assert_eq!((same.name, same.spans), (tx.name, tx.spans));
}
