//! Several dispatchers: a call is told to the one that it began under, whoever is there later.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio_stream::StreamExt;
use tonic::Status;
use tonic::transport::Server;
use tracing::dispatcher::{self, DefaultGuard, with_default};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, error, info_span};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{ObservedClient, Replies, Scripted, listen, reply, request};
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::tally::{Spans, counted_pinned};
use crate::support::world::World;

/// Polls a future under one dispatcher after the other, and drops it under the last.
struct Rotating<F: Future> {
    future: Option<Pin<Box<F>>>,
    dispatchers: Vec<Dispatch>,
    next: usize,
}

impl<F: Future> Future for Rotating<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let dispatch = self.dispatchers[self.next % self.dispatchers.len()].clone();
        self.next += 1;
        let future = self.future.as_mut().unwrap();
        with_default(&dispatch, || future.as_mut().poll(cx))
    }
}

impl<F: Future> Drop for Rotating<F> {
    fn drop(&mut self) {
        let future = self.future.take();
        with_default(self.dispatchers.last().unwrap(), || drop(future));
    }
}

fn greeter() -> Scripted {
    Scripted::new()
        .say_hello(|name| async move {
            // One that lived longer would be let go of by whatever dispatcher is there then.
            info_span!(target: "test", "nested").in_scope(|| ());
            tokio::task::yield_now().await;
            match name.as_str() {
                "hangs" => std::future::pending().await,
                "fails" => {
                    error!(target: "test", "went wrong");
                    Err(Status::not_found("nobody"))
                }
                _ => Ok(reply(&name)),
            }
        })
        .say_hello_stream(|name| async move {
            let replies = tokio_stream::iter(0..3).then(move |_| {
                let reply = reply(&name);
                async {
                    tokio::task::yield_now().await;
                    Ok(reply)
                }
            });
            Ok(Box::pin(replies) as Replies)
        })
}

/// As with one dispatcher, or none.
async fn make_calls(mut client: ObservedClient) {
    let replied = client.say_hello(request("a")).await.unwrap();
    assert_eq!(replied.into_inner(), reply("a"));
    let status = client.say_hello(request("fails")).await.unwrap_err();
    assert_eq!(status.message(), "nobody");
    let replies = client.say_hello_stream(request("a")).await.unwrap();
    let replies: Vec<_> = replies.into_inner().collect().await;
    assert_eq!(replies.len(), 3);
    let left = client.say_hello(request("hangs"));
    tokio::select! {
        _ = left => unreachable!("it hangs"),
        () = tokio::task::yield_now() => {}
    }
}

/// Each call that began there was told there, once; how many there were.
#[track_caller]
fn assert_told((world, spans): &(World, Arc<Spans>)) -> usize {
    assert!(!spans.are_open(), "{spans:?}");
    let mut told = world.received().statuses();
    // In a call that nobody is told of, it is a transaction of its own.
    told.retain(|(name, _)| name != "nested");
    assert_eq!(told.len(), spans.calls(), "{told:?}");
    spans.calls()
}

#[test]
fn calls_that_change_dispatchers_amid_are_told_where_they_began() {
    const TIMES: usize = 20;
    let (a, b) = (counted_pinned(1.0), counted_pinned(1.0));
    let none = Dispatch::new(NoSubscriber::new());
    let dispatchers = [a.0.dispatch.clone(), b.0.dispatch.clone(), none];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (listening, incoming, stopped) = listen().await;
        let serve = Server::builder()
            .layer(SentryServerLayer::new())
            .add_service(GreeterServer::new(greeter()))
            .serve_with_incoming_shutdown(incoming, stopped);
        let server = listening.running(tokio::spawn(Rotating {
            future: Some(Box::pin(serve)),
            dispatchers: dispatchers.to_vec(),
            next: 0,
        }));
        let client = server.observed_client(SentryClientLayer::new()).await;
        for time in 0..TIMES {
            Rotating {
                future: Some(Box::pin(make_calls(client.clone()))),
                dispatchers: dispatchers.to_vec(),
                next: time,
            }
            .await;
        }
        drop(client);
        server.stop().await;
        a.1.all_closed().await;
        b.1.all_closed().await;
    });
    let (in_a, in_b) = (assert_told(&a), assert_told(&b));
    assert!(in_a > TIMES / 3 && in_b > TIMES / 3, "{in_a}, {in_b}");
}

#[test]
fn threads_with_dispatchers_of_their_own_tell_each_call_once() {
    thread_local! {
        static SUBSCRIBER: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    let (a, b) = (counted_pinned(1.0), counted_pinned(1.0));
    let dispatchers = [a.0.dispatch.clone(), b.0.dispatch.clone(), Dispatch::none()];
    let started = AtomicUsize::new(0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .on_thread_start(move || {
            let number = started.fetch_add(1, Ordering::Relaxed);
            let dispatch = &dispatchers[number % dispatchers.len()];
            SUBSCRIBER.set(Some(dispatcher::set_default(dispatch)));
        })
        .on_thread_stop(|| drop(SUBSCRIBER.take()))
        .build()
        .unwrap();
    let spans = [Arc::clone(&a.1), Arc::clone(&b.1)];
    let task = runtime.spawn(async move {
        let server = greeter().serve().await;
        let client = server.observed_client(SentryClientLayer::new()).await;
        let calls: Vec<_> = (0..20)
            .map(|_| tokio::spawn(make_calls(client.clone())))
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        drop(client);
        server.stop().await;
        for spans in spans {
            spans.all_closed().await;
        }
    });
    runtime.block_on(task).unwrap();
    drop(runtime);
    assert!(assert_told(&a) + assert_told(&b) > 0);
}

/// Makes a call whose first poll is that of `begin`; what this returns is held until the call
/// has ended.
fn call_begun_by<T>(begin: impl FnOnce(&mut dyn FnMut()) -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let mut client = server.observed_client(SentryClientLayer::new()).await;
        let mut call = Box::pin(async move { client.say_hello(request("a")).await });
        let mut begin = Some(begin);
        let mut is_pending = false;
        let begun = std::future::poll_fn(|cx| {
            let mut poll = || is_pending = call.as_mut().poll(cx).is_pending();
            Poll::Ready(begin.take().map(|begin| begin(&mut poll)))
        });
        let _held = begun.await;
        assert!(is_pending, "it takes a server to answer");
        call.await.unwrap();
        server.stop().await;
    });
}

/// The registry lets go of a span's parent by the dispatcher that is there as it closes.
#[test]
fn a_call_that_ends_under_another_dispatcher_lets_go_of_the_span_around_it() {
    for elsewhere in [None, Some(counted_pinned(1.0))] {
        let here = counted_pinned(1.0);
        let begin = |poll: &mut dyn FnMut()| {
            with_default(&here.0.dispatch, || {
                info_span!(target: "test", "job").in_scope(poll);
            });
            let dispatch = elsewhere.as_ref().map(|(world, _)| world.dispatch.clone());
            dispatcher::set_default(&dispatch.unwrap_or_else(Dispatch::none))
        };
        call_begun_by(begin);
        assert!(!here.1.are_open(), "{:?}", here.1);
        let tx = here.0.received().only_tx();
        assert_eq!((tx.name.as_str(), tx.spans.len()), ("job", 1));
    }
}

#[test]
fn a_subscriber_that_nobody_holds_but_its_spans_is_told_of_their_ends() {
    let (mut world, spans) = counted_pinned(1.0);
    let dispatch = std::mem::replace(&mut world.dispatch, Dispatch::none());
    call_begun_by(|poll| {
        with_default(&dispatch, poll);
        drop(dispatch);
    });
    assert_eq!(assert_told(&(world, spans)), 1);
}
