//! When spans end, as an OpenTelemetry collector receives them and as Sentry does.

use std::cell::Cell;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio_stream::StreamExt;
use tonic::{Request, Status};

use sentry_tonic::SemanticConventions;

use crate::support::greeter::{ObservedClient, Replies, Running, Scripted, reply, request};
use crate::support::helloworld::HelloReply;
use crate::support::otlp::{in_both_orders, serve, told};

/// How long nothing happens to a call before it ends.
const IDLE: Duration = Duration::from_millis(50);

fn nanos(time: SystemTime) -> u64 {
    let time = time.duration_since(UNIX_EPOCH).unwrap();
    time.as_nanos().try_into().unwrap()
}

thread_local! {
    /// When a call idled no more. All of a test runs on its thread.
    static ANSWERED: Cell<u64> = const { Cell::new(0) };
}

/// Greets once, and then says nothing until it is told how to end, if ever.
fn idle(end: Option<Result<HelloReply, Status>>) -> Scripted {
    let in_stream = end.clone();
    Scripted::new()
        .say_hello(move |_| wait(end.clone()))
        .say_hello_stream(move |name| {
            let rest = tokio_stream::iter([in_stream.clone()]).then(wait);
            let first = tokio_stream::iter([Ok(reply(&name))]);
            async move { Ok(Box::pin(first.chain(rest)) as Replies) }
        })
}

async fn wait(end: Option<Result<HelloReply, Status>>) -> Result<HelloReply, Status> {
    let Some(end) = end else {
        return std::future::pending().await;
    };
    tokio::time::sleep(IDLE).await;
    ANSWERED.set(now());
    end
}

/// Makes a call that idles, and says when it ended at the earliest and, for who called
/// or where the server has said so, at the latest.
type Idling = fn() -> Pin<Box<dyn Future<Output = [u64; 2]>>>;

fn now() -> u64 {
    nanos(SystemTime::now())
}

async fn start(end: Option<Result<HelloReply, Status>>) -> (Running, ObservedClient) {
    serve(idle(end), SemanticConventions::Legacy).await
}

/// The last poll is long before.
#[test]
fn a_span_ends_when_its_call_does() {
    let cases: [(&str, &[i64], Idling); 5] = [
        ("a stream that is dropped", &[1], || {
            Box::pin(async {
                let (server, mut client) = start(None).await;
                let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
                let mut replies = replies.into_inner();
                replies.message().await.unwrap();
                tokio::time::sleep(IDLE).await;
                let end = now();
                drop(replies);
                let ended = [end, now()];
                drop(client);
                server.stop().await;
                ended
            })
        }),
        ("a call that is dropped", &[1], || {
            Box::pin(async {
                let (server, mut client) = start(None).await;
                let mut call = Box::pin(client.say_hello(request("Ferris")));
                tokio::time::timeout(IDLE, &mut call).await.unwrap_err();
                let end = now();
                drop(call);
                let ended = [end, now()];
                drop(client);
                server.stop().await;
                ended
            })
        }),
        // A caller that is the first to notice hangs up.
        ("a deadline", &[4, 1], || {
            Box::pin(async {
                let (server, mut client) = start(None).await;
                let mut request = Request::new(request("Ferris"));
                request.set_timeout(IDLE);
                // The two clocks may differ a little.
                let end = nanos(SystemTime::now() + IDLE - Duration::from_millis(1));
                client.say_hello(request).await.unwrap_err();
                let ended = [end, now()];
                drop(client);
                server.stop().await;
                ended
            })
        }),
        ("a stream that goes on", &[0], || {
            Box::pin(async {
                let (server, mut client) = start(Some(Ok(reply("late")))).await;
                let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
                let mut replies = replies.into_inner();
                replies.message().await.unwrap();
                while replies.message().await.unwrap().is_some() {}
                let ended = [ANSWERED.get(), now()];
                drop((replies, client));
                server.stop().await;
                ended
            })
        }),
        ("a stream that fails", &[14], || {
            Box::pin(async {
                let end = Some(Err(Status::unavailable("late")));
                let (server, mut client) = start(end).await;
                let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
                let mut replies = replies.into_inner();
                replies.message().await.unwrap();
                replies.message().await.unwrap_err();
                let ended = [ANSWERED.get(), now()];
                drop((replies, client));
                server.stop().await;
                ended
            })
        }),
    ];
    for (case, codes, call) in cases {
        in_both_orders(
            async || call().await,
            |world, spans, [end, latest]| {
                assert_eq!(spans.len(), 2, "{case}");
                for span in &spans {
                    let kind = span.kind();
                    let (.., attributes) = told(span);
                    let is = &attributes["rpc.grpc.status_code"];
                    let is_one = |code: &i64| *is == Value::IntValue(*code);
                    assert!(codes.iter().any(is_one), "{case} {kind:?} {is:?}");
                    assert!(span.end_time_unix_nano >= end, "{case} {kind:?}");
                    if kind == SpanKind::Client || [0, 14].contains(&codes[0]) {
                        assert!(span.end_time_unix_nano <= latest, "{case} {kind:?}");
                    }
                }
                for transaction in &world.received().transactions {
                    // It counts in microseconds.
                    let finished = nanos(transaction.timestamp.unwrap());
                    assert!(finished + 1_000 >= end, "{case} {transaction:?}");
                }
            },
        );
    }
}
