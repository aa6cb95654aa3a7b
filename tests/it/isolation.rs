//! What belongs to one RPC stays in it and is everywhere in it: across awaits,
//! threads and tasks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use sentry::protocol::{Event, SpanStatus};
use sentry::{Hub, Level};
use tokio::sync::Barrier as AsyncBarrier;
use tokio::task::{block_in_place, yield_now};
use tonic::Status;
use tracing::{Instrument, info, info_span, instrument};

use sentry_tonic::GrpcServerLayer;
use tower::Layer;

use crate::support::greeter::{Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::received::{Sp, event_trace, messages, trace};
use crate::support::world::World;

fn tag<'a>(tags: &'a sentry::protocol::Map<String, String>, key: &str) -> Option<&'a str> {
    tags.get(key).map(String::as_str)
}

#[instrument(target = "test")]
async fn nested(name: &str) {
    sentry::configure_scope(|scope| scope.set_tag(&format!("of-{name}"), name));
    sentry::add_breadcrumb(sentry::Breadcrumb {
        message: Some(format!("by sentry, of {name}")),
        ..Default::default()
    });
    info!(target: "test", "by tracing, of {name}");
    yield_now().await;
}

/// A handler that leaves its name behind, and fails after some awaits.
async fn handler(name: String) -> Result<crate::support::helloworld::HelloReply, Status> {
    nested(&name).await;
    yield_now().await;
    sentry::capture_message(&format!("error of {name}"), Level::Error);
    Err(Status::aborted(name))
}

type Story = (String, Vec<(String, String)>, Vec<String>);

/// All that an event says of the RPC it is from.
fn story(event: &Event<'static>) -> Story {
    let breadcrumbs = messages(&event.breadcrumbs).into_iter();
    (
        event.message.clone().unwrap(),
        tags(&event.tags),
        breadcrumbs.map(str::to_owned).collect(),
    )
}

fn tags(tags: &sentry::protocol::Map<String, String>) -> Vec<(String, String)> {
    tags.clone().into_iter().collect()
}

fn own_tag(name: &str) -> (String, String) {
    (format!("of-{name}"), name.to_owned())
}

fn expected_story(name: &str) -> Story {
    let text = |text: &str| text.to_owned();
    (
        format!("error of {name}"),
        vec![
            own_tag(name),
            (text("rpc.method"), text("SayHello")),
            (text("rpc.service"), text("helloworld.Greeter")),
        ],
        vec![
            format!("by sentry, of {name}"),
            format!("by tracing, of {name}"),
        ],
    )
}

#[test]
fn what_a_nested_function_writes_is_the_rpcs() {
    for rate in [1.0, 0.0] {
        let world = World::sampled(rate);
        world.run(async {
            Scripted::new()
                .say_hello(handler)
                .say_hello_once("a")
                .await
                .unwrap_err();
        });
        let received = world.received();
        let event = received.only_event();
        assert_eq!(story(event), expected_story("a"));
        assert_eq!(
            event.transaction.as_deref(),
            Some("/helloworld.Greeter/SayHello")
        );
        assert!(event.contexts.contains_key("rpc"));
        assert_eq!(received.transactions.len(), usize::from(rate > 0.0));
        for transaction in &received.transactions {
            assert_eq!(tags(&transaction.tags), [own_tag("a")]);
            assert_eq!(trace(transaction).status, Some(SpanStatus::Aborted));
            assert_eq!(trace(transaction).trace_id, event_trace(event).trace_id);
        }
    }
}

/// Calls with many names at once, over one connection.
async fn interleaved(count: usize) {
    let server = Scripted::new().say_hello(handler).serve().await;
    let client = server.client().await;
    let calls: Vec<_> = (0..count)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move {
                client.say_hello(request(&n.to_string())).await.unwrap_err();
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    drop(client);
    server.stop().await;
}

#[test]
fn rpcs_share_nothing() {
    const COUNT: usize = 60;
    for (rate, threads) in [(1.0, None), (1.0, Some(3)), (0.0, None), (0.0, Some(3))] {
        let world = World::sampled(rate);
        match threads {
            None => world.run(interleaved(COUNT)),
            Some(threads) => world.run_threads(threads, interleaved(COUNT)),
        }
        let received = world.received();
        let mut names: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
        names.sort();
        let mut stories: Vec<_> = received.events.iter().map(story).collect();
        stories.sort();
        let expected: Vec<_> = names.iter().map(|name| expected_story(name)).collect();
        assert_eq!(stories, expected);

        let mut traces: Vec<_> = received
            .events
            .iter()
            .map(|event| event_trace(event).trace_id.to_string())
            .collect();
        if rate > 0.0 {
            let mut own: Vec<_> = received
                .transactions
                .iter()
                .map(|t| tags(&t.tags))
                .collect();
            own.sort();
            let expected: Vec<_> = names.iter().map(|name| vec![own_tag(name)]).collect();
            assert_eq!(own, expected);
            for transaction in &received.transactions {
                let of_mine = received.events.iter().filter(|event| {
                    event_trace(event).trace_id == trace(transaction).trace_id
                        && transaction
                            .tags
                            .iter()
                            .all(|(key, value)| event.tags.get(key) == Some(value))
                });
                assert_eq!(of_mine.count(), 1);
            }
        }
        traces.sort();
        traces.dedup();
        assert_eq!(traces.len(), COUNT, "trace ids are shared");
    }
}

#[test]
fn back_to_back_rpcs_share_nothing() {
    let world = World::new();
    world.run(async {
        let server = Scripted::new().say_hello(handler).serve().await;
        let mut client = server.client().await;
        for name in ["a", "b"] {
            client.say_hello(request(name)).await.unwrap_err();
        }
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    let stories: Vec<_> = received.events.iter().map(story).collect();
    assert_eq!(stories, [expected_story("a"), expected_story("b")]);
    let traces: Vec<_> = received
        .events
        .iter()
        .map(|e| event_trace(e).trace_id)
        .collect();
    let of_transactions: Vec<_> = received
        .transactions
        .iter()
        .map(|t| trace(t).trace_id)
        .collect();
    assert_eq!(traces, of_transactions);
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn ambient_tags_come_along_and_ambient_breadcrumbs_do_not() {
    let world = World::new();
    world
        .hub
        .configure_scope(|scope| scope.set_tag("ambient", "yes"));
    world.hub.add_breadcrumb(sentry::Breadcrumb {
        message: Some("ambient".to_owned()),
        ..Default::default()
    });
    world.run(async {
        Scripted::new()
            .say_hello(handler)
            .say_hello_once("a")
            .await
            .unwrap_err();
    });
    let received = world.received();
    let (_, tags, breadcrumbs) = story(received.only_event());
    assert!(tags.contains(&("ambient".to_owned(), "yes".to_owned())));
    assert_eq!(breadcrumbs, expected_story("a").2);
    let transaction = received.only_transaction();
    assert_eq!(tag(&transaction.tags, "ambient"), Some("yes"));
}

#[test]
fn the_application_keeps_its_hub() {
    let world = World::new();
    world.run(async {
        let before = Hub::current();
        let server = Scripted::new().say_hello(handler).serve().await;
        let mut client = server.client().await;
        client.say_hello(request("a")).await.unwrap_err();
        assert!(Arc::ptr_eq(&before, &Hub::current()));
        drop(client);
        server.stop().await;
    });
    world.hub.capture_message("afterwards", Level::Info);
    let received = world.received();
    let event = received.events.last().unwrap();
    assert_eq!(event.message.as_deref(), Some("afterwards"));
    assert_eq!(event.tags.len() + event.breadcrumbs.len(), 0);
    assert_eq!(event.transaction, None);
}

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
            let service = GrpcServerLayer::new().layer(GreeterServer::new(greeter));
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
fn spans_that_begin_undo_nothing_on_the_hub_they_begin_from() {
    const TAGS: usize = 1_000;
    let world = World::new();
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

#[test]
fn a_call_that_brings_a_trace_into_another_call_is_a_transaction_of_its_own() {
    const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
    fn tell(name: &str) {
        sentry::configure_scope(|scope| scope.set_tag(&format!("of-{name}"), name));
        info!(target: "test", "breadcrumb of {name}");
        sentry::capture_message(name, Level::Info);
    }
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            tell("outer");
            let inner = Scripted::new().say_hello(|name| async move {
                tell("inner");
                yield_now().await;
                Ok(reply(&name))
            });
            // In this process and on this task, as a test or a gateway does.
            let service = GrpcServerLayer::new().layer(GreeterServer::new(inner));
            let origin = "http://localhost".parse().unwrap();
            let mut client = GreeterClient::with_origin(service, origin);
            let mut request = tonic::Request::new(request("b"));
            let metadata = request.metadata_mut();
            metadata.insert("sentry-trace", TRACE.parse().unwrap());
            client.say_hello(request).await.unwrap();
            sentry::capture_message("outer", Level::Info);
            Ok(reply(&name))
        });
        greeter.say_hello_once("a").await.unwrap();
    });
    let received = world.received();
    let [inner, outer] = received.transactions.as_slice() else {
        panic!("{:?}", received.txs())
    };
    assert_eq!(trace(inner).trace_id.to_string(), TRACE[..32]);
    assert_ne!(trace(inner).trace_id, trace(outer).trace_id);
    assert_eq!(tags(&inner.tags), [own_tag("inner")]);
    assert_eq!(tags(&outer.tags), [own_tag("outer")]);
    let stories: Vec<_> = received
        .events
        .iter()
        .map(|event| {
            let name = event.message.as_deref().unwrap();
            let transaction = if name == "inner" { inner } else { outer };
            assert_eq!(event_trace(event).span_id, trace(transaction).span_id);
            let own = tags(&event.tags)
                .into_iter()
                .filter(|(key, _)| key.starts_with("of-"));
            assert_eq!(own.collect::<Vec<_>>(), [own_tag(name)]);
            (name, messages(&event.breadcrumbs))
        })
        .collect();
    assert_eq!(
        stories,
        [
            ("outer", vec!["breadcrumb of outer"]),
            ("inner", vec!["breadcrumb of inner"]),
            ("outer", vec!["breadcrumb of outer"]),
        ]
    );
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
        let call = tower::ServiceExt::oneshot(GrpcServerLayer::new().layer(answer), request);
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

    let world = World::new();
    let layer = sentry_tonic::SentryGrpcLayer::new().hub(Arc::clone(&world.hub));
    let subscriber = tracing_subscriber::registry()
        .with(Calling::default())
        .with(layer);
    let before = Hub::current();
    tracing::subscriber::with_default(subscriber, || {
        let calling = Calling::default();
        calling.call();
        assert!(Arc::ptr_eq(&Hub::current(), &before), "left in a call");
    });
}
