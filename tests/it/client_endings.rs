//! How a call of a client ends: as its caller sees it.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use http::{Request, Response};
use http_body_util::BodyExt;
use sentry::protocol::SpanStatus;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{Layer, Service, ServiceExt, service_fn};
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::SubscriberExt;

use sentry_tonic::SentryClientLayer;

use crate::clients::{Answer, grpc_request};
use crate::support::body::{ScriptedBody, Step, grpc_status};
use crate::support::greeter::{Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::received::Data;
use crate::support::recorder::Recorder;
use crate::support::world::World;

/// What the application saw of a call, and what Sentry received of it.
fn ending<F: Future<Output = Code>>(make: impl FnOnce() -> F) -> (Code, SpanStatus, Data) {
    let world = World::new();
    let code = world.run(async { make().await });
    let received = world.received();
    assert_eq!(received.events.len(), 0);
    let tx = received.only_tx();
    (code, tx.status, tx.data)
}

async fn say_hello(channel: Channel) -> Code {
    let mut client = GreeterClient::new(SentryClientLayer::new().layer(channel));
    match client.say_hello(request("a")).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[cfg(feature = "transport")]
#[test]
fn a_refused_connection_is_unavailable() {
    let (code, status, data) = ending(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        say_hello(endpoint.connect_lazy()).await
    });
    assert_eq!((code, status), (Code::Unavailable, SpanStatus::Unavailable));
    assert_eq!(data["error.type"], "UNAVAILABLE");
    assert!(data.contains_key("otel.status_description"));
    assert_eq!(data["rpc.request.message_count"], 0);
}

#[cfg(feature = "transport")]
#[test]
fn a_timeout_is_a_deadline_although_tonic_says_cancelled() {
    let (code, status, _) = ending(|| async {
        let pending = Scripted::new().say_hello(|_| std::future::pending());
        let (server, _arrivals) = pending.serve_unobserved().await;
        let endpoint = server.endpoint().timeout(Duration::from_millis(20));
        let code = say_hello(endpoint.connect().await.unwrap()).await;
        server.stop().await;
        code
    });
    assert_eq!(
        (code, status),
        (Code::Cancelled, SpanStatus::DeadlineExceeded)
    );
}

/// What a server does to the one call that it receives.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Reset(Reason),
    /// After the response head.
    ResetLater(Reason),
    GoAway(Reason),
    Hangup,
    HangupLater,
}

impl Fault {
    fn is_later(self) -> bool {
        matches!(self, Self::ResetLater(_) | Self::HangupLater)
    }
}

/// What comes after the response head comes once `seen` tells that it is there.
async fn serve_fault(fault: Fault, seen: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let head = || {
            let head = Response::builder().header("content-type", "application/grpc");
            head.body(()).unwrap()
        };
        match fault {
            Fault::Reset(reason) => respond.send_reset(reason),
            Fault::ResetLater(reason) => {
                let mut stream = respond.send_response(head(), false).unwrap();
                tokio::select! {
                    _ = connection.accept() => unreachable!("there is one call"),
                    () = seen.notified() => stream.send_reset(reason),
                }
            }
            Fault::GoAway(reason) => connection.abrupt_shutdown(reason),
            Fault::Hangup => return,
            Fault::HangupLater => {
                let _stream = respond.send_response(head(), false).unwrap();
                tokio::select! {
                    _ = connection.accept() => unreachable!("there is one call"),
                    () = seen.notified() => return,
                }
            }
        }
        while connection.accept().await.is_some() {}
    });
    address
}

/// Calls a server that does this, and returns what the application saw.
async fn call_fault(fault: Fault) -> Code {
    let seen = Arc::new(Notify::new());
    let address = serve_fault(fault, Arc::clone(&seen)).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    if !fault.is_later() {
        return say_hello(channel).await;
    }
    let mut client = GreeterClient::new(SentryClientLayer::new().layer(channel));
    let replies = client.say_hello_stream(request("a")).await.unwrap();
    seen.notify_one();
    match replies.into_inner().message().await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[cfg(feature = "transport")]
#[test]
fn a_call_that_the_server_breaks_off_ends_as_its_caller_sees_it() {
    for fault in [
        Fault::Reset(Reason::REFUSED_STREAM),
        Fault::Reset(Reason::ENHANCE_YOUR_CALM),
        Fault::Reset(Reason::CANCEL),
        Fault::Reset(Reason::INTERNAL_ERROR),
        Fault::Reset(Reason::INADEQUATE_SECURITY),
        Fault::ResetLater(Reason::REFUSED_STREAM),
        Fault::ResetLater(Reason::CANCEL),
        Fault::ResetLater(Reason::PROTOCOL_ERROR),
    ] {
        let (code, status, data) = ending(|| call_fault(fault));
        assert_ne!(code, Code::Ok, "{fault:?}");
        assert_eq!(data["rpc.grpc.status_code"], i32::from(code), "{fault:?}");
        assert_ne!(status, SpanStatus::Ok, "{fault:?}");
    }
}

#[cfg(feature = "transport")]
#[test]
fn a_connection_that_breaks_is_unavailable_although_tonic_says_unknown() {
    for fault in [
        Fault::Hangup,
        Fault::HangupLater,
        Fault::GoAway(Reason::ENHANCE_YOUR_CALM),
        Fault::GoAway(Reason::NO_ERROR),
    ] {
        let (code, status, data) = ending(|| call_fault(fault));
        assert_eq!(
            (code, status),
            (Code::Unknown, SpanStatus::Unavailable),
            "{fault:?}"
        );
        assert_eq!(data["error.type"], "UNAVAILABLE", "{fault:?}");
    }
}

#[test]
fn a_goaway_of_a_server_that_stops_lets_a_call_end() {
    let (code, status, _) = ending(|| async {
        let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begun, end) = (Arc::clone(&started), Arc::clone(&finish));
        let greeter = Scripted::new().say_hello(move |name| {
            let (begun, end) = (Arc::clone(&begun), Arc::clone(&end));
            async move {
                begun.notify_one();
                end.notified().await;
                Ok(reply(&name))
            }
        });
        let (server, _arrivals) = greeter.serve_unobserved().await;
        let channel = server.endpoint().connect().await.unwrap();
        let call = tokio::spawn(say_hello(channel).with_current_subscriber());
        started.notified().await;
        let stopping = tokio::spawn(server.stop());
        tokio::task::yield_now().await;
        finish.notify_one();
        let code = call.await.unwrap();
        stopping.await.unwrap();
        code
    });
    assert_eq!((code, status), (Code::Ok, SpanStatus::Ok));
}

#[test]
fn a_panic_below_is_internal_and_goes_on() {
    for in_body in [false, true] {
        let world = World::new();
        let call = async {
            let service = service_fn(move |_: Request<Body>| async move {
                assert!(in_body, "the service panics");
                let steps = [Step::Data(b"\0\0\0\0\0"), Step::Panic];
                Answer::Ok(Response::new(ScriptedBody::new(steps)))
            });
            let service = SentryClientLayer::new().layer(service);
            let response = service.oneshot(grpc_request()).await.unwrap();
            response.into_body().collect().await
        };
        let caught = catch_unwind(AssertUnwindSafe(|| world.run(call)));
        assert!(caught.is_err());
        let status = world.received().only_tx().status;
        assert_eq!(status, SpanStatus::InternalError);
    }
}

#[test]
fn a_dropped_call_is_cancelled_until_its_time_has_run_down() {
    for (timeout, status) in [
        ("1H", SpanStatus::Cancelled),
        ("100m", SpanStatus::Cancelled),
        ("1n", SpanStatus::DeadlineExceeded),
    ] {
        let world = World::new();
        world.sync(|| {
            let service = service_fn(|_: Request<Body>| std::future::pending::<Answer>());
            let mut request = grpc_request();
            request
                .headers_mut()
                .insert("grpc-timeout", timeout.parse().unwrap());
            drop(SentryClientLayer::new().layer(service).call(request));
        });
        assert_eq!(world.received().only_tx().status, status, "{timeout}");
    }
}

#[test]
fn for_opentelemetry_every_failure_of_a_client_is_one() {
    // What another layer sees of a call that ends with this code.
    let end = |code: i32| {
        let recorder = Recorder::default();
        let subscriber = tracing_subscriber::registry().with(recorder.clone());
        let answer = service_fn(move |_: Request<Body>| {
            let mut response = Response::new(ScriptedBody::new([]));
            *response.headers_mut() = grpc_status(code);
            ready(Answer::Ok(response))
        });
        tracing::subscriber::with_default(subscriber, || {
            let mut service = SentryClientLayer::new().layer(answer);
            let future = service.call(grpc_request());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(future).unwrap();
        });
        let lines = recorder.take();
        assert_eq!(lines[0], "new grpc.client");
        lines
            .into_iter()
            .filter(|line| line.contains("otel"))
            .collect::<String>()
    };
    assert_eq!(end(0), "");
    assert_eq!(end(5), "record otel.status_code: \"ERROR\"");
}
