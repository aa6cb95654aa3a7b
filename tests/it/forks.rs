//! Work in a hub that the application forked from that of a call, where no
//! tracing span leads to the call.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex, mpsc};

use http::{HeaderMap, Request, Response};
use sentry::{Hub, SentryFutureExt};
use tonic::body::Body;
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Span, info_span};
use tracing_subscriber::layer::SubscriberExt;

use sentry_tonic::{GrpcClientLayer, GrpcServerLayer, RequestBody, SentryGrpcLayer, SentrySpanExt};

use crate::support::received::{Received, trace};
use crate::support::world::World;

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
const BAGGAGE: &str = "sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5,sentry-public_key=head,sentry-sample_rate=0.5";

fn request(headers: &[(&'static str, &'static str)]) -> Request<Body> {
    let mut request = Request::post("http://localhost:50051/helloworld.Greeter/SayHello")
        .header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

fn answer() -> Result<Response<Body>, Infallible> {
    let response = Response::builder().header("grpc-status", "0");
    Ok(response.body(Body::empty()).unwrap())
}

/// Makes a call, and returns the headers that it had.
async fn make_call() -> HeaderMap {
    let (arrived, arrivals) = mpsc::channel();
    let service = service_fn(move |request: Request<Body>| {
        arrived.send(request.headers().clone()).unwrap();
        ready(answer())
    });
    let client = GrpcClientLayer::new().layer(service);
    client.oneshot(request(&[])).await.unwrap();
    arrivals.recv().unwrap()
}

fn told(headers: &HeaderMap) -> (String, Option<String>, Option<String>) {
    let header = headers["sentry-trace"].to_str().unwrap();
    let parts: Vec<&str> = header.split('-').collect();
    let baggage = headers
        .get("baggage")
        .map(|b| b.to_str().unwrap().to_owned());
    (
        parts[0].to_owned(),
        parts.get(2).map(|&flag| flag.to_owned()),
        baggage,
    )
}

/// Receives a call, and handles it so.
async fn receive<F>(headers: &[(&'static str, &'static str)], handle: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    let service = service_fn(|_: Request<RequestBody<Body>>| {
        let handled = handle();
        async {
            handled.await;
            answer()
        }
    });
    let server = GrpcServerLayer::new().layer(service);
    server.oneshot(request(headers)).await.unwrap();
}

/// With a layer that is told its hub, or one that takes the current one.
fn worlds() -> Vec<(bool, World)> {
    let mut worlds = Vec::new();
    for by_sampler in [false, true] {
        for is_pinned in [false, true] {
            let mut world = World::with(
                |options| match by_sampler {
                    true => options.traces_sampler(|_| 0.999_999_9),
                    false => options.traces_sample_rate(1.0),
                },
                |layer| layer,
            );
            if !is_pinned {
                let layer = SentryGrpcLayer::new();
                world.dispatch = tracing_subscriber::registry().with(layer).into();
            }
            worlds.push((is_pinned, world));
        }
    }
    worlds
}

fn run<F: Future>(is_pinned: bool, world: &World, future: F) -> (F::Output, Received) {
    let output = match is_pinned {
        true => world.run(future),
        false => Hub::run(Arc::clone(&world.hub), || world.run(future)),
    };
    (output, world.received())
}

#[test]
fn a_task_with_a_fork_of_the_hub_goes_on_with_the_trace_of_the_call() {
    let incoming = [("sentry-trace", TRACE), ("baggage", BAGGAGE)];
    for headers in [&incoming[..], &[]] {
        for (is_pinned, world) in worlds() {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let handler = Arc::clone(&seen);
            let future = receive(headers, move || {
                let seen = Arc::clone(&handler);
                async move {
                    // The task is first to speak of the trace.
                    let fork = Hub::new_from_top(Hub::current());
                    let task = tokio::spawn(make_call().bind_hub(fork));
                    let of_task = told(&task.await.unwrap());
                    let fork = Hub::new_from_top(Hub::current());
                    let task = async { Span::current().trace_headers() }.bind_hub(fork);
                    let of_span = tokio::spawn(task).await.unwrap().unwrap();
                    let own = told(&make_call().await);
                    assert_eq!(of_span.baggage(), own.2.as_deref());
                    assert!(of_span.sentry_trace().starts_with(&own.0));
                    seen.lock().unwrap().extend([of_task, own]);
                }
            });
            let ((), received) = run(is_pinned, &world, future);
            let seen = seen.lock().unwrap();
            assert_eq!(seen[0], seen[1], "{is_pinned}");
            assert_eq!(seen[0].1.as_deref(), Some("1"));
            let is_continued = seen[0].2.as_deref() == Some(BAGGAGE);
            assert_eq!(is_continued, !headers.is_empty(), "{:?}", seen[0].2);
            // Both calls are spans of the one transaction.
            let tx = received.only_tx();
            let spans: Vec<_> = tx.spans.iter().map(|span| &*span.op).collect();
            assert_eq!(spans, ["grpc.client", "grpc.client"]);
            assert_eq!(
                received.contexts[0]["trace_id"],
                trace(received.only_transaction()).trace_id.to_string()
            );
        }
    }
}

#[test]
fn what_comes_after_the_end_of_a_call_hangs_below_the_call() {
    for (is_pinned, world) in worlds() {
        let (fork, forks) = mpsc::channel();
        let span: Arc<Mutex<Option<Span>>> = Arc::default();
        let handler_span = Arc::clone(&span);
        let future = async {
            let handle = move || {
                let fork = fork.clone();
                *handler_span.lock().unwrap() = Some(Span::current());
                async move { fork.send(Hub::new_from_top(Hub::current())).unwrap() }
            };
            receive(&[("sentry-trace", TRACE), ("baggage", BAGGAGE)], handle).await;
            let fork = forks.recv().unwrap();
            let of_fork = make_call().bind_hub(fork).await;
            let span = span.lock().unwrap().take().unwrap();
            let of_span = span.in_scope(|| {
                let inner = info_span!(target: "test", "late");
                inner.trace_headers().unwrap()
            });
            (of_fork, of_span)
        };
        let ((of_fork, of_span), received) = run(is_pinned, &world, future);
        let root = trace(received.only_transaction());
        let expected = format!("{}-{}-1", root.trace_id, root.span_id);
        assert_eq!(of_fork["sentry-trace"], expected);
        assert_eq!(of_fork["baggage"], BAGGAGE);
        assert_eq!(of_span.sentry_trace(), expected);
        assert_eq!(of_span.baggage(), Some(BAGGAGE));
        assert_eq!(received.only_tx().spans, []);
    }
}

#[test]
fn a_fork_that_outlives_its_call_and_layer_does_no_harm() {
    let world = World::new();
    let hub = world.sync(|| {
        info_span!(target: "test", "job").in_scope(|| Arc::new(Hub::new_from_top(Hub::current())))
    });
    assert_eq!(world.received().txs().len(), 1);
    Hub::run(hub, || {
        sentry::capture_message("late", sentry::Level::Info);
        assert!(Span::none().trace_headers().is_some());
    });
    assert_eq!(world.received().events.len(), 1);
}
