//! Tasks and threads that a call spawns, with spans of their own: what they write and capture
//! is the call's.

use std::sync::{Arc, Barrier};

use sentry::Level;
use tokio::sync::Barrier as AsyncBarrier;
use tokio::task::{block_in_place, yield_now};
use tracing::{Instrument, info, info_span, instrument};

use crate::isolation::tag;
use crate::support::greeter::{Scripted, reply};
use crate::support::received::{Sp, event_trace, messages, trace};
use crate::support::world::World;

#[test]
fn joined_futures_have_the_right_parents() {
    #[instrument(target = "test")]
    async fn left() {
        yield_now().await;
        leaf("left leaf").await;
        yield_now().await;
    }
    #[instrument(target = "test")]
    async fn right() {
        yield_now().await;
        yield_now().await;
        leaf("right leaf").await;
    }
    #[instrument(target = "test", fields(sentry.name = name))]
    async fn leaf(name: &str) {
        yield_now().await;
        sentry::capture_message(name, Level::Error);
    }
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            tokio::join!(left(), right());
            Ok(reply(&name))
        });
        greeter.say_hello_once("a").await.unwrap();
    });
    let received = world.received();
    let tx = received.only_tx();
    let top = tx.name.as_str();
    let mut spans = tx.spans.clone();
    spans.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(
        spans,
        [
            Sp::ok("left", top),
            Sp::ok("left leaf", "left").op("test::leaf"),
            Sp::ok("right", top),
            Sp::ok("right leaf", "right").op("test::leaf"),
        ]
    );
    let transaction = received.only_transaction();
    for event in &received.events {
        let span = transaction
            .spans
            .iter()
            .find(|span| span.span_id == event_trace(event).span_id)
            .unwrap();
        assert_eq!(span.description, event.message);
    }
}

#[test]
fn spawned_tasks_have_the_right_parents() {
    #[instrument(target = "test")]
    async fn inside(name: &str) {
        yield_now().await;
        info!(target: "test", "breadcrumb of {name}");
    }
    for threads in [None, Some(3)] {
        let world = World::new();
        let calls = async {
            let greeter = Scripted::new().say_hello(|name| async move {
                let current = tokio::spawn(inside("current").in_current_span());
                let own = info_span!(target: "test", "own");
                let own = tokio::spawn(inside("own").instrument(own));
                inside("handler").await;
                current.await.unwrap();
                own.await.unwrap();
                sentry::capture_message("the end", Level::Error);
                Ok(reply(&name))
            });
            greeter.say_hello_once("a").await.unwrap();
        };
        match threads {
            None => world.run(calls),
            Some(threads) => world.run_threads(threads, calls),
        }
        let received = world.received();
        let tx = received.only_tx();
        let mut spans: Vec<_> = tx
            .spans
            .iter()
            .map(|span| (span.name.as_str(), span.parent.as_str()))
            .collect();
        spans.sort_unstable();
        let top = tx.name.as_str();
        assert_eq!(
            spans,
            [
                ("inside", top),
                ("inside", top),
                ("inside", "own"),
                ("own", top)
            ]
        );
        let mut breadcrumbs = messages(&received.only_event().breadcrumbs);
        breadcrumbs.sort_unstable();
        assert_eq!(
            breadcrumbs,
            [
                "breadcrumb of current",
                "breadcrumb of handler",
                "breadcrumb of own"
            ]
        );
    }
}

#[test]
fn with_scope_in_parallel_tasks_does_not_panic() {
    const TASKS: usize = 4;
    let world = World::new();
    let calls = async {
        let greeter = Scripted::new().say_hello(|name| async move {
            let barrier = Arc::new(Barrier::new(TASKS));
            let tasks: Vec<_> = (0..TASKS)
                .map(|n| {
                    let barrier = Arc::clone(&barrier);
                    tokio::spawn(
                        async move {
                            barrier.wait();
                            for _ in 0..50 {
                                sentry::with_scope(
                                    |scope| scope.set_tag("task", n),
                                    || {
                                        barrier.wait();
                                        let _ =
                                            sentry::capture_message(&n.to_string(), Level::Info);
                                        barrier.wait();
                                    },
                                );
                            }
                        }
                        .in_current_span(),
                    )
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            Ok(reply(&name))
        });
        greeter.say_hello_once("a").await.unwrap();
    };
    world.run_threads(TASKS + 1, calls);
    let received = world.received();
    assert_eq!(received.events.len(), TASKS * 50);
    let trace_id = trace(received.only_transaction()).trace_id;
    for event in &received.events {
        assert_eq!(tag(&event.tags, "task"), event.message.as_deref());
        assert_eq!(event_trace(event).trace_id, trace_id);
    }
}

#[test]
fn a_task_on_another_thread_keeps_what_it_writes() {
    for rate in [1.0, 0.0] {
        task_on_another_thread(rate);
    }
}

#[track_caller]
fn task_on_another_thread(rate: f32) {
    let world = World::sampled(rate);
    let calls = async {
        let greeter = Scripted::new().say_hello(|name| async move {
            sentry::configure_scope(|scope| scope.set_tag("before", "spawn"));
            // Both are inside at once, so that the task needs a hub of its own.
            let meet = Arc::new(Barrier::new(2));
            let meet_task = Arc::clone(&meet);
            let own = info_span!(target: "test", "own");
            let task = tokio::spawn(
                async move {
                    meet_task.wait();
                    sentry::configure_scope(|scope| scope.set_tag("of", "task"));
                    meet_task.wait();
                    for _ in 0..10 {
                        yield_now().await;
                    }
                    sentry::capture_message("of task", Level::Info);
                }
                .instrument(own),
            );
            // Lets the worker's other tasks go on elsewhere.
            block_in_place(|| {
                meet.wait();
                sentry::configure_scope(|scope| scope.set_tag("of", "handler"));
                meet.wait();
            });
            task.await.unwrap();
            sentry::capture_message("of handler", Level::Info);
            Ok(reply(&name))
        });
        greeter.say_hello_once("a").await.unwrap();
    };
    world.run_threads(3, calls);
    let received = world.received();
    let mut tags: Vec<_> = received
        .events
        .iter()
        .map(|event| {
            (
                event.message.as_deref().unwrap(),
                tag(&event.tags, "before").unwrap(),
                tag(&event.tags, "of").unwrap(),
            )
        })
        .collect();
    tags.sort_unstable();
    assert_eq!(
        tags,
        [
            ("of handler", "spawn", "handler"),
            ("of task", "spawn", "task")
        ]
    );
    let sent = received.transactions.iter();
    let sent: Vec<_> = sent.map(|sent| tag(&sent.tags, "of")).collect();
    let expected: &[_] = if rate > 0.0 { &[Some("handler")] } else { &[] };
    assert_eq!(sent, expected);
}

#[test]
fn the_fork_lives_as_long_as_its_span() {
    // What is spawned inside an RPC may go on after it.
    let world = World::new();
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    let receive = std::sync::Mutex::new(Some(receive));
    let done = Arc::new(AsyncBarrier::new(2));
    let calls = {
        let done = Arc::clone(&done);
        async move {
            let task_done = Arc::clone(&done);
            let greeter = Scripted::new().say_hello(move |name| {
                let receive = receive.lock().unwrap().take().unwrap();
                let done = Arc::clone(&task_done);
                tokio::spawn(
                    async move {
                        receive.await.unwrap();
                        info!(target: "test", "after the end");
                        sentry::capture_message("late", Level::Error);
                        done.wait().await;
                    }
                    .in_current_span(),
                );
                async move { Ok(reply(&name)) }
            });
            greeter.say_hello_once("a").await.unwrap();
            send.send(()).unwrap();
            done.wait().await;
        }
    };
    world.run_threads(2, calls);
    let received = world.received();
    let event = received.only_event();
    assert_eq!(messages(&event.breadcrumbs), ["after the end"]);
    let trace_id = trace(received.only_transaction()).trace_id;
    assert_eq!(event_trace(event).trace_id, trace_id);
}

#[test]
fn a_span_that_closes_after_the_rpc_is_part_of_it() {
    let world = World::new();
    let (ended, child_ends) = world.run(async {
        let (send, receive) = std::sync::mpsc::channel();
        let greeter = Scripted::new().say_hello(move |name| {
            let child = info_span!(target: "test", "outlives the call");
            child.in_scope(|| {});
            send.send(child).unwrap();
            async move { Ok(reply(&name)) }
        });
        greeter.say_hello_once("a").await.unwrap();
        assert_eq!(world.received().statuses(), [], "waits for the child");
        let ended = std::time::SystemTime::now();
        while std::time::SystemTime::now() <= ended {}
        let child_ends = std::time::SystemTime::now();
        drop(receive.recv().unwrap());
        (ended, child_ends)
    });
    let received = world.received();
    let transaction = received.only_transaction();
    assert!(transaction.timestamp.unwrap() <= ended);
    let [child] = transaction.spans.as_slice() else {
        panic!("{:?}", transaction.spans)
    };
    assert_eq!(child.description.as_deref(), Some("outlives the call"));
    assert!(child.timestamp.unwrap() >= child_ends);
}

#[test]
fn the_last_span_inside_sends_an_rpc_that_has_ended() {
    let world = World::new();
    world.run(async {
        let (send, receive) = std::sync::mpsc::channel();
        let greeter = Scripted::new().say_hello(move |name| {
            let child = info_span!(target: "test", "child");
            child.in_scope(|| {});
            send.send((child, tracing::Span::current())).unwrap();
            async move { Ok(reply(&name)) }
        });
        greeter.say_hello_once("a").await.unwrap();
        let (child, kept) = receive.recv().unwrap();
        assert_eq!(world.received().statuses(), []);
        drop(child);
        assert_eq!(world.received().only_transaction().spans.len(), 1);
        drop(kept);
    });
    assert_eq!(world.received().statuses(), []);
}
