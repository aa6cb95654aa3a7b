//! Storms of calls that run out of time, are dropped and aborted, and runtimes that end with
//! calls open: each call is told of once, and nothing stays behind.
//!
//! `ABORTS_CALLS=1000000 cargo test --release --test it aborts -- --nocapture` for the long
//! version.

use std::sync::Arc;
use std::time::Duration;

use sentry::protocol::SpanStatus;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, yield_now};
use tokio_stream::StreamExt;
use tonic::{Request, Status};
use tracing::{Instrument, info, info_span, instrument};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::alone::alone;
use crate::support::gated::LONG;
use crate::support::give_up::give_up;
use crate::support::greeter::{ObservedClient, Replies, Scripted, reply, request};
use crate::support::tally::{Spans, Tally, counted};
use crate::support::used::Used;
use crate::support::wait::wait_for;
use crate::support::world::World;

const RATE: f32 = 0.2;
const CALLS: usize = 900;
const ROUNDS: usize = 6;
const AT_ONCE: usize = 50;

/// How a call is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// By its own `grpc-timeout`.
    Deadline,
    /// It is dropped after some polls, perhaps none.
    Drop,
    /// So is the task that makes it.
    Abort,
}

const CUTS: [Cut; 3] = [Cut::Deadline, Cut::Drop, Cut::Abort];

#[instrument]
async fn work(steps: usize) {
    for _ in 0..steps {
        info!("a step");
        yield_now().await;
    }
}

/// Works, beside tasks that it aborts, and answers, or never does.
fn greeter() -> Scripted {
    Scripted::new()
        .say_hello(|name| async move {
            // They end with the handler, if it does not end them.
            let mut beside = JoinSet::new();
            beside.spawn(work(50).instrument(info_span!("beside")));
            beside.spawn(work(50).in_current_span());
            work(name.len()).await;
            beside.abort_all();
            match name.len() % 3 {
                0 => std::future::pending().await,
                _ => Ok(reply(&name)),
            }
        })
        .say_hello_stream(|name| async move {
            let replies = tokio_stream::iter(0..5).map(move |_| Ok(reply(&name)));
            Ok(Box::pin(replies.chain(tokio_stream::pending())) as Replies)
        })
}

/// Makes the call with this number, which says how and when it is cut short.
async fn call(mut client: ObservedClient, cut: Cut, number: usize) -> Result<(), Status> {
    let name = "a".repeat(number % 7 + 1);
    let mut asked = Request::new(request(&name));
    if cut == Cut::Deadline {
        asked.set_timeout(Duration::from_micros(number as u64 * 37 % 3_000));
    }
    match number % 4 {
        0 => {
            let mut replies = client.say_hello_stream(asked).await?.into_inner();
            // That nobody ends it in time is up to the caller.
            for _ in 0..5 {
                replies.message().await?;
            }
            Ok(())
        }
        _ => client.say_hello(asked).await.map(drop),
    }
}

async fn cut_short(client: ObservedClient, cut: Cut, number: usize) {
    let polls = number * 31 % 23;
    let call = call(client, cut, number);
    match cut {
        // What comes of it is up to the race, and to h2, which ends a connection on which
        // too many calls are reset.
        Cut::Deadline => drop(call.await),
        Cut::Drop => drop(give_up(call, polls).await),
        Cut::Abort => {
            let task = tokio::spawn(call);
            for _ in 0..polls {
                yield_now().await;
            }
            task.abort();
            let _ = task.await;
        }
    }
}

fn calls() -> usize {
    let calls = std::env::var("ABORTS_CALLS").ok();
    calls.map_or(CALLS, |calls| calls.parse().unwrap())
}

/// In a process of its own, whose threads, files and memory nobody else uses.
#[test]
fn of_calls_that_are_cut_short_each_is_told_and_nothing_stays() {
    let name = "aborts::of_calls_that_are_cut_short_each_is_told_and_nothing_stays";
    alone(name, || {
        let (world, spans) = counted(RATE);
        let world = Arc::new(world);
        world.run_threads(2, storm(Arc::clone(&world), spans));
    });
}

async fn storm(world: Arc<World>, spans: Arc<Spans>) {
    let server = greeter().serve_with(SentryServerLayer::new()).await;
    let mut tally = Tally::default();
    let mut used = Vec::new();
    for _ in 0..ROUNDS {
        let client = server.observed_client(SentryClientLayer::new()).await;
        let mut tasks = JoinSet::new();
        for number in 0..calls() / ROUNDS {
            if tasks.len() == AT_ONCE {
                tasks.join_next().await.unwrap().unwrap();
                tally.add(&world.received());
            }
            let cut = CUTS[number % CUTS.len()];
            tasks.spawn(cut_short(client.clone(), cut, number / CUTS.len()));
        }
        tasks.join_all().await;
        drop(client);
        spans.all_closed().await;
        let received = world.received();
        assert_eq!(received.events, []);
        tally.add(&received);
        used.push(Used::now());
    }
    server.stop().await;
    tally.assert_all_told(&world, &spans);
    println!("{used:#?}");
    let [_, warm, .., last] = used.as_slice() else {
        panic!("{used:?}")
    };
    last.assert_no_more_than(warm);
}

/// How a runtime ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Drop,
    InTime,
    InTheBackground,
}

/// Whose runtime ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Server,
    Client,
}

impl End {
    fn end(self, runtime: tokio::runtime::Runtime) {
        match self {
            Self::Drop => drop(runtime),
            Self::InTime => runtime.shutdown_timeout(LONG),
            Self::InTheBackground => runtime.shutdown_background(),
        }
    }
}

#[test]
fn calls_that_are_open_as_a_runtime_ends_are_told() {
    for end in [End::Drop, End::InTime, End::InTheBackground] {
        for first in [First::Server, First::Client] {
            end_amid_calls(end, first);
        }
    }
}

fn end_amid_calls(end: End, first: First) {
    const EACH: usize = 10;
    let (world, spans) = counted(1.0);
    let [of_server, of_client] = [(); 2].map(|()| world.runtime(2));
    let (entered, mut hanging) = mpsc::unbounded_channel();
    let in_stream = entered.clone();
    let hangs = Scripted::new()
        .say_hello(move |_| {
            let entered = entered.clone();
            async move {
                let mut beside = JoinSet::new();
                beside.spawn(std::future::pending::<()>().instrument(info_span!("beside")));
                entered.send(()).unwrap();
                std::future::pending().await
            }
        })
        .say_hello_stream(move |_| {
            in_stream.send(()).unwrap();
            async { Ok(Box::pin(tokio_stream::pending()) as Replies) }
        });
    let server = of_server.block_on(hangs.serve());
    let client = of_client.block_on(server.observed_client(SentryClientLayer::new()));
    for _ in 0..EACH {
        let [mut unary, mut stream] = [(); 2].map(|()| client.clone());
        of_client.spawn(async move { unary.say_hello(request("a")).await });
        of_client.spawn(async move {
            let replies = stream.say_hello_stream(request("a")).await?;
            replies.into_inner().message().await
        });
    }
    for _ in 0..2 * EACH {
        hanging.blocking_recv().unwrap();
    }
    let (first_to_end, other) = match first {
        First::Server => (of_server, of_client),
        First::Client => (of_client, of_server),
    };
    end.end(first_to_end);
    drop(client);
    // Those of the other side end by themselves.
    wait_for(|| match spans.are_open() {
        true => Err((end, first, Arc::clone(&spans))),
        false => Ok(()),
    });
    end.end(other);
    drop(server);
    let received = world.received();
    assert_eq!(received.events, [], "{end:?} {first:?}");
    let of_side = |op: &str| {
        let txs = received.txs().into_iter().filter(|tx| tx.op == op);
        txs.map(|tx| tx.status).collect::<Vec<_>>()
    };
    assert_eq!(of_side("grpc.server"), [SpanStatus::Cancelled; 2 * EACH]);
    // A caller is told, or loses its connection, whatever comes first.
    let of_callers = of_side("grpc.client");
    let is_cut = |status: &_| matches!(status, SpanStatus::Cancelled | SpanStatus::Unavailable);
    assert!(of_callers.iter().all(is_cut), "{of_callers:?}");
    assert_eq!(of_callers.len(), 2 * EACH, "{end:?} {first:?}");
}
