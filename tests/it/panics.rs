//! What becomes of a handler that panics.

use std::any::Any;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request as HttpRequest, Response as HttpResponse};
use http_body::Body;
use http_body_util::Empty;
use sentry::integrations::panic::PanicIntegration;
use sentry::protocol::{Event, SpanStatus};
use sentry::{ClientOptions, Level};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tower::{Layer, Service, service_fn};
use tracing::{Instrument, error, info, info_span, instrument};
use tracing_subscriber::registry;

use sentry_tonic::{PanicPolicy, RequestBody, ResponseBody, SentryServerLayer, SentryTracingLayer};

use crate::support::alone::alone;
use crate::support::body::{ScriptedBody, Step};
use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::received::{Sp, event_trace, messages, trace};
use crate::support::world::World;

/// Where it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Unary,
    BeforeStream,
    InStream,
    AfterMessages,
    InRequests,
}

const PLACES: [Place; 5] = [
    Place::Unary,
    Place::BeforeStream,
    Place::InStream,
    Place::AfterMessages,
    Place::InRequests,
];

impl Place {
    fn method(self) -> &'static str {
        match self {
            Self::Unary => "SayHello",
            Self::BeforeStream | Self::InStream | Self::AfterMessages => "SayHelloStream",
            Self::InRequests => "CollectHellos",
        }
    }
}

/// What is there beside this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    None,
    /// sentry's panic integration.
    Sentry,
}

const BOTH: [Hook; 2] = [Hook::None, Hook::Sentry];

impl Hook {
    fn world(self, options: impl FnOnce(ClientOptions) -> ClientOptions) -> World {
        self.world_with(options, |layer| layer)
    }

    fn world_with(
        self,
        options: impl FnOnce(ClientOptions) -> ClientOptions,
        layer: impl FnOnce(SentryTracingLayer) -> SentryTracingLayer,
    ) -> World {
        let with_hook = |client: ClientOptions| match self {
            Self::None => options(client),
            Self::Sentry => options(client.add_integration(PanicIntegration::new())),
        };
        World::with(with_hook, layer)
    }
}

fn boom() -> Status {
    info!("about to panic");
    panic!("boom {}", 7)
}

fn panicking(place: Place) -> Scripted {
    Scripted::new()
        .say_hello(|_| async { Err(boom()) })
        .say_hello_stream(move |name| async move {
            let skip = match place {
                Place::BeforeStream => return Err(boom()),
                Place::InStream => 0,
                _ => 2,
            };
            let replies = tokio_stream::iter(0..3);
            let replies = replies.then(move |i| {
                let name = name.clone();
                async move {
                    // tonic sends no message before the stream waits.
                    tokio::task::yield_now().await;
                    match i < skip {
                        true => Ok(reply(&name)),
                        false => Err(boom()),
                    }
                }
            });
            Ok(Box::pin(replies) as Replies)
        })
        .collect_hellos(|requests| async move {
            let requests = requests.map(|_| boom());
            let mut requests = Box::pin(requests);
            Err(requests.next().await.unwrap())
        })
}

/// How many messages came, and how it ended.
async fn call(layer: SentryServerLayer, greeter: Scripted, place: Place) -> (usize, Status) {
    let server = greeter.serve_with(layer).await;
    let mut client = server.client().await;
    let (mut messages, mut failure) = (0, None);
    match place {
        Place::Unary => failure = client.say_hello(request("Ferris")).await.err(),
        Place::InRequests => {
            let requests = tokio_stream::once(request("Ferris"));
            failure = client.collect_hellos(requests).await.err();
        }
        Place::BeforeStream | Place::InStream | Place::AfterMessages => {
            match client.say_hello_stream(request("Ferris")).await {
                Err(status) => failure = Some(status),
                Ok(replies) => {
                    let mut replies = replies.into_inner();
                    while let Some(reply) = replies.next().await {
                        match reply {
                            Ok(_) => messages += 1,
                            Err(status) => failure = Some(status),
                        }
                    }
                }
            }
        }
    }
    drop(client);
    server.stop().await;
    (messages, failure.unwrap())
}

#[track_caller]
fn assert_panic(event: &Event<'_>, hook: Hook) {
    let [exception] = event.exception.values.as_slice() else {
        panic!("{:?}", event.exception)
    };
    let mechanism = exception.mechanism.as_ref().unwrap();
    assert_eq!(event.level, Level::Fatal);
    assert_eq!(mechanism.handled, Some(false));
    assert_eq!(exception.ty, "panic");
    assert_eq!(exception.value.as_deref(), Some("boom 7"));
    assert_eq!(exception.stacktrace.is_some(), hook == Hook::Sentry);
    assert_eq!(
        mechanism.ty,
        match hook {
            Hook::None => "auto.rpc.tonic",
            Hook::Sentry => "panic",
        }
    );
}

#[test]
fn a_panic_is_one_event_and_the_caller_gets_internal() {
    for (hook, place) in BOTH.into_iter().flat_map(|h| PLACES.map(|p| (h, p))) {
        for rate in [Some(1.0), Some(0.0), None] {
            let world = hook.world(|options| match rate {
                Some(rate) => options.traces_sample_rate(rate),
                None => options,
            });
            let case = format!("{hook:?} {place:?} {rate:?}");
            let answer = world.run(call(SentryServerLayer::new(), panicking(place), place));
            let (count, status) = answer;
            assert_eq!(
                count,
                if place == Place::AfterMessages { 2 } else { 0 },
                "{case}"
            );
            assert_eq!(status.code(), Code::Internal, "{case}");
            assert_eq!(status.message(), "internal server error", "{case}");
            let received = world.received();
            let event = received.only_event();
            assert_panic(event, hook);
            let name = format!("/helloworld.Greeter/{}", place.method());
            assert_eq!(event.transaction.as_deref(), Some(name.as_str()), "{case}");
            assert_eq!(event.tags["rpc.method"], place.method(), "{case}");
            assert_eq!(messages(&event.breadcrumbs), ["about to panic"], "{case}");
            if hook == Hook::None {
                assert_eq!(
                    event.fingerprint.as_ref(),
                    [name.as_str(), "INTERNAL", "panic"]
                );
                assert_eq!(event.tags["rpc.grpc.status_code"], "13");
            }
            if rate == Some(1.0) {
                let transaction = received.only_transaction();
                let (event, transaction) = (event_trace(event), trace(transaction));
                assert_eq!(event.trace_id, transaction.trace_id);
                assert_eq!(event.span_id, transaction.span_id);
                assert_eq!(transaction.status, Some(SpanStatus::InternalError));
            } else {
                assert_eq!(received.statuses(), []);
            }
        }
    }
}

/// Without tonic around it, where what is answered can be looked at.
#[test]
fn a_panic_is_answered_wherever_it_happens() {
    type Answered = HttpResponse<ResponseBody<ScriptedBody<Infallible>>>;
    fn answered(
        service: impl Service<
            HttpRequest<RequestBody<Empty<Bytes>>>,
            Response = HttpResponse<ScriptedBody<Infallible>>,
            Error = Infallible,
        >,
        path: &str,
    ) -> Answered {
        let request = HttpRequest::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .body(Empty::new());
        let mut service = SentryServerLayer::new().layer(service);
        let call = service.call(request.unwrap());
        let Poll::Ready(response) = pin!(call).poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("is answered at once")
        };
        response.unwrap()
    }

    let world = World::new();
    world.sync(|| {
        let in_call = service_fn(|_| -> Ready<Result<_, _>> { panic!("in the call") });
        let in_future = service_fn(|_| async { panic!("in the future") });
        for response in [answered(in_call, "/a.B/C"), answered(in_future, "/a.B/C")] {
            let (head, body) = response.into_parts();
            assert_eq!(head.headers["grpc-status"], "13");
            assert_eq!(head.headers["grpc-message"], "internal server error");
            assert_eq!(head.headers["content-type"], "application/grpc");
            assert!(body.is_end_stream());
            assert_eq!(body.size_hint().exact(), Some(0));
        }
        let in_body = service_fn(|_| {
            let steps = [Step::Data(b"\0\0\0\0\0"), Step::Panic, Step::Data(b"more")];
            ready(Ok(HttpResponse::new(ScriptedBody::new(steps))))
        });
        let mut body = pin!(answered(in_body, "/a.B/C").into_body());
        let mut poll = || {
            body.as_mut()
                .poll_frame(&mut Context::from_waker(Waker::noop()))
        };
        assert!(matches!(poll(), Poll::Ready(Some(Ok(frame))) if frame.is_data()));
        let Poll::Ready(Some(Ok(frame))) = poll() else {
            unreachable!("ends with trailers")
        };
        assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "13");
        assert!(matches!(poll(), Poll::Ready(None)));
        assert!(body.is_end_stream());
    });
    assert_eq!(world.received().events.len(), 3);
    // What is left alone is left alone.
    let ignored = || {
        let service = service_fn(|_| async { panic!("in the future") });
        drop(answered(service, "/grpc.health.v1.Health/Check"));
    };
    std::panic::catch_unwind(AssertUnwindSafe(|| world.sync(ignored))).unwrap_err();
    assert_eq!(world.received().events, []);
}

#[test]
fn what_a_panic_says_is_cut_and_what_it_cannot_say_is_known() {
    for (payload, said) in [
        (
            Box::new("é".repeat(1 << 19)) as Box<dyn Any + Send>,
            "é".repeat(512),
        ),
        (Box::new(7), "panicked".to_owned()),
    ] {
        let world = World::new();
        let payload = Mutex::new(Some(payload));
        let greeter = Scripted::new().say_hello(move |_| {
            let payload = payload.lock().unwrap().take().unwrap();
            async { resume_unwind(payload) }
        });
        world.run(greeter.say_hello_once("Ferris")).unwrap_err();
        let received = world.received();
        let exception = &received.only_event().exception[0];
        assert_eq!(exception.value.as_deref(), Some(said.as_str()));
    }
}

#[test]
fn what_a_caller_gets_does_not_depend_on_who_listens() {
    let world = World::subscribed(registry());
    let status = world
        .run(call(
            SentryServerLayer::new(),
            panicking(Place::Unary),
            Place::Unary,
        ))
        .1;
    assert_eq!(status.code(), Code::Internal);
    let left_alone = SentryServerLayer::new().panic_policy(PanicPolicy::Ignore);
    let status = world
        .run(call(left_alone, panicking(Place::Unary), Place::Unary))
        .1;
    assert_eq!(status.code(), Code::Cancelled);
}

#[test]
fn spans_that_a_panic_ends_are_errors() {
    let world = World::new();
    let greeter = Scripted::new().say_hello(|name| {
        let inner = async move {
            assert_eq!(name, "nobody");
            Ok(reply(&name))
        };
        async { inner.instrument(info_span!("inner")).await }
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap_err();
    let inner = Sp::ok("inner", "/helloworld.Greeter/SayHello");
    let expected = [inner
        .op("it::panics::inner")
        .status(SpanStatus::InternalError)];
    assert_eq!(world.received().only_tx().spans, expected);
}

#[test]
fn spans_that_a_panic_passes_by_are_none() {
    struct CleanUp;
    impl Drop for CleanUp {
        fn drop(&mut self) {
            info_span!("clean up").in_scope(|| {});
        }
    }

    let world = World::new();
    let greeter = Scripted::new().say_hello(|_| async {
        let _clean_up = CleanUp;
        let sibling = std::future::pending::<()>().instrument(info_span!("sibling"));
        let bad = async {
            tokio::task::yield_now().await;
            panic!("boom")
        };
        tokio::join!(sibling, bad.instrument(info_span!("bad"))).1
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap_err();
    let spans = world.received().only_tx().spans.into_iter();
    let statuses: BTreeMap<_, _> = spans
        .map(|span| (span.name, span.status.unwrap()))
        .collect();
    let expected = [
        ("bad", SpanStatus::InternalError),
        ("clean up", SpanStatus::Ok),
        ("sibling", SpanStatus::Ok),
    ];
    assert_eq!(
        statuses,
        expected
            .map(|(name, status)| (name.to_owned(), status))
            .into()
    );
}

#[test]
fn a_panic_may_go_on_and_be_left_alone() {
    for (panic_policy, hook, events) in [
        (PanicPolicy::ResumeUnwind, Hook::None, 1),
        (PanicPolicy::ResumeUnwind, Hook::Sentry, 1),
        (PanicPolicy::Ignore, Hook::None, 0),
        (PanicPolicy::Ignore, Hook::Sentry, 1),
    ] {
        for place in PLACES {
            let world = hook.world(|options| options.traces_sample_rate(1.0));
            let layer = SentryServerLayer::new().panic_policy(panic_policy);
            let (_, status) = world.run(call(layer, panicking(place), place));
            // tonic resets the stream.
            assert_eq!(status.code(), Code::Cancelled, "{place:?}");
            let received = world.received();
            assert_eq!(
                received.events.len(),
                events,
                "{panic_policy:?} {hook:?} {place:?}"
            );
            received
                .events
                .iter()
                .for_each(|event| assert_panic(event, hook));
            let status = received.only_tx().status;
            assert_eq!(status, SpanStatus::InternalError);
        }
    }
}

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

#[instrument(err)]
fn connect() -> Result<(), Refused> {
    Err(Refused)
}

#[instrument(err)]
fn query() -> Result<(), Refused> {
    connect()
}

#[instrument(err)]
fn look_up() -> Result<(), Refused> {
    query()
}

/// Through three functions, a log line, and a status or a panic.
fn failing(panics: bool) -> Scripted {
    Scripted::new().say_hello(move |_| async move {
        let Err(error) = look_up() else {
            return Ok(reply("nobody"));
        };
        error!("cannot greet: {error}");
        error!(error = &error as &dyn std::error::Error, "cannot greet");
        assert!(!panics, "cannot greet: {error}");
        let mut status = Status::internal("cannot greet");
        status.set_source(Arc::new(error));
        Err(status)
    })
}

#[test]
fn one_failure_is_one_event_whatever_tells_it() {
    for hook in BOTH {
        for panics in [false, true] {
            for (one, told) in [(true, 1), (false, 6)] {
                let world = hook.world_with(
                    |options| options.traces_sample_rate(1.0),
                    |layer| layer.deduplicate_errors(one),
                );
                let call = call(SentryServerLayer::new(), failing(panics), Place::Unary);
                let (_, status) = world.run(call);
                assert_eq!(status.code(), Code::Internal);
                let events = world.received().events;
                // Without the rule, a panic is told by the hook and by its status.
                let twice = usize::from(!one && panics && hook == Hook::Sentry);
                assert_eq!(events.len(), told + twice, "{hook:?} {panics} {one}");
                assert_eq!(events[0].message.as_deref(), Some("refused"));
            }
        }
    }
}

#[test]
fn what_was_left_out_is_a_breadcrumb_of_what_follows() {
    let world = World::new();
    let greeter = Scripted::new().say_hello(|_| async {
        let _ = look_up();
        error!("the disk is full");
        Ok(reply("Ferris"))
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap();
    let events = world.received().events;
    let [first, second] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(first.message.as_deref(), Some("refused"));
    assert_eq!(second.message.as_deref(), Some("the disk is full"));
    assert_eq!(messages(&second.breadcrumbs), ["refused", "refused"]);
}

#[test]
fn different_errors_are_told_each_and_those_of_other_calls_too() {
    let world = World::new();
    world.run(async {
        let server = Scripted::new()
            .say_hello_stream(|_| async {
                let replies = tokio_stream::iter(0..300).map(|i| {
                    error!("cannot greet number {}", i % 100);
                    Ok(reply("Ferris"))
                });
                Ok(Box::pin(replies) as Replies)
            })
            .serve()
            .await;
        let mut client = server.client().await;
        for _ in 0..2 {
            let replies = client.say_hello_stream(request("Ferris")).await;
            let replies = replies.map(Response::into_inner).unwrap();
            assert_eq!(replies.collect::<Vec<_>>().await.len(), 300);
        }
        drop(client);
        server.stop().await;
    });
    // Of the last 64 errors each is known; the hundredth is not.
    assert_eq!(world.received().events.len(), 600);
}

#[test]
fn what_the_application_captures_is_always_sent() {
    let world = World::new();
    let greeter = Scripted::new().say_hello(|_| async {
        for _ in 0..3 {
            sentry::capture_error(&Refused);
            let _ = look_up();
        }
        Err(Status::internal("refused"))
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap_err();
    let events = world.received().events;
    assert_eq!(events.len(), 3, "{events:?}");
}

/// In a process of its own, whose threads and memory nobody else uses.
#[test]
fn a_thousand_panics_over_one_connection_harm_nobody_else() {
    let name = "panics::a_thousand_panics_over_one_connection_harm_nobody_else";
    alone(name, || BOTH.into_iter().for_each(panic_a_thousand_times));
}

fn panic_a_thousand_times(hook: Hook) {
    let world = hook.world(|options| options.traces_sample_rate(1.0));
    let greeter = Scripted::new().say_hello(|name| async move {
        tokio::task::yield_now().await;
        assert_ne!(name, "panic");
        Ok(reply(&name))
    });
    world.run(async {
        let layer = SentryServerLayer::new().max_events_per_minute(None);
        let server = greeter.serve_with(layer).await;
        let client = server.client().await;
        let mut used = Vec::new();
        for _ in 0..5 {
            call_at_once(&client, 500).await;
            let received = world.received();
            assert_eq!(
                (received.events.len(), received.transactions.len()),
                (250, 500)
            );
            drop(received);
            used.push((threads(), memory()));
        }
        // The first calls warm up what is kept.
        let [_, _, (threads, memory), .., last] = used.as_slice() else {
            panic!("{used:?}")
        };
        assert!(
            last.0 <= *threads && last.1 <= memory + 4_000_000,
            "{used:?}"
        );
        drop(client);
        server.stop().await;
    });
}

/// Every other call panics.
async fn call_at_once(client: &GreeterClient<Channel>, count: usize) {
    let mut calls = JoinSet::new();
    for i in 0..count {
        let mut client = client.clone();
        let name = if i % 2 == 0 { "panic" } else { "Ferris" };
        calls.spawn(async move {
            match client.say_hello(request(name)).await {
                Ok(reply) => assert_eq!(reply.into_inner().message, "Hello Ferris!"),
                Err(status) => assert_eq!((name, status.code()), ("panic", Code::Internal)),
            }
        });
    }
    assert_eq!(calls.join_all().await.len(), count);
}

/// Of this process; none where nobody counts them.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Bytes of this process that are in memory; none where nobody counts them.
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_usize) * 4096
}

#[cfg(feature = "transport")]
#[test]
fn no_cancelled_call_is_an_event() {
    for panics in [false, true] {
        let world = World::new();
        world.run(async {
            let (entered, mut wait) = tokio::sync::mpsc::channel(1);
            let greeter = Scripted::new()
                .say_hello(move |_| {
                    let entered = entered.clone();
                    async move {
                        entered.send(()).await.unwrap();
                        std::future::pending::<()>().await;
                        unreachable!()
                    }
                })
                .say_hello_stream(|name| async move {
                    let replies = tokio_stream::once(Ok(reply(&name)));
                    let replies = replies.chain(tokio_stream::pending());
                    Ok(Box::pin(replies) as Replies)
                })
                .collect_hellos(|_| async { Err(Status::cancelled("by the handler")) });
            let server = greeter.serve().await;
            let mut client = server.client().await;
            // The caller hangs up before there is an answer.
            let mut caller = client.clone();
            let waiting = tokio::spawn(async move { caller.say_hello(request("Ferris")).await });
            wait.recv().await.unwrap();
            waiting.abort();
            let _ = waiting.await;
            // In a stream.
            let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
            let mut replies = replies.into_inner();
            replies.next().await.unwrap().unwrap();
            drop(replies);
            // The handler says so.
            let requests = tokio_stream::once(request("Ferris"));
            client.collect_hellos(requests).await.unwrap_err();
            if panics {
                // The task that holds a call panics elsewhere.
                let mut caller = client.clone();
                let task = tokio::spawn(async move {
                    let mut call = std::pin::pin!(caller.say_hello(request("Ferris")));
                    tokio::select! {
                        _ = &mut call => {}
                        () = tokio::task::yield_now() => panic!("elsewhere"),
                    }
                });
                task.await.unwrap_err();
            }
            drop(client);
            server.stop().await;
        });
        assert_eq!(world.received().events, []);
    }
}
