//! Work in a hub that the application forked from that of a call, where no
//! tracing span leads to the call.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Barrier, Mutex, mpsc};

use http::{HeaderMap, Request, Response};
use sentry::{Hub, SentryFutureExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tower::{Layer, ServiceExt, service_fn};
use tracing::instrument::WithSubscriber;
use tracing::{Instrument, Span, debug_span, info_span};

use sentry_tonic::{RequestBody, SentryClientLayer, SentryServerLayer, SentrySpanExt};

use crate::support::received::{Received, messages, trace};
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
    let client = SentryClientLayer::new().layer(service);
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
    let server = SentryServerLayer::new().layer(service);
    server.oneshot(request(headers)).await.unwrap();
}

/// With a layer that is told its hub, or one that takes the current one.
fn worlds() -> Vec<(bool, World)> {
    let mut worlds = Vec::new();
    for by_sampler in [false, true] {
        for is_pinned in [false, true] {
            let world = World::with(
                |options| match by_sampler {
                    true => options.traces_sampler(|_| 0.999_999_9),
                    false => options.traces_sample_rate(1.0),
                },
                |layer| layer,
            );
            let world = if is_pinned { world.pinned() } else { world };
            worlds.push((is_pinned, world));
        }
    }
    worlds
}

fn run<F: Future>(world: &World, future: F) -> (F::Output, Received) {
    let output = world.run(future);
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
            let ((), received) = run(&world, future);
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
fn what_comes_after_the_end_of_a_call_goes_on_from_the_call() {
    for (_, world) in worlds() {
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
        let ((of_fork, of_span), received) = run(&world, future);
        let [call, late] = received.transactions.as_slice() else {
            panic!("{:?}", received.txs())
        };
        let (call, late) = (trace(call), trace(late));
        // A transaction of its own, in the same trace.
        assert_eq!(late.op.as_deref(), Some("grpc.client"));
        assert_eq!(late.trace_id, call.trace_id);
        assert_eq!(late.parent_span_id, Some(call.span_id));
        let header = |span| format!("{}-{span}-1", call.trace_id);
        assert_eq!(of_fork["sentry-trace"], header(late.span_id));
        assert_eq!(of_fork["baggage"], BAGGAGE);
        assert_eq!(received.contexts[0], received.contexts[1]);
        // A span that the registry leads to is not sent any more.
        assert_eq!(of_span.sentry_trace(), header(call.span_id));
        assert_eq!(of_span.baggage(), Some(BAGGAGE));
    }
}

#[test]
fn a_call_that_waits_for_a_task_in_a_fork_is_sent_with_it() {
    for (_, world) in worlds() {
        let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let task: Arc<Mutex<Option<JoinHandle<()>>>> = Arc::default();
        let handler_task = Arc::clone(&task);
        let (task_started, task_go) = (Arc::clone(&started), Arc::clone(&go));
        let future = async {
            let handle = move || {
                let (started, go) = (Arc::clone(&task_started), Arc::clone(&task_go));
                let fork = Hub::new_from_top(Hub::current());
                let work = async move {
                    started.notify_one();
                    go.notified().await;
                    tracing::info!(target: "test", "working");
                    tracing::error!(target: "test", "failed");
                };
                let work = work.instrument(info_span!(target: "test", "work"));
                // Without the call's span around it.
                *handler_task.lock().unwrap() =
                    Some(tokio::spawn(work.bind_hub(fork).with_current_subscriber()));
                let started = Arc::clone(&task_started);
                async move { started.notified().await }
            };
            receive(&[], handle).await;
            let before = world.received().transactions.len();
            go.notify_one();
            let task = task.lock().unwrap().take().unwrap();
            task.await.unwrap();
            before
        };
        let (before, received) = run(&world, future);
        assert_eq!(before, 0);
        let spans = received.only_tx().spans;
        assert_eq!(spans.len(), 1);
        assert_eq!(
            (&*spans[0].name, spans[0].parent.contains("SayHello")),
            ("work", true)
        );
        // With the story of the call.
        let event = received.only_event();
        assert_eq!(
            event.transaction.as_deref(),
            Some("/helloworld.Greeter/SayHello")
        );
        assert_eq!(messages(&event.breadcrumbs.values), ["working"]);
    }
}

#[test]
fn jobs_that_spawn_each_other_do_not_pile_up() {
    for (_, world) in worlds() {
        let job = |fork: Option<Arc<Hub>>| {
            let run = || {
                info_span!(target: "test", "job")
                    .in_scope(|| Arc::new(Hub::new_from_top(Hub::current())))
            };
            match fork {
                Some(fork) => Hub::run(fork, run),
                None => run(),
            }
        };
        let future = async {
            let mut fork = job(None);
            for _ in 0..20 {
                fork = job(Some(fork));
            }
            fork
        };
        let (fork, received) = run(&world, future);
        assert_eq!(received.transactions.len(), 21);
        let ids: Vec<_> = received.transactions.iter().map(trace).collect();
        for (job, next) in ids.iter().zip(ids.iter().skip(1)) {
            assert_eq!(next.parent_span_id, Some(job.span_id));
            assert_eq!(next.trace_id, job.trace_id);
        }
        let text = format!("{:?}", fork.configure_scope(|scope| scope.clone()));
        assert!(text.contains("event_processors: 1"), "{text}");
    }
}

#[test]
fn a_span_with_a_parent_elsewhere_is_not_put_into_the_root_of_the_hub() {
    for (_, world) in worlds() {
        let future = async {
            let elsewhere = debug_span!(target: "test", parent: None, "left out");
            info_span!(target: "test", "outer").in_scope(|| {
                info_span!(target: "test", parent: &elsewhere, "job").in_scope(|| {});
                info_span!(target: "test", parent: None, "alone").in_scope(|| {});
            });
        };
        let ((), received) = run(&world, future);
        let names: Vec<_> = received
            .txs()
            .into_iter()
            .map(|tx| (tx.name, tx.spans))
            .collect();
        let expected = ["job", "alone", "outer"].map(|name| (name.to_owned(), vec![]));
        assert_eq!(names, expected);
    }
}

#[test]
fn spans_in_a_manual_transaction_are_its_own_however_they_overlap() {
    for (_, world) in worlds() {
        let transaction = world
            .hub
            .start_transaction(sentry::TransactionContext::new("manual", "manual"));
        world
            .hub
            .configure_scope(|scope| scope.set_span(Some(transaction.clone().into())));
        let future = async {
            let a = info_span!(target: "test", "a");
            let a_entered = a.clone().entered();
            let fork = Arc::new(Hub::new_from_top(Hub::current()));
            drop(a_entered);
            // As tasks that run beside each other.
            let b = Hub::run(Arc::clone(&world.hub), || info_span!(target: "test", "b"));
            b.in_scope(|| {});
            drop(a);
            b.in_scope(|| info_span!(target: "test", "child of b").in_scope(|| {}));
            drop(b);
            Hub::run(fork, || info_span!(target: "test", "c").in_scope(|| {}));
            info_span!(target: "test", "d").in_scope(|| {});
        };
        let ((), received) = run(&world, future);
        assert_eq!(received.txs(), []);
        transaction.set_status(sentry::protocol::SpanStatus::Ok);
        transaction.finish();
        let received = world.received();
        let spans = received.only_tx().spans;
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["a", "child of b", "b", "c", "d"]);
    }
}

#[test]
fn a_root_that_begins_in_a_fork_has_nothing_of_the_other_one() {
    for (_, world) in worlds() {
        let future = async {
            let fork = info_span!(target: "test", "outer").in_scope(|| {
                tracing::info!(target: "test", "of outer");
                Arc::new(Hub::new_from_top(Hub::current()))
            });
            let job = || {
                let span = info_span!(target: "test", "job");
                span.continue_trace([("sentry-trace", TRACE)]).unwrap();
                span.in_scope(|| {
                    tracing::info!(target: "test", "of job");
                    Arc::new(Hub::new_from_top(Hub::current()))
                })
            };
            let fork = Hub::run(fork, job);
            Hub::run(fork, || {
                sentry::capture_message("late", sentry::Level::Info)
            });
        };
        let (_, received) = run(&world, future);
        let event = received.only_event();
        assert_eq!(event.transaction.as_deref(), Some("job"));
        assert_eq!(messages(&event.breadcrumbs.values), ["of job"]);
    }
}

/// Runs on a thread of its own, with the subscriber.
fn elsewhere<T: Send>(world: &World, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| world.sync(f)).join().unwrap())
}

#[test]
fn a_fork_that_is_bound_is_not_current_on_another_thread() {
    for (_, world) in worlds() {
        let future = async {
            // Takes spans until the end.
            let outer = info_span!(target: "test", "outer");
            let fork = outer.in_scope(|| Arc::new(Hub::new_from_top(Hub::current())));
            fork.configure_scope(|scope| scope.set_tag("of", "fork"));
            Hub::run(Arc::clone(&fork), || {
                let first = info_span!(target: "test", "first");
                let second = info_span!(target: "test", "second");
                let capture = |span: &Span| {
                    span.in_scope(|| {
                        assert!(!Arc::ptr_eq(&Hub::current(), &fork));
                        sentry::configure_scope(|scope| scope.set_tag("mine", "1"));
                        sentry::capture_message("elsewhere", sentry::Level::Info);
                    });
                };
                elsewhere(&world, || capture(&first));
                elsewhere(&world, || capture(&second));
                // Where the fork is current, it stays so.
                first.in_scope(|| assert!(Arc::ptr_eq(&Hub::current(), &fork)));
                sentry::capture_message("here", sentry::Level::Info);
                // What is in the fork is in what hangs on its spans alone.
                let never_entered = info_span!(target: "test", "never entered");
                let below = info_span!(target: "test", parent: &never_entered, "below");
                elsewhere(&world, || {
                    below.in_scope(|| sentry::capture_message("below", sentry::Level::Info));
                    tracing::error!(target: "test", parent: &never_entered, "beside");
                });
            });
        };
        let ((), received) = run(&world, future);
        let tags: Vec<_> = received
            .events
            .iter()
            .map(|event| (event.tags.get("of").map(String::as_str), event.tags.len()))
            .collect();
        let fork = Some("fork");
        assert_eq!(
            tags,
            [(fork, 2), (fork, 2), (fork, 1), (fork, 1), (fork, 1)],
            "{:?}",
            received.events
        );
    }
}

#[test]
fn no_span_in_a_fork_is_lost_whenever_its_root_ends() {
    const THREADS: usize = 3;
    const SPANS: usize = 6;
    let world = World::new();
    for round in 0..150 {
        let (fork, root) = world.sync(|| {
            let root = info_span!(target: "test", "root");
            let fork = root.in_scope(|| Arc::new(Hub::new_from_top(Hub::current())));
            (fork, root)
        });
        let barrier = Barrier::new(THREADS + 1);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                let fork = Arc::new(Hub::new_from_top(&fork));
                let (world, barrier) = (&world, &barrier);
                let work = || {
                    barrier.wait();
                    for _ in 0..SPANS {
                        info_span!(target: "test", "work").in_scope(|| {});
                    }
                };
                scope.spawn(move || world.sync(|| Hub::run(fork, work)));
            }
            barrier.wait();
            for _ in 0..round * 20 {
                std::hint::spin_loop();
            }
            drop(root);
        });
        let txs = world.received().txs();
        let roots = txs.iter().filter(|tx| tx.name == "root").count();
        let alone = txs.iter().filter(|tx| tx.name == "work").count();
        let inside: usize = txs.iter().map(|tx| tx.spans.len()).sum();
        assert_eq!(
            (roots, alone + inside),
            (1, THREADS * SPANS),
            "round {round}"
        );
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
