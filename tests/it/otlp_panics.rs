//! What an OpenTelemetry collector receives of handlers that panic.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio_stream::StreamExt;
use tonic::Status;

use sentry_tonic::{PanicPolicy, SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::otlp::{events, exception, in_both_orders, only, told};

thread_local! {
    /// When a handler panicked. All of a test runs on its thread.
    static PANICKED: Cell<u64> = const { Cell::new(0) };
}

fn boom() -> Status {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    PANICKED.set(since.as_nanos().try_into().unwrap());
    panic!("boom {}", 7)
}

fn panicking() -> Scripted {
    Scripted::new()
        .say_hello(|_| async {
            tokio::task::yield_now().await;
            Err(boom())
        })
        .say_hello_stream(|name| async move {
            let replies = tokio_stream::iter([true, false]).then(move |greets| {
                let name = name.clone();
                async move {
                    // tonic sends no message before the stream waits.
                    tokio::task::yield_now().await;
                    match greets {
                        true => Ok(reply(&name)),
                        false => Err(boom()),
                    }
                }
            });
            Ok(Box::pin(replies) as Replies)
        })
}

async fn call(panic_policy: PanicPolicy, in_stream: bool) {
    let layer = SentryServerLayer::new().panic_policy(panic_policy);
    let server = panicking().serve_with(layer).await;
    let mut client = server.observed_client(SentryClientLayer::new()).await;
    let request = request("Ferris");
    if in_stream {
        let replies = client.say_hello_stream(request).await.unwrap();
        let mut replies = replies.into_inner();
        // A reset may overtake the message.
        while let Ok(Some(_)) = replies.message().await {}
    } else {
        client.say_hello(request).await.unwrap_err();
    }
    drop(client);
    server.stop().await;
}

#[test]
fn a_call_that_panicked_is_one_span_that_failed_with_the_panic() {
    for (panic_policy, in_stream) in [
        (PanicPolicy::ReturnInternal, false),
        (PanicPolicy::ReturnInternal, true),
        (PanicPolicy::ResumeUnwind, false),
        (PanicPolicy::ResumeUnwind, true),
        (PanicPolicy::Ignore, false),
        (PanicPolicy::Ignore, true),
    ] {
        let case = format!("{panic_policy:?} in_stream={in_stream}");
        let call = async || {
            call(panic_policy, in_stream).await;
            PANICKED.get()
        };
        in_both_orders(call, |_, spans, panicked| {
            assert_eq!(spans.len(), 2, "{case}");
            let server = only(&spans, SpanKind::Server);
            let (_, status, message, attributes) = told(server);
            assert_eq!((status, message.as_str()), (StatusCode::Error, "panicked"));
            let code = &attributes["rpc.response.status_code"];
            assert_eq!(code, &attributes["error.type"]);
            assert_eq!(format!("{code:?}"), r#"StringValue("INTERNAL")"#);
            let expected = match panic_policy {
                // It is for whoever catches it.
                PanicPolicy::Ignore => vec![],
                _ => vec![exception("panic", Some("boom 7"))],
            };
            assert_eq!(events(server), expected, "{case}");
            let client = only(&spans, SpanKind::Client);
            let (_, status, _, attributes) = told(client);
            assert_eq!(status, StatusCode::Error, "{case}");
            let code = format!("{:?}", attributes["rpc.response.status_code"]);
            let (expected, has_cause) = match panic_policy {
                PanicPolicy::ReturnInternal => (r#"StringValue("INTERNAL")"#, false),
                _ => (r#"StringValue("CANCELLED")"#, true),
            };
            assert_eq!(code, expected, "{case}");
            assert_eq!(events(client).len(), usize::from(has_cause), "{case}");
            for span in &spans {
                assert!(span.start_time_unix_nano < panicked, "{case}");
                assert!(span.end_time_unix_nano >= panicked, "{case}");
            }
        });
    }
}
