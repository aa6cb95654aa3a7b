//! Which hub is current in a span, where applications, threads and other layers have theirs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use sentry::{Hub, Level};
use tonic::Status;
use tracing::{info, info_span};

use sentry_tonic::SentryServerLayer;
use tower::Layer;

use crate::isolation::tag;
use crate::support::received::{event_trace, messages, trace};
use crate::support::world::World;

#[test]
fn a_hub_that_the_application_chose_inside_a_span_holds() {
    let world = World::new();
    world.sync(|| {
        let _job = info_span!(target: "test", "job").entered();
        let fork = Arc::new(Hub::new_from_top(Hub::current()));
        fork.configure_scope(|scope| scope.set_tag("hub", "fork"));
        Hub::run(fork, || {
            info_span!(target: "test", "inner").in_scope(|| {
                sentry::capture_message("inner", Level::Info);
            });
            sentry::capture_message("fork", Level::Info);
        });
        sentry::capture_message("job", Level::Info);
    });
    let received = world.received();
    let transaction = received.only_transaction();
    let spans: Vec<_> = received
        .events
        .iter()
        .map(|event| {
            let id = event_trace(event).span_id;
            let span = transaction.spans.iter().find(|span| span.span_id == id);
            let name = span.and_then(|span| span.description.as_deref());
            (
                event.message.as_deref().unwrap(),
                name.unwrap_or("job"),
                tag(&event.tags, "hub"),
            )
        })
        .collect();
    assert_eq!(
        spans,
        [
            ("inner", "inner", Some("fork")),
            ("fork", "job", Some("fork")),
            ("job", "job", None)
        ]
    );
}

#[test]
fn a_fork_of_one_rpcs_hub_tells_nothing_of_it_in_another() {
    let world = World::new();
    world.sync(|| {
        let first = info_span!(target: "test", "first");
        let fork = first.in_scope(|| {
            info!(target: "test", "in first");
            Arc::new(Hub::new_from_top(Hub::current()))
        });
        let second = info_span!(target: "test", parent: None, "second");
        second.in_scope(|| {
            info!(target: "test", "in second");
            Hub::run(fork, || sentry::capture_message("in both", Level::Info));
        });
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(messages(&event.breadcrumbs), [] as [&str; 0]);
}

#[test]
fn threads_that_enter_the_same_new_span_at_once_agree() {
    for _ in 0..50 {
        let world = World::new();
        let job = world.sync(|| info_span!(target: "test", "job"));
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    barrier.wait();
                    let _in_job = job.enter();
                    let _ = Hub::current().capture_message("in job", Level::Info);
                });
            }
        });
        drop(job);
        let received = world.received();
        let trace_id = trace(received.only_transaction()).trace_id;
        assert_eq!(received.events.len(), 3);
        for event in &received.events {
            assert_eq!(event_trace(event).trace_id, trace_id);
        }
    }
}

/// Runs on another thread, while this one waits where it is.
fn elsewhere(world: &World, f: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| world.sync(f));
    });
}

#[test]
fn a_span_entered_on_two_threads_keeps_its_own_hub() {
    let world = World::new();
    world.sync(|| {
        let job = info_span!(target: "test", "job");
        job.in_scope(|| {
            sentry::configure_scope(|scope| scope.set_tag("by", "first"));
            elsewhere(&world, || {
                job.in_scope(|| {
                    sentry::configure_scope(|scope| scope.set_tag("by", "second"));
                    sentry::capture_message("second", Level::Info);
                });
            });
        });
        job.in_scope(|| sentry::capture_message("first", Level::Info));
    });
    let received = world.received();
    for event in &received.events {
        assert_eq!(tag(&event.tags, "by"), event.message.as_deref());
    }
    assert_eq!(tag(&received.only_transaction().tags, "by"), Some("first"));
}

#[test]
fn a_fork_made_while_a_child_is_entered_is_the_roots() {
    let world = World::new();
    world.sync(|| {
        let job = info_span!(target: "test", "job");
        let in_job = job.enter();
        let in_child = info_span!(target: "test", "child").entered();
        elsewhere(&world, || {
            job.in_scope(|| sentry::capture_message("in job", Level::Info));
        });
        drop((in_child, in_job));
    });
    let received = world.received();
    let trace = trace(received.only_transaction());
    assert_eq!(event_trace(received.only_event()).span_id, trace.span_id);
}

#[test]
fn spans_that_begin_undo_nothing_on_the_hub_they_begin_from() {
    const TAGS: usize = 1_000;
    // One that all threads begin from.
    let world = World::new().pinned();
    let roots = AtomicUsize::new(0);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            world.sync(|| {
                while !is_done.load(Ordering::Relaxed) {
                    drop(info_span!(target: "test", "root"));
                    roots.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        for n in 0..TAGS {
            let key = n.to_string();
            world.hub.configure_scope(|scope| scope.set_tag(&key, n));
            if n % 10 == 0 {
                let seen = roots.load(Ordering::Relaxed);
                while roots.load(Ordering::Relaxed) == seen {
                    std::thread::yield_now();
                }
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
    world.received();
    world.hub.capture_message("all", Level::Info);
    assert_eq!(world.received().only_event().tags.len(), TAGS);
}

#[test]
fn a_scope_that_the_application_clears_gets_its_span_back_in_the_spans_inside() {
    let world = World::new();
    world.sync(|| {
        let job = info_span!(target: "test", "job");
        job.in_scope(|| {
            sentry::configure_scope(sentry::Scope::clear);
            info_span!(target: "test", "inside").in_scope(|| {
                sentry::capture_message("inside", Level::Info);
            });
            sentry::capture_message("cleared", Level::Info);
        });
    });
    let received = world.received();
    let transaction = received.only_transaction();
    let events = &received.events;
    assert_eq!(
        event_trace(&events[0]).span_id,
        transaction.spans[0].span_id
    );
    assert_ne!(
        event_trace(&events[1]).trace_id,
        trace(transaction).trace_id
    );
}

#[test]
fn a_span_that_the_application_put_on_the_scope_stays() {
    let world = World::new();
    world.sync(|| {
        let job = info_span!(target: "test", "job");
        let manual = job.in_scope(|| {
            sentry::configure_scope(|scope| {
                let manual = scope.get_span().unwrap().start_child("manual.op", "manual");
                scope.set_span(Some(manual.clone().into()));
                Some(manual)
            })
        });
        job.in_scope(|| sentry::capture_message("later", Level::Info));
        manual.unwrap().finish();
    });
    let received = world.received();
    let manual = &received.only_transaction().spans[0];
    assert_eq!(event_trace(received.only_event()).span_id, manual.span_id);
}

/// Makes a call of its own each time that a span is entered.
#[derive(Debug, Default)]
struct Calling(AtomicBool);

impl Calling {
    fn call(&self) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        let answer = tower::service_fn(|_: http::Request<_>| {
            std::future::ready(Ok::<_, Status>(http::Response::new(
                tonic::body::Body::empty(),
            )))
        });
        let request = http::Request::post("http://localhost/log.Log/Write")
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::empty())
            .unwrap();
        let call = tower::ServiceExt::oneshot(SentryServerLayer::new().layer(answer), request);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::pin!(call).poll(&mut cx).is_ready());
        self.0.store(false, Ordering::Relaxed);
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Calling {
    fn on_enter(&self, _: &tracing::Id, _: tracing_subscriber::layer::Context<'_, S>) {
        self.call();
    }
}

#[test]
fn a_layer_may_make_calls_as_others_are_entered() {
    use tracing_subscriber::layer::SubscriberExt;

    let subscriber = tracing_subscriber::registry()
        .with(Calling::default())
        .with(sentry_tonic::SentryTracingLayer::new());
    World::subscribed(subscriber).sync(|| {
        let before = Hub::current();
        let calling = Calling::default();
        calling.call();
        assert!(Arc::ptr_eq(&Hub::current(), &before), "left in a call");
    });
}
