//! Tasks that enter the span of the call that spawned them: what they write to the scope is not
//! the handler's.

use std::sync::{Arc, Barrier};

use sentry::Level;
use tokio::task::{block_in_place, yield_now};
use tracing::{Instrument, info_span, instrument};

use sentry_tonic::SentryServerLayer;
use tower::Layer;

use crate::isolation::{tag, tags};
use crate::support::greeter::{Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::received::{event_trace, trace};
use crate::support::world::World;

#[test]
fn a_task_that_keeps_the_span_of_the_rpc_does_not_hold_it_up() {
    let world = World::new();
    let kept = world.run(async {
        let (send, receive) = std::sync::mpsc::channel();
        let greeter = Scripted::new().say_hello(move |name| {
            send.send(tracing::Span::current()).unwrap();
            async move { Ok(reply(&name)) }
        });
        greeter.say_hello_once("a").await.unwrap();
        receive.recv().unwrap()
    });
    let received = world.received();
    assert_eq!(received.statuses().len(), 1);
    // What comes after the end is still linked, and does no harm.
    world.sync(|| {
        kept.in_scope(|| {
            info_span!(target: "test", "late").in_scope(|| {});
            sentry::capture_message("late", Level::Info);
        });
        drop(kept);
    });
    let late = world.received();
    let trace_id = trace(received.only_transaction()).trace_id;
    assert_eq!(event_trace(late.only_event()).trace_id, trace_id);
    assert_eq!(late.statuses(), []);
}

/// Serves one call on several threads.
fn on_threads<F>(world: &World, handler: impl Fn() -> F + Send + Sync + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let greeter = Scripted::new().say_hello(move |name| {
        let handler = handler();
        async move {
            handler.await;
            Ok(reply(&name))
        }
    });
    world.run_threads(4, async move { greeter.say_hello_once("a").await.unwrap() });
}

#[test]
fn a_task_with_the_span_of_the_rpc_takes_nothing_from_the_handler() {
    let world = World::new();
    on_threads(&world, || async {
        let meet = Arc::new(Barrier::new(2));
        let meet_task = Arc::clone(&meet);
        let (started, is_started) = tokio::sync::oneshot::channel();
        let task = async move {
            block_in_place(|| {
                started.send(()).unwrap();
                meet_task.wait();
            });
        };
        let task = tokio::spawn(task.in_current_span());
        // The task is in the span before the handler is again.
        is_started.await.unwrap();
        sentry::configure_scope(|scope| scope.set_tag("of", "handler"));
        block_in_place(|| meet.wait());
        task.await.unwrap();
        yield_now().await;
        sentry::capture_message("later", Level::Error);
    });
    let received = world.received();
    assert_eq!(tag(&received.only_event().tags, "of"), Some("handler"));
    let transaction = received.only_transaction();
    assert_eq!(tag(&transaction.tags, "of"), Some("handler"));
}

#[test]
fn what_a_task_sets_for_a_while_stays_with_it() {
    let world = World::new();
    on_threads(&world, || async {
        let (a, b) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let (task_a, task_b) = (Arc::clone(&a), Arc::clone(&b));
        let (started, is_started) = tokio::sync::oneshot::channel();
        let task = async move {
            let scoped = || {
                block_in_place(|| {
                    started.send(()).unwrap();
                    task_a.wait();
                    task_b.wait();
                });
            };
            sentry::with_scope(|scope| scope.set_tag("temporary", "secret"), scoped);
        };
        let task = tokio::spawn(task.instrument(info_span!(target: "test", "own")));
        is_started.await.unwrap();
        block_in_place(|| {
            a.wait();
            b.wait();
        });
        task.await.unwrap();
    });
    let received = world.received();
    assert_eq!(received.only_transaction().tags.get("temporary"), None);
}

#[test]
fn a_function_that_spawns_writes_to_the_rpcs_scope_all_the_same() {
    #[instrument(target = "test")]
    async fn spawns() {
        sentry::configure_scope(|scope| scope.set_tag("before", "yes"));
        let task = async { sentry::configure_scope(|scope| scope.set_tag("task", "yes")) };
        tokio::spawn(task.in_current_span()).await.unwrap();
        sentry::configure_scope(|scope| scope.set_tag("after", "yes"));
    }
    for around in [false, true] {
        let world = World::new();
        world.run(async {
            let greeter = Scripted::new().say_hello(|name| async move {
                spawns().await;
                sentry::capture_message("later", Level::Error);
                Ok(reply(&name))
            });
            // In this process, so that there can be a span around the call.
            let service = SentryServerLayer::new().layer(GreeterServer::new(greeter));
            let origin = "http://localhost".parse().unwrap();
            let mut client = GreeterClient::with_origin(service, origin);
            let call = client.say_hello(request("a"));
            if around {
                let around = info_span!(target: "test", "around");
                call.instrument(around).await.unwrap();
            } else {
                call.await.unwrap();
            }
        });
        let received = world.received();
        let event = tags(&received.only_event().tags);
        for tags in [&event, &tags(&received.only_transaction().tags)] {
            let has = |key: &str| tags.contains(&(key.to_owned(), "yes".to_owned()));
            assert_eq!(
                [has("before"), has("after"), has("task")],
                [true, true, false]
            );
        }
    }
}

#[test]
fn tasks_with_the_span_of_the_rpc_see_the_handlers_scope_and_not_each_others() {
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            let first = async {
                sentry::configure_scope(|scope| scope.set_tag("first", "yes"));
                let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
                let manual = span.start_child("manual.op", "manual");
                sentry::configure_scope(|scope| scope.set_span(Some(manual.into())));
            };
            tokio::spawn(first.in_current_span()).await.unwrap();
            sentry::configure_scope(|scope| scope.set_tag("handler", "yes"));
            let second = async { sentry::capture_message("second", Level::Info) };
            tokio::spawn(second.in_current_span()).await.unwrap();
            Ok(reply(&name))
        });
        greeter.say_hello_once("a").await.unwrap();
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(tag(&event.tags, "handler"), Some("yes"));
    assert_eq!(tag(&event.tags, "first"), None);
    let transaction = received.only_transaction();
    assert_eq!(event_trace(event).span_id, trace(transaction).span_id);
}
