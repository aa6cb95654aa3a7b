//! A failure that was reported in a call is not reported again; any other is.

use std::future::ready;
use std::sync::{Arc, mpsc};

use http::{Request, Response};
use http_body_util::Empty;

use sentry::integrations::tracing::ErrorLayer;
use sentry::{ClientOptions, Hub, Level, SentryFutureExt};
use tonic::{Code, Status};
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Instrument, error, info_span, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt};
use tracing_subscriber::registry;

use sentry_tonic::{RequestBody, SentryClientLayer, SentryServerLayer, SentryTracingLayer};

use crate::failures::{DiskFull, calls_of_a_client, count, post, some, with_source};
use crate::support::body::{ScriptedBody, Step};
use crate::support::greeter::{Scripted, request};
use crate::support::received::exceptions;
use crate::support::world::World;

/// Fails after it has done `act`.
fn failing(act: impl Fn() + Send + Sync + 'static) -> Scripted {
    let act = Arc::new(act);
    Scripted::new().say_hello(move |_| {
        let act = Arc::clone(&act);
        async move {
            act();
            Err(Status::internal("failed"))
        }
    })
}

async fn call_once(greeter: Scripted) {
    let server = greeter.serve().await;
    let mut client = server.client().await;
    client.say_hello(request("Ferris")).await.unwrap_err();
    drop(client);
    server.stop().await;
}

#[test]
fn a_failure_that_was_told_is_not_told_again() {
    let acts: [(&str, fn()); 4] = [
        ("an ERROR event", || error!("failed")),
        ("captured", || {
            sentry::capture_error(&DiskFull);
        }),
        ("in a span inside", || {
            info_span!("inside").in_scope(|| error!("failed"));
        }),
        ("in a scope of its own", || {
            sentry::with_scope(
                |scope| scope.set_tag("a", "b"),
                || {
                    sentry::capture_error(&DiskFull);
                },
            );
        }),
    ];
    for (name, act) in acts {
        for rate in [0.0, 1.0] {
            let world = World::sampled(rate);
            world.run(call_once(failing(act)));
            assert_eq!(count(&world), 1, "{name} at {rate}");
        }
    }
}

#[test]
fn a_message_that_is_no_error_is_no_failure() {
    for (level, events) in [
        (Level::Debug, 2),
        (Level::Info, 2),
        (Level::Warning, 2),
        (Level::Error, 1),
        (Level::Fatal, 1),
    ] {
        let world = World::new();
        world.run(call_once(failing(move || {
            sentry::capture_message("the cache is cold", level);
        })));
        assert_eq!(count(&world), events, "{level}");
    }
}

#[test]
fn what_repeats_an_event_that_is_no_error_is_left_out_and_the_failure_is_not() {
    // Of the level of its scope, which holds for the event of the status, too.
    let world = World::new();
    world.run(call_once(failing(|| {
        sentry::configure_scope(|scope| scope.set_level(Some(Level::Warning)));
        error!("the store is gone");
        error!("cannot greet: the store is gone");
    })));
    assert_eq!(count(&world), 2);

    let layer = SentryTracingLayer::new().capture_errors(false);
    let own = ErrorLayer::new().with_filter(LevelFilter::WARN);
    let world = World::subscribed(registry().with(layer).with(own));
    world.run(call_once(failing(|| {
        warn!("the store is gone");
        warn!("cannot greet: the store is gone");
    })));
    assert_eq!(count(&world), 2);
}

#[test]
fn a_failure_that_another_thread_told_is_not_told_again() {
    let world = World::new();
    world.run_threads(2, async {
        let greeter = Scripted::new().say_hello(|_| async {
            let span = tracing::Span::current();
            let task = async { error!("failed") };
            let task = tokio::spawn(task.instrument(span));
            task.await.unwrap();
            Err(Status::internal("failed"))
        });
        call_once(greeter).await;
    });
    assert_eq!(count(&world), 1);
}

fn drops_messages(options: ClientOptions) -> ClientOptions {
    options
        .traces_sample_rate(1.0)
        .before_send(|event| event.message.is_none().then_some(event))
}

#[test]
fn what_was_not_sent_was_not_told() {
    // The application drops its own event, not that of the failed status.
    let world = World::with(drops_messages, |layer| layer);
    world.run(call_once(failing(|| {
        sentry::capture_message("dropped", Level::Error);
    })));
    let received = world.received();
    assert_eq!(
        exceptions(received.only_event()),
        [("INTERNAL".to_owned(), some("failed"))]
    );
    // What is dropped later takes nothing away from what was sent before.
    let world = World::with(drops_messages, |layer| layer);
    world.run(call_once(failing(|| {
        sentry::capture_error(&DiskFull);
        sentry::capture_message("dropped", Level::Error);
    })));
    let received = world.received();
    assert_eq!(
        exceptions(received.only_event()),
        [("DiskFull".to_owned(), some("no space left"))]
    );
}

#[test]
fn what_was_told_in_one_call_is_told_of_another() {
    let world = World::new();
    world.run(async {
        let server = failing(|| error!("failed")).serve().await;
        let mut client = server.client().await;
        for _ in 0..3 {
            client.say_hello(request("Ferris")).await.unwrap_err();
        }
        drop(client);
        server.stop().await;
        call_once(failing(|| {})).await;
    });
    assert_eq!(count(&world), 4);
}

#[test]
fn what_was_told_before_a_clients_call_does_not_hide_its_failure() {
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello(|_| async { Err(Status::internal("failed")) });
        let (server, _arrivals) = greeter.serve_unobserved().await;
        let layer = SentryClientLayer::new().capture_codes([Code::Internal]);
        let mut client = server.observed_client(layer).await;
        let job = async {
            error!("something else");
            client.say_hello(request("Ferris")).await.unwrap_err();
        };
        job.instrument(info_span!("job")).await;
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    let types: Vec<_> = received
        .events
        .iter()
        .map(|event| event.exception.len())
        .collect();
    assert_eq!(types, [0, 1]);
}

#[test]
fn calls_side_by_side_do_not_hide_each_others_failures() {
    let world = World::new();
    world
        .run(calls_of_a_client(&[Code::Unavailable, Code::Internal]).instrument(info_span!("job")));
    assert_eq!(count(&world), 2);
}

#[test]
fn what_was_told_on_a_hub_of_the_applications_own_is_not_told_again() {
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello(|_| async {
            let hub = Arc::new(Hub::new_from_top(Hub::current()));
            async { error!("failed") }.bind_hub(hub).await;
            let hub = Arc::new(Hub::new_from_top(Hub::current()));
            let thread = std::thread::spawn(move || {
                Hub::run(hub, || {
                    sentry::capture_message("failed there", Level::Error);
                });
            });
            thread.join().unwrap();
            Err(Status::internal("failed"))
        });
        call_once(greeter).await;
    });
    assert_eq!(count(&world), 2);
}

#[test]
fn what_is_told_by_a_thread_that_is_still_in_the_call_is_not_told_again() {
    let world = World::new();
    let dispatch = world.dispatch.clone();
    world.run(async {
        let greeter = Scripted::new().say_hello(move |_| {
            let (span, dispatch) = (tracing::Span::current(), dispatch.clone());
            let (told, was_told) = mpsc::channel();
            std::thread::spawn(move || {
                tracing::dispatcher::with_default(&dispatch, || {
                    span.in_scope(|| {
                        error!("failed");
                        let (go, gone) = mpsc::channel::<()>();
                        told.send(go).unwrap();
                        // Until the call has failed.
                        let _ = gone.recv();
                    });
                });
            });
            let go = was_told.recv().unwrap();
            async move {
                let _held = go;
                Err(Status::internal("failed"))
            }
        });
        call_once(greeter).await;
    });
    assert_eq!(count(&world), 1);
}

#[test]
fn an_event_of_before_does_not_hide_a_failure_on_a_hub_of_its_own() {
    let world = World::new();
    let job = async {
        error!("something else");
        let hub = Arc::new(Hub::new_from_top(Hub::current()));
        calls_of_a_client(&[Code::Unavailable]).bind_hub(hub).await;
    };
    world.run(job.instrument(info_span!("job")));
    assert_eq!(count(&world), 2);
}

#[test]
fn a_status_that_a_body_fails_with_is_told_once() {
    let world = World::new();
    world.run(async {
        let service = service_fn(|_: Request<RequestBody<Empty<&'static [u8]>>>| {
            let failure = with_source(Status::internal("torn"), DiskFull);
            let body = ScriptedBody::new([Step::Fail(failure)]);
            ready(Ok::<_, Status>(Response::new(body)))
        });
        let request = post(Empty::new());
        let response = SentryServerLayer::new().layer(service).oneshot(request);
        let body = response.await.unwrap().into_body();
        http_body_util::BodyExt::collect(body).await.unwrap_err();
    });
    let received = world.received();
    assert_eq!(
        exceptions(received.only_event()),
        [
            ("DiskFull".to_owned(), some("no space left")),
            ("INTERNAL".to_owned(), some("torn")),
        ]
    );
}
