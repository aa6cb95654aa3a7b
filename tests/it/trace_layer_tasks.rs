//! Calls that `TraceLayer` watches, whose spans are in other hands: tasks, layers of
//! all kinds, callbacks, a thread that ends.

use std::any::Any;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{pending, poll_fn, ready};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use sentry::Hub;
use sentry::protocol::SpanStatus;
use tonic::Code;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::trace::TraceLayer;
use tracing::dispatcher::{get_default, with_default};
use tracing::level_filters::LevelFilter;
use tracing::{Span, error, info_span};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer as _, registry, reload};

use sentry_tonic::{SentryMakeSpan, SentryServerLayer, SentryTraceCallbacks, SentryTracingLayer};

use crate::support::body::{ScriptedBody, grpc_status};
use crate::support::received::Sp;
use crate::support::world::World;
use crate::trace_layer::trace_layer;

type Body = Empty<&'static [u8]>;
type Answer = Result<Response<ScriptedBody<Infallible>>, Infallible>;

fn request() -> Request<Body> {
    Request::builder()
        .uri("/helloworld.Greeter/SayHello")
        .header("content-type", "application/grpc")
        .body(Empty::new())
        .unwrap()
}

/// With the status in its head.
fn failing(code: i32) -> Answer {
    let mut response = Response::new(ScriptedBody::new([]));
    *response.headers_mut() = grpc_status(code);
    Ok(response)
}

/// A call of a handler that never answers, dropped after `meanwhile`.
fn dropped(options: SentryServerLayer, meanwhile: impl Fn()) {
    let service = service_fn(|_: Request<Body>| {
        meanwhile();
        pending::<Answer>()
    });
    let mut service = trace_layer!(options).layer(service);
    drop(service.call(request()));
}

/// Runs it on a thread of its own.
fn elsewhere(f: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    let dispatch = get_default(Clone::clone);
    thread::spawn(move || with_default(&dispatch, f))
}

#[test]
fn a_dropped_call_ends_once_nothing_holds_its_span() {
    let world = World::new();
    world.sync(|| {
        let held = RefCell::new(None);
        dropped(SentryServerLayer::new(), || {
            let task = info_span!(target: "test", "task");
            task.in_scope(|| ());
            held.replace(Some((task, Span::current())));
        });
        let (task, call) = held.take().unwrap();
        assert_eq!(world.received().txs(), []);
        drop(call);
        assert_eq!(world.received().txs(), []);
        drop(task);
    });
    let tx = world.received().only_tx();
    assert_eq!(tx.status, SpanStatus::Cancelled);
    assert_eq!(
        tx.spans,
        [Sp::ok("task", "/helloworld.Greeter/SayHello").op("test::task")]
    );
}

/// It has a hub of its own, and its panics.
#[test]
fn a_task_with_a_span_of_its_own_is_beside_the_call() {
    let world = World::new();
    world.run(async {
        let service = service_fn(|_: Request<Body>| async {
            let task = info_span!("task");
            let (begin, begun) = mpsc::channel();
            let (end, ended) = mpsc::channel::<()>();
            let thread = elsewhere(move || {
                task.in_scope(|| {
                    sentry::configure_scope(|scope| scope.set_tag("of_task", true));
                    begin.send(()).unwrap();
                    ended.recv().unwrap();
                    panic!("the task panics");
                });
            });
            begun.recv().unwrap();
            tokio::task::yield_now().await;
            sentry::configure_scope(|scope| scope.set_tag("of_handler", true));
            tokio::task::yield_now().await;
            end.send(()).unwrap();
            thread.join().unwrap_err();
            pending::<Answer>().await
        });
        let options = SentryServerLayer::new().capture_codes([Code::Cancelled]);
        let mut service = trace_layer!(options).layer(service);
        let mut call = Box::pin(service.call(request()));
        for _ in 0..3 {
            poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(event.tags["of_handler"], "true");
    assert!(!event.tags.contains_key("of_task"));
    assert_eq!(received.only_tx().status, SpanStatus::Cancelled);
}

#[test]
fn a_dropped_call_is_told_once_through_layers_of_any_kind() {
    let layer = SentryTracingLayer::new;
    let worlds = [
        World::subscribed(registry().with(Some(layer()))),
        World::subscribed(registry().with(vec![layer()])),
        World::subscribed(registry().with(layer().boxed())),
        World::subscribed(registry().with(reload::Layer::new(layer()).0)),
        World::subscribed(registry().with(layer().with_filter(LevelFilter::INFO))),
        World::subscribed(registry().with(layer()).with(layer())),
    ];
    for world in worlds {
        world.sync(|| dropped(SentryServerLayer::new(), || ()));
        assert_eq!(world.received().only_tx().status, SpanStatus::Cancelled);
    }
    let left_out = World::subscribed(registry().with(layer().with_filter(LevelFilter::OFF)));
    left_out.sync(|| dropped(SentryServerLayer::new(), || ()));
    assert_eq!(left_out.received().txs(), []);
}

/// Whoever is asked as a span closes may trace, and panic: nothing is locked.
#[test]
fn callbacks_at_the_end_of_a_dropped_call_lock_nothing() {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        for panics in [false, true] {
            let traces = |options: sentry::ClientOptions| {
                options.traces_sample_rate(1.0).before_send(|event| {
                    info_span!("before_send").in_scope(|| error!("sends"));
                    Some(event)
                })
            };
            let world = World::with(traces, |layer| layer);
            let options = SentryServerLayer::new().capture_if(move |_| {
                info_span!("asked").in_scope(|| error!("asks"));
                sentry::configure_scope(|scope| scope.set_tag("asked", true));
                assert!(!panics, "the callback panics");
                true
            });
            world.sync(|| dropped(options, || ()));
            let received = world.received();
            assert_eq!(received.only_event().message.as_deref(), Some("asks"));
            assert_eq!(received.only_tx().status, SpanStatus::Cancelled);
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_call_may_be_dropped_as_its_thread_ends() {
    thread_local! {
        static LAST: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    for is_last in [false, true] {
        let world = World::new();
        let (dispatch, client) = (world.dispatch.clone(), world.hub.client());
        let thread = thread::spawn(move || {
            if is_last {
                // What is made first is destroyed last.
                LAST.set(None);
            }
            Hub::current().bind_client(client);
            let _guard = tracing::dispatcher::set_default(&dispatch);
            let service = service_fn(|_: Request<Body>| pending::<Answer>());
            let mut service = trace_layer!(SentryServerLayer::new()).layer(service);
            LAST.set(Some(Box::new(service.call(request()))));
        });
        thread.join().unwrap();
        // Without a hub there is nobody to tell.
        let expected = usize::from(!is_last);
        assert_eq!(world.received().transactions.len(), expected);
    }
}

#[test]
fn a_call_that_is_watched_twice_is_there_twice() {
    for by_middleware in [false, true] {
        let world = World::new();
        world
            .run(async {
                let outer = trace_layer!(SentryServerLayer::new());
                if by_middleware {
                    let service = service_fn(|_: Request<_>| ready(failing(13)));
                    let inner = SentryServerLayer::new().layer(service);
                    outer.layer(inner).oneshot(request()).await.map(drop)
                } else {
                    let service = service_fn(|_: Request<Body>| ready(failing(13)));
                    let inner = trace_layer!(SentryServerLayer::new()).layer(service);
                    outer.layer(inner).oneshot(request()).await.map(drop)
                }
            })
            .unwrap();
        let received = world.received();
        let tx = received.only_tx();
        assert_eq!((tx.status, tx.spans.len()), (SpanStatus::InternalError, 1));
        // They fail as one.
        received.only_event();
    }
}

/// What a head says is told before tower-http has its say.
#[test]
fn a_failure_in_a_head_that_tower_http_logs_is_an_event_beside() {
    for (code, count) in [(5, 1), (13, 2)] {
        let world = World::new();
        world.run(async {
            let trace = TraceLayer::new_for_grpc()
                .make_span_with(SentryMakeSpan::default())
                .on_response(SentryTraceCallbacks)
                .on_eos(SentryTraceCallbacks);
            let service = service_fn(move |_: Request<Body>| ready(failing(code)));
            let response = trace.layer(service).oneshot(request()).await.unwrap();
            response.into_body().collect().await.unwrap();
        });
        let received = world.received();
        assert_eq!(received.events.len(), count);
        let logged = received.events.last().unwrap();
        assert_eq!(logged.message.as_deref(), Some("response failed"));
    }
}
