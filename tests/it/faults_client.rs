//! A client of Sentry that is flushed, closed, exchanged and dropped while calls run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sentry::{Client, Hub, Level};
use sentry_tonic::{SentryClientLayer, SentryTracingLayer};
use tokio::sync::{Semaphore, mpsc as tasks};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_stream::StreamExt;
use tonic::Status;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use crate::support::every_call::{CALLS, every_call, greeter, without_us};
use crate::support::faulty::{Fault, Faulty, Via};
use crate::support::gated::LONG;
use crate::support::greeter::{ObservedClient, Replies, Scripted, reply, request};
use crate::support::world::World;

const AT_ONCE: usize = 4;
/// Of all calls.
const TIMES: usize = 4;
const MADE: usize = AT_ONCE * TIMES * CALLS;

fn client(via: Via, ingest: &Faulty) -> Arc<Client> {
    Arc::new(Client::from(via.options(&ingest.dsn())))
}

fn world(hub: &Arc<Hub>) -> World {
    let layer = SentryTracingLayer::new().hub(Arc::clone(hub));
    World::subscribed(registry().with(layer))
}

fn hub(client: Option<Arc<Client>>) -> Arc<Hub> {
    Arc::new(Hub::new(client, Arc::default()))
}

/// The calls of clients and of servers that have arrived.
fn arrived(ingest: &Faulty) -> [usize; 2] {
    let items = ingest.accepted();
    ["grpc.client", "grpc.server"].map(|op| {
        let of_op = items
            .iter()
            .filter(|item| item.payload["contexts"]["trace"]["op"] == op);
        of_op.filter(|item| item.kind == "transaction").count()
    })
}

/// What is counted while calls run.
#[derive(Default)]
struct Run {
    /// Calls that have come to their end, for their caller.
    done: AtomicUsize,
    is_over: AtomicBool,
}

/// Makes calls of all kinds, and has `meanwhile` run beside them. Each call comes to what
/// it comes to without us.
fn run(hub: &Arc<Hub>, meanwhile: impl FnOnce(&Run) + Send + 'static) {
    let expected = World::new().run(without_us());
    world(hub).run_threads(2, async move {
        let server = greeter().serve().await;
        let run = Arc::new(Run::default());
        let beside = Arc::clone(&run);
        let beside = spawn_blocking(move || meanwhile(&beside));
        let mut all = JoinSet::new();
        for _ in 0..AT_ONCE {
            let client = server.observed_client(SentryClientLayer::new()).await;
            let (run, expected) = (Arc::clone(&run), expected.clone());
            all.spawn(async move {
                for _ in 0..TIMES {
                    assert_eq!(every_call(client.clone()).await, expected);
                    run.done.fetch_add(CALLS, Ordering::Release);
                }
            });
        }
        let mut are_same = true;
        while let Some(done) = all.join_next().await {
            are_same &= done.is_ok();
        }
        run.is_over.store(true, Ordering::Release);
        beside.await.unwrap();
        assert!(are_same, "a call came to something else");
        server.stop().await;
    });
}

impl Run {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Acquire)
    }

    fn wait_for(&self, done: usize) {
        let deadline = Instant::now() + LONG;
        while self.done() < done {
            assert!(Instant::now() < deadline, "{} of {done}", self.done());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_flush_amid_calls_delivers_all_that_ended_before_it() {
    for via in Via::BOTH {
        let ingest = Arc::new(Faulty::with(Fault::None));
        let client = client(via, &ingest);
        let flushed = (Arc::clone(&ingest), Arc::clone(&client));
        run(&hub(Some(Arc::clone(&client))), move |run| {
            let (ingest, client) = flushed;
            while !run.is_over() {
                let done = run.done();
                assert!(client.flush(Some(LONG)));
                let [of_clients, _] = arrived(&ingest);
                assert!(of_clients >= done, "{of_clients} of {done}");
            }
        });
        assert!(client.flush(Some(LONG)));
        assert_eq!(arrived(&ingest), [MADE; 2], "{via:?}");
    }
}

#[test]
fn a_close_amid_calls_delivers_all_that_ended_before_it_and_they_go_on() {
    for via in Via::BOTH {
        let ingest = Arc::new(Faulty::with(Fault::None));
        let client = client(via, &ingest);
        let closed = (Arc::clone(&ingest), Arc::clone(&client));
        let (tell, told) = mpsc::channel();
        run(&hub(Some(client)), move |run| {
            let (ingest, client) = closed;
            run.wait_for(AT_ONCE * CALLS);
            let done = run.done();
            assert!(client.close(Some(LONG)));
            let at_close = arrived(&ingest);
            assert!(at_close[0] >= done, "{at_close:?} of {done}");
            tell.send(at_close).unwrap();
        });
        // Nothing comes after it.
        assert_eq!(arrived(&ingest), told.recv().unwrap(), "{via:?}");
    }
}

/// Calls that wait inside until they are let go.
fn waiting(gate: &Arc<Semaphore>) -> (Scripted, tasks::UnboundedReceiver<()>) {
    let (tell, told) = tasks::unbounded_channel();
    let wait = {
        let gate = Arc::clone(gate);
        move || {
            let (gate, tell) = (Arc::clone(&gate), tell.clone());
            async move {
                tell.send(()).unwrap();
                gate.acquire().await.unwrap().forget();
            }
        }
    };
    let in_stream = wait.clone();
    let greeter = Scripted::new()
        .say_hello(move |name| {
            let wait = wait();
            async move {
                wait.await;
                match name.as_str() {
                    "internal" => Err(Status::internal("it broke")),
                    "panic" => std::panic::resume_unwind(Box::new("it panicked")),
                    _ => Ok(reply(&name)),
                }
            }
        })
        .say_hello_stream(move |name| {
            let in_stream = in_stream.clone();
            let replies = tokio_stream::iter(0..2).then(move |number| {
                let (wait, name) = ((number == 1).then(&in_stream), name.clone());
                async move {
                    if let Some(wait) = wait {
                        wait.await;
                    }
                    Ok(reply(&name))
                }
            });
            async move { Ok(Box::pin(replies) as Replies) }
        });
    (greeter, told)
}

async fn stream(client: &mut ObservedClient) -> usize {
    let replies = client.say_hello_stream(request("a")).await;
    let replies: Vec<_> = replies.unwrap().into_inner().collect().await;
    replies.iter().flatten().count()
}

#[test]
fn calls_that_are_running_at_a_close_end_as_they_would() {
    for (via, fault) in [
        (Via::Trace, Fault::None),
        (Via::Plain, Fault::None),
        (Via::Trace, Fault::Hangs),
        (Via::Trace, Fault::Down),
        (Via::Plain, Fault::Down),
    ] {
        let ingest = Arc::new(Faulty::with(fault));
        let of_sentry = client(via, &ingest);
        let hub = hub(Some(Arc::clone(&of_sentry)));
        let held = Arc::clone(&ingest);
        world(&hub).run_threads(2, async move {
            hub.capture_message("first", Level::Info);
            if fault.holds() {
                held.wait_for_held(1);
            }
            let gate = Arc::new(Semaphore::new(0));
            let (greeter, mut inside) = waiting(&gate);
            let server = greeter.serve().await;
            let client = server.observed_client(SentryClientLayer::new()).await;
            let mut calls = JoinSet::new();
            for name in ["Ferris", "internal", "panic"].repeat(5) {
                let (mut unary, mut streaming) = (client.clone(), client.clone());
                calls.spawn(async move {
                    let said = unary.say_hello(request(name)).await;
                    let code = said.map_or_else(|status| status.code(), |_| tonic::Code::Ok);
                    let fails = if name == "Ferris" {
                        tonic::Code::Ok
                    } else {
                        tonic::Code::Internal
                    };
                    assert_eq!(code, fails);
                });
                calls.spawn(async move { assert_eq!(stream(&mut streaming).await, 2) });
            }
            for _ in 0..calls.len() {
                inside.recv().await.unwrap();
            }
            let timeout = if fault.holds() {
                Duration::from_millis(20)
            } else {
                LONG
            };
            let closing = spawn_blocking(move || of_sentry.close(Some(timeout)));
            assert_eq!(closing.await.unwrap(), !fault.holds());
            gate.add_permits(1_000);
            while let Some(call) = calls.join_next().await {
                call.unwrap();
            }
            assert_eq!(stream(&mut client.clone()).await, 2);
            drop(client);
            server.stop().await;
            assert_eq!(held.held(), usize::from(fault.holds()));
        });
        assert_eq!(arrived(&ingest), [0, 0], "{via:?} {fault:?}");
    }
}

#[test]
fn a_client_that_is_exchanged_amid_calls_loses_none() {
    for via in Via::BOTH {
        let ingests = [(); 2].map(|()| Arc::new(Faulty::with(Fault::None)));
        let clients = [0, 1].map(|number| client(via, &ingests[number]));
        let hub = hub(Some(Arc::clone(&clients[0])));
        let (exchanged, both) = (Arc::clone(&hub), clients.clone());
        run(&hub, move |run| {
            for number in (0..).take_while(|_| !run.is_over()) {
                exchanged.bind_client(Some(Arc::clone(&both[number % 2])));
                thread::yield_now();
            }
        });
        let [a, b] = [0, 1].map(|number| {
            assert!(clients[number].flush(Some(LONG)));
            arrived(&ingests[number])
        });
        assert_eq!([a[0] + b[0], a[1] + b[1]], [MADE; 2], "{via:?}");
        assert!(a[0] > 0 && b[0] > 0, "{a:?} {b:?}");
    }
}

/// What was still waiting in a client that is dropped unclosed is lost with it.
#[test]
fn clients_that_come_and_go_amid_calls_do_them_no_harm() {
    for via in Via::BOTH {
        let ingest = Arc::new(Faulty::with(Fault::None));
        let hub = hub(None);
        let (bound, to) = (Arc::clone(&hub), Arc::clone(&ingest));
        run(&hub, move |run| {
            for number in (0..).take_while(|_| !run.is_over()) {
                let next = (number % 3 != 0).then(|| client(via, &to));
                bound.bind_client(next);
                thread::yield_now();
            }
            bound.bind_client(Some(client(via, &to)));
        });
        assert!(hub.client().unwrap().close(Some(LONG)));
        let [clients, servers] = arrived(&ingest);
        assert!(clients <= MADE && servers <= MADE);
    }
}

/// A call that has the last of a client, whose ingest hangs, ends. Whether it did while
/// that was hanging.
fn last_of_a_client(via: Via, patience: Duration) -> bool {
    let ingest = Faulty::with(Fault::Hangs);
    let client = client(via, &ingest);
    let hub = hub(Some(client));
    hub.capture_message("first", Level::Info);
    ingest.wait_for_held(1);
    let (tell, told) = mpsc::channel();
    let calls = thread::spawn(move || {
        world(&hub).run_threads(2, async move {
            let gate = Arc::new(Semaphore::new(0));
            let (greeter, mut inside) = waiting(&gate);
            let server = greeter.serve_unobserved().await.0;
            let mut client = server.observed_client(SentryClientLayer::new()).await;
            let call = tokio::spawn(async move { client.say_hello(request("a")).await });
            inside.recv().await.unwrap();
            hub.bind_client(None);
            gate.add_permits(1);
            assert_eq!(call.await.unwrap().unwrap().into_inner(), reply("a"));
            tell.send(()).unwrap();
            server.stop().await;
        });
    });
    let has_ended = told.recv_timeout(patience).is_ok();
    assert_eq!(ingest.held(), 1);
    ingest.mend();
    calls.join().unwrap();
    has_ended
}

/// sentry's own transport waits for its thread as it is dropped: who exchanges a client
/// keeps the old one, and closes it.
#[test]
fn a_call_with_the_last_of_a_client_waits_for_nobody_with_a_trace_transport() {
    assert!(last_of_a_client(Via::Trace, LONG));
    assert!(!last_of_a_client(Via::Plain, Duration::from_millis(200)));
}
