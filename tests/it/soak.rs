//! Many calls and streams of all kinds, over connections that come and go: nothing grows, and
//! nothing is lost without a word.
//!
//! `SOAK_CALLS=1000000 SOAK_STREAMS=100000 cargo test --release --test it soak -- --nocapture`
//! for the long version.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, yield_now};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, Streaming};
use tracing::{info, instrument};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::alone::alone;
use crate::support::give_up::give_up;
use crate::support::greeter::{ObservedClient, Replies, Scripted, reply, request};
use crate::support::helloworld::HelloReply;
use crate::support::tally::{Spans, Tally, counted};
use crate::support::used::Used;
use crate::support::world::World;

const RATE: f32 = 0.1;
const CALLS: usize = 4_000;
const STREAMS: usize = 500;
/// After each of them, all that was opened is closed, and the connection is another one.
const ROUNDS: usize = 10;
const AT_ONCE: usize = 32;
const PANIC: &str = "a handler panics";

#[instrument]
async fn look_up() {
    info!("looked up");
    yield_now().await;
}

fn greeter() -> Scripted {
    Scripted::new()
        .say_hello(|name| async move {
            look_up().await;
            match name.as_str() {
                "invalid" => Err(Status::invalid_argument("no such name")),
                "internal" => Err(Status::internal("it broke")),
                "panic" => std::panic::panic_any(PANIC),
                "hangs" => std::future::pending().await,
                _ => Ok(reply(&name)),
            }
        })
        .say_hello_stream(|name| async move {
            let ends = match name.as_str() {
                "breaks" => vec![Err(Status::unavailable("gone"))],
                _ => Vec::new(),
            };
            let replies = tokio_stream::iter((0..10).map(|_| Ok(reply("x"))).chain(ends));
            Ok(Box::pin(replies) as Replies)
        })
}

async fn call(mut client: ObservedClient, number: usize) {
    let (name, expected) = match number % 10 {
        6 => ("invalid", Code::InvalidArgument),
        7 => ("internal", Code::Internal),
        8 => return drop(give_up(client.say_hello(request("hangs")), 20).await),
        9 if number % 100 == 99 => ("panic", Code::Internal),
        9 if number % 100 == 89 => {
            let mut request = Request::new(request("hangs"));
            request.set_timeout(Duration::from_millis(1));
            let status = client.say_hello(request).await.unwrap_err();
            assert!(matches!(
                status.code(),
                Code::Cancelled | Code::DeadlineExceeded
            ));
            return;
        }
        _ => ("Ferris", Code::Ok),
    };
    let code = client.say_hello(request(name)).await;
    let code = code.map_or_else(|status| status.code(), |_| Code::Ok);
    assert_eq!(code, expected);
}

async fn all(replies: Streaming<HelloReply>) -> Vec<Result<HelloReply, Status>> {
    replies.collect().await
}

async fn stream(mut client: ObservedClient, number: usize) {
    let requests = tokio_stream::iter((0..5).map(|_| request("Ferris")));
    match number % 5 {
        0 => {
            let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
            assert_eq!(all(replies.into_inner()).await.len(), 10);
        }
        1 => {
            let replies = client.say_hello_stream(request("breaks")).await.unwrap();
            let replies = all(replies.into_inner()).await;
            let last = replies.last().unwrap().as_ref();
            assert_eq!(last.unwrap_err().code(), Code::Unavailable);
        }
        2 => {
            let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
            replies.into_inner().next().await.unwrap().unwrap();
        }
        3 => {
            client.collect_hellos(requests).await.unwrap();
        }
        _ => {
            let replies = client.chat(requests).await.unwrap();
            assert_eq!(all(replies.into_inner()).await.len(), 5);
        }
    }
}

/// Does `count` of something, some of them at once.
async fn many<F>(client: &ObservedClient, count: usize, one: fn(ObservedClient, usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for number in 0..count {
        if tasks.len() == AT_ONCE {
            tasks.join_next().await.unwrap().unwrap();
        }
        tasks.spawn(one(client.clone(), number));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn from_environment(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap())
}

/// Prints nothing of the panics of handlers.
fn hush() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref() != Some(&PANIC) {
            print(panic);
        }
    }));
}

/// In a process of its own, whose threads, files and memory nobody else uses.
#[test]
fn nothing_grows_and_nothing_is_lost_without_a_word() {
    alone(
        "soak::nothing_grows_and_nothing_is_lost_without_a_word",
        || {
            hush();
            let (world, spans) = counted(RATE);
            let world = Arc::new(world);
            let work = soak(Arc::clone(&world), spans);
            world.run_threads(2, work);
        },
    );
}

async fn soak(world: Arc<World>, spans: Arc<Spans>) {
    let calls = from_environment("SOAK_CALLS", CALLS) / ROUNDS;
    let streams = from_environment("SOAK_STREAMS", STREAMS) / ROUNDS;
    let server = greeter().serve_with(SentryServerLayer::new()).await;
    let mut tally = Tally::default();
    let mut used = Vec::new();
    for _ in 0..ROUNDS {
        let client = server.observed_client(SentryClientLayer::new()).await;
        // What was sent is let go now and then.
        for part in parts(calls) {
            many(&client, part, call).await;
            tally.add(&world.received());
        }
        many(&client, streams, stream).await;
        drop(client);
        spans.all_closed().await;
        tally.add(&world.received());
        used.push(Used::now());
    }
    server.stop().await;
    tally.assert_all_told(&world, &spans);
    println!("{used:#?}");
    // The first rounds warm up what is kept.
    let [_, _, warm, .., last] = used.as_slice() else {
        panic!("{used:?}")
    };
    last.assert_no_more_than(warm);
}

/// `count` in parts of no more than 10 000.
fn parts(count: usize) -> impl Iterator<Item = usize> {
    const PART: usize = 10_000;
    let rest = count % PART;
    std::iter::repeat_n(PART, count / PART).chain((rest > 0).then_some(rest))
}
