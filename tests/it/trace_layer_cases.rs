//! What the hooks for `TraceLayer` make of what is seldom seen: services and bodies that
//! do what a test says.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use sentry::protocol::{SessionStatus, SpanStatus};
use tonic::Status;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::classify::GrpcFailureClass;
use tower_http::trace::{OnFailure, TraceLayer};
use tracing::Span;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, registry};

use sentry_tonic::{SentryMakeSpan, SentryServerLayer, SentryTraceCallbacks, SentryTracingLayer};

use crate::support::body::{ScriptedBody, Step, grpc_status};
use crate::support::recorder::Recorder;
use crate::support::world::{RATES, World};
use crate::trace_layer::trace_layer;

type Body = Empty<&'static [u8]>;

#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pipe is broken")
    }
}

impl Error for Broken {}

fn request() -> Request<Body> {
    request_of("/helloworld.Greeter/SayHello", "application/grpc")
}

fn request_of(path: &str, content_type: &str) -> Request<Body> {
    Request::builder()
        .uri(path)
        .header("content-type", content_type)
        .body(Empty::new())
        .unwrap()
}

fn stream(steps: impl IntoIterator<Item = Step<Broken>>) -> Response<ScriptedBody<Broken>> {
    Response::new(ScriptedBody::new(steps))
}

type Answer = Result<Response<ScriptedBody<Broken>>, Broken>;

/// Reads an answer to its end, behind a `TraceLayer`.
macro_rules! drive {
    ($trace:expr, $answer:expr) => {{
        let mut answer: Option<Answer> = Some($answer);
        let service = service_fn(move |_: Request<Body>| ready(answer.take().unwrap()));
        if let Ok(response) = $trace.layer(service).oneshot(request()).await {
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
    }};
}

/// Status, and description, of the one transaction.
#[track_caller]
fn ending(world: &World) -> (SpanStatus, Option<String>) {
    let tx = world.received().only_tx();
    let text = tx.data.get("otel.status_description");
    let text = text.map(|text| text.as_str().unwrap().to_owned());
    (tx.status, text)
}

#[test]
fn every_way_to_end_is_told() {
    let at_once = || stream([Step::AtEnd]);
    let unavailable = || {
        let mut response = stream([]);
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    };
    let text = |text: &str| Some(text.to_owned());
    let no_status = || {
        let text = text("the response ended without grpc-status");
        (SpanStatus::UnknownError, text)
    };
    let broken = || (SpanStatus::UnknownError, text("the pipe is broken"));
    let cases: [(&str, Answer, _); 8] = [
        ("service fails", Err(Broken), broken()),
        ("body fails", Ok(stream([Step::Fail(Broken)])), broken()),
        ("no trailers", Ok(stream([Step::Data(b"x")])), no_status()),
        ("nothing follows", Ok(at_once()), no_status()),
        (
            "trailers without status",
            Ok(stream([Step::Trailers(Default::default())])),
            no_status(),
        ),
        (
            "HTTP status",
            Ok(unavailable()),
            (SpanStatus::Unavailable, text("HTTP status 503")),
        ),
        (
            "a code that there is not",
            Ok(stream([Step::Trailers(grpc_status(99))])),
            (SpanStatus::UnknownError, text("unknown grpc-status \"99\"")),
        ),
        (
            "trailers",
            Ok(stream([Step::Pending, Step::Trailers(grpc_status(0))])),
            (SpanStatus::Ok, None),
        ),
    ];
    for (name, answer, expected) in cases {
        let world = World::new();
        world.run(async { drive!(trace_layer!(SentryServerLayer::new()), answer) });
        assert_eq!(ending(&world), expected, "{name}");
    }
}

#[test]
fn a_body_that_says_it_is_at_its_end_need_not_be_polled() {
    let world = World::new();
    world.run(async {
        let service =
            service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(stream([Step::AtEnd]))));
        let trace = trace_layer!(SentryServerLayer::new());
        let response = trace.layer(service).oneshot(request()).await.unwrap();
        assert!(response.body().is_end_stream());
    });
    let text = "the response ended without grpc-status".to_owned();
    assert_eq!(ending(&world), (SpanStatus::UnknownError, Some(text)));
}

#[test]
fn a_classifier_for_http_will_do() {
    for (answer, expected) in [
        (Err(Broken), SpanStatus::UnknownError),
        (
            Ok(stream([Step::Trailers(grpc_status(5))])),
            SpanStatus::NotFound,
        ),
    ] {
        let world = World::new();
        world.run(async {
            let trace = TraceLayer::new_for_http()
                .make_span_with(SentryMakeSpan::default())
                .on_response(SentryTraceCallbacks)
                .on_body_chunk(SentryTraceCallbacks)
                .on_eos(SentryTraceCallbacks)
                .on_failure(SentryTraceCallbacks);
            drive!(trace, answer);
        });
        assert_eq!(world.received().only_tx().status, expected);
    }
}

#[test]
fn a_failure_is_told_without_the_other_hooks() {
    let head = {
        let mut response = stream([]);
        *response.headers_mut() = grpc_status(5);
        response
    };
    for answer in [head, stream([Step::Trailers(grpc_status(5))])] {
        let world = World::new();
        world.run(async {
            let trace = TraceLayer::new_for_grpc()
                .make_span_with(SentryMakeSpan::default())
                .on_response(())
                .on_body_chunk(())
                .on_eos(())
                .on_failure(|failure: GrpcFailureClass, latency, span: &Span| {
                    SentryTraceCallbacks.on_failure(failure, latency, span);
                });
            drive!(trace, Ok(answer));
        });
        assert_eq!(ending(&world).0, SpanStatus::NotFound);
    }
}

#[test]
fn a_panic_is_a_failure_and_is_left_to_others() {
    for rate in RATES {
        for in_body in [false, true] {
            let world = World::rated(
                rate,
                |options| {
                    options
                        .release("it@1")
                        .auto_session_tracking(true)
                        .session_mode(sentry::SessionMode::Request)
                },
                |layer| layer,
            );
            world.sync(|| {
                let service = service_fn(move |_: Request<Body>| async move {
                    assert!(in_body, "the handler panics");
                    Ok::<_, Infallible>(stream([Step::Data(b"x"), Step::Panic]))
                });
                let mut cx = Context::from_waker(Waker::noop());
                let mut service = trace_layer!(SentryServerLayer::new()).layer(service);
                let mut call = Box::pin(service.call(request()));
                if in_body {
                    let std::task::Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) else {
                        panic!("no response")
                    };
                    let mut body = Box::pin(response.into_body());
                    assert!(body.as_mut().poll_frame(&mut cx).is_ready());
                    let panicked = catch_unwind(AssertUnwindSafe(|| {
                        let _ = body.as_mut().poll_frame(&mut cx);
                    }));
                    panicked.unwrap_err();
                } else {
                    let panicked = catch_unwind(AssertUnwindSafe(|| {
                        let _ = call.as_mut().poll(&mut cx);
                    }));
                    panicked.unwrap_err();
                }
                // Caught by somebody: what panicked is dropped after that.
                drop(call);
            });
            world.hub.client().unwrap().flush(None);
            let received = world.received();
            assert!(received.events.is_empty(), "{:?}", received.events);
            let crashed = received.others.iter().filter_map(|item| match item {
                sentry::protocol::EnvelopeItem::SessionAggregates(sessions) => {
                    Some(sessions.aggregates.iter().map(|a| a.crashed).sum::<u32>())
                }
                sentry::protocol::EnvelopeItem::SessionUpdate(update) => {
                    Some(u32::from(update.status == SessionStatus::Crashed))
                }
                _ => None,
            });
            assert_eq!(crashed.sum::<u32>(), 1, "{:?}", received.others);
            if rate == Some(1.0) {
                let tx = received.only_tx();
                assert_eq!(tx.status, SpanStatus::InternalError);
                assert_eq!(tx.data["error.type"], "INTERNAL");
                assert_eq!(tx.data["otel.status_description"], "panicked");
            }
        }
    }
}

#[test]
fn a_call_that_is_dropped_in_time_and_out_of_time() {
    for (timeout, expected) in [
        ("1n", SpanStatus::DeadlineExceeded),
        ("1H", SpanStatus::Cancelled),
    ] {
        let world = World::new();
        world.sync(|| {
            let service = service_fn(|_: Request<Body>| pending::<Answer>());
            let mut service = trace_layer!(SentryServerLayer::new()).layer(service);
            let mut request = request();
            let timeout = timeout.parse().unwrap();
            request.headers_mut().insert("grpc-timeout", timeout);
            let mut call = pin!(service.call(request));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut cx).is_pending());
        });
        assert_eq!(ending(&world).0, expected);
    }
}

#[test]
fn what_is_no_call_passes_through() {
    let ignored = "/grpc.health.v1.Health/Check";
    let greeter = "/helloworld.Greeter/SayHello";
    for (path, content_type) in [
        (ignored, "application/grpc"),
        (greeter, "application/grpc-web"),
        (greeter, "text/html"),
    ] {
        let world = World::new();
        world.run(async {
            let service =
                service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(stream([Step::AtEnd]))));
            let trace = trace_layer!(SentryServerLayer::new());
            let request = request_of(path, content_type);
            let response = trace.layer(service).oneshot(request).await.unwrap();
            assert!(response.into_body().frame().await.is_none());
        });
        let received = world.received();
        assert_eq!(received.txs(), []);
        assert!(received.events.is_empty());
    }
}

#[test]
fn a_call_that_the_middleware_has_counts_once() {
    let world = World::new();
    world.run(async {
        let stack = ServiceBuilder::new()
            .layer(SentryServerLayer::new())
            .layer(trace_layer!(SentryServerLayer::new()));
        let service = service_fn(|_: Request<_>| {
            ready(Ok::<_, Infallible>(stream([Step::Trailers(grpc_status(
                5,
            ))])))
        });
        let response = stack.service(service).oneshot(request()).await.unwrap();
        response.into_body().collect().await.unwrap();
    });
    let tx = world.received().only_tx();
    assert_eq!((tx.status, tx.spans), (SpanStatus::NotFound, vec![]));
}

/// The event that a `DefaultOnFailure` logs is that of the call.
#[test]
fn a_failure_that_tower_http_logs_is_one_event() {
    let world = World::new();
    world.run(async {
        let trace = TraceLayer::new_for_grpc()
            .make_span_with(SentryMakeSpan::default())
            .on_response(SentryTraceCallbacks)
            .on_eos(SentryTraceCallbacks);
        drive!(trace, Ok(stream([Step::Trailers(grpc_status(13))])));
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(event.message.as_deref(), Some("response failed"));
    assert_eq!(received.only_tx().status, SpanStatus::InternalError);
}

#[test]
fn without_a_sentry_layer_the_span_tells_how_a_call_went() {
    let recorder = Recorder::default();
    let subscriber = registry().with(recorder.clone());
    tracing::dispatcher::with_default(&tracing::Dispatch::new(subscriber), || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        runtime_of(runtime).block_on(async {
            let answer = stream([Step::Trailers(grpc_status(13))]);
            drive!(trace_layer!(SentryServerLayer::new()), Ok(answer));
            let answer = stream([Step::Data(b"x"), Step::Pending]);
            let mut answer = Some(answer);
            let service = service_fn(move |_: Request<Body>| {
                ready(Ok::<_, Infallible>(answer.take().unwrap()))
            });
            let trace = trace_layer!(SentryServerLayer::new());
            drop(trace.layer(service).oneshot(request()).await.unwrap());
        });
    });
    let lines = recorder.take();
    let recorded: Vec<_> = lines.iter().filter(|l| l.starts_with("record")).collect();
    let expected = [
        "record rpc.grpc.status_code: 13",
        "record rpc.response.status_code: \"INTERNAL\"",
        "record rpc.response.message_count: 0",
        "record error.type: \"INTERNAL\"",
        "record otel.status_code: \"ERROR\"",
    ];
    assert_eq!(recorded, expected, "{lines:?}");
    let count = |line: &str| lines.iter().filter(|l| l.starts_with(line)).count();
    // Nothing holds a span on.
    assert_eq!((count("new"), count("close")), (2, 2), "{lines:?}");
}

fn runtime_of(mut builder: tokio::runtime::Builder) -> tokio::runtime::Runtime {
    builder.enable_all().build().unwrap()
}

#[test]
fn a_span_that_nobody_wants_is_none() {
    let world = World::subscribed(
        registry()
            .with(EnvFilter::new("warn"))
            .with(SentryTracingLayer::new()),
    );
    world.run(async {
        let answer = stream([Step::Trailers(grpc_status(13))]);
        drive!(trace_layer!(SentryServerLayer::new()), Ok(answer));
    });
    let received = world.received();
    assert_eq!(received.txs(), []);
    // Nobody at all.
    tracing::dispatcher::with_default(&tracing::Dispatch::none(), || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        runtime_of(runtime).block_on(async {
            drive!(trace_layer!(SentryServerLayer::new()), Err(Broken));
        });
    });
}

#[test]
fn the_hooks_leave_other_spans_alone() {
    let world = World::new();
    world.run(async {
        let trace = TraceLayer::new_for_grpc()
            .make_span_with(|_: &Request<Body>| tracing::info_span!("of_the_application"))
            .on_response(SentryTraceCallbacks)
            .on_body_chunk(SentryTraceCallbacks)
            .on_eos(SentryTraceCallbacks)
            .on_failure(SentryTraceCallbacks);
        drive!(trace, Ok(stream([Step::Trailers(grpc_status(13))])));
    });
    let tx = world.received().only_tx();
    assert_eq!(tx.name, "of_the_application");
    assert_eq!(tx.status, SpanStatus::Ok);
}

/// The status that a call failed with is its cause, and lives as long as it must.
#[test]
fn nothing_is_left_of_a_call_that_is_over() {
    let world = World::new();
    let cause = Arc::new(Broken);
    world.run(async {
        let mut response = stream([]);
        *response.headers_mut() = grpc_status(13);
        let mut status = Status::internal("broken");
        status.set_source(cause.clone());
        response.extensions_mut().insert(status);
        drive!(trace_layer!(SentryServerLayer::new()), Ok(response));
    });
    let received = world.received();
    let exceptions = crate::support::received::exceptions(received.only_event());
    assert_eq!(
        exceptions[0],
        ("Broken".to_owned(), Some("the pipe is broken".to_owned()))
    );
    assert_eq!(Arc::strong_count(&cause), 1);
}
