//! Which failed calls become error events, and what those say.

use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use http::{Request, Response};

use sentry::Hub;
use sentry::protocol::SpanStatus;
use serde_json::json;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, ServiceExt, service_fn};
use tracing::{Instrument, info, info_span, instrument};

use sentry_tonic::{RpcSide, SentryClientLayer, SentryServerLayer};

use crate::support::body::{ScriptedBody, grpc_status};
use crate::support::greeter::{Scripted, replies, reply, request};
use crate::support::received::{event_trace, exceptions, map, messages, rpc_context, trace};
use crate::support::world::World;

type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Debug)]
pub(crate) struct DiskFull;

impl fmt::Display for DiskFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no space left")
    }
}

impl Error for DiskFull {}

#[derive(Debug)]
struct WriteFailed(DiskFull);

impl fmt::Display for WriteFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot write")
    }
}

impl Error for WriteFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

pub(crate) fn with_source(
    mut status: Status,
    source: impl Error + Send + Sync + 'static,
) -> Status {
    status.set_source(Arc::new(source));
    status
}

/// A call that a handler fails with `status`.
pub(crate) async fn fail(layer: SentryServerLayer, status: Status) {
    let greeter = Scripted::new().say_hello(move |_| {
        let status = status.clone();
        async move { Err(status) }
    });
    let server = greeter.serve_with(layer).await;
    let mut client = server.client().await;
    client.say_hello(request("Ferris")).await.unwrap_err();
    drop(client);
    server.stop().await;
}

pub(crate) fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(crate) fn count(world: &World) -> usize {
    world.received().events.len()
}

#[test]
fn a_failed_call_is_one_error_with_its_sources() {
    let world = World::new();
    world.run(async {
        info_span!("boot").in_scope(|| info!("not of the call"));
        let status = with_source(Status::internal("try later"), WriteFailed(DiskFull));
        fail(SentryServerLayer::new(), status).await;
    });
    let received = world.received();
    let event = received.only_event();
    let transaction = &received.transactions[1];
    assert_eq!(
        exceptions(event),
        [
            ("DiskFull".to_owned(), some("no space left")),
            ("WriteFailed".to_owned(), some("cannot write")),
            ("INTERNAL".to_owned(), some("try later")),
        ]
    );
    let mechanisms: Vec<_> = event
        .exception
        .iter()
        .map(|e| e.mechanism.clone())
        .collect();
    let mechanism = mechanisms[2].clone().unwrap();
    assert_eq!(mechanisms[..2], [None, None]);
    assert_eq!(
        (mechanism.ty.as_str(), mechanism.handled),
        ("auto.rpc.tonic", Some(true))
    );
    assert_eq!(event.level, sentry::Level::Error);
    assert_eq!(
        event.fingerprint.as_ref(),
        ["/helloworld.Greeter/SayHello", "INTERNAL", "DiskFull"]
    );
    assert_eq!(
        event.tags.clone().into_iter().collect::<Vec<_>>(),
        map([
            ("rpc.service", "helloworld.Greeter".to_owned()),
            ("rpc.method", "SayHello".to_owned()),
            ("rpc.grpc.status_code", "13".to_owned()),
        ])
        .into_iter()
        .collect::<Vec<_>>()
    );
    assert_eq!(
        rpc_context(event),
        json!({
            "system": "grpc",
            "kind": "server",
            "service": "helloworld.Greeter",
            "method": "SayHello",
            "status": "INTERNAL",
            "status_code": 13,
            "message": "try later",
        })
    );
    assert_eq!(
        event.transaction.as_deref(),
        Some("/helloworld.Greeter/SayHello")
    );
    let (event, transaction) = (event_trace(event), trace(transaction));
    assert_eq!(
        (event.trace_id, event.span_id),
        (transaction.trace_id, transaction.span_id)
    );
}

#[test]
fn a_stream_that_fails_is_an_error_too() {
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello_stream(|name| async move {
            info!("greeting");
            let failure = with_source(Status::data_loss("torn"), DiskFull);
            Ok(replies(vec![Ok(reply(&name)), Err(failure)]))
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        let mut stream = client
            .say_hello_stream(request("Ferris"))
            .await
            .unwrap()
            .into_inner();
        stream.message().await.unwrap();
        stream.message().await.unwrap_err();
        drop((client, stream));
        server.stop().await;
    });
    let received = world.received();
    let event = received.only_event();
    // Trailers have no place for a source.
    assert_eq!(exceptions(event), [("DATA_LOSS".to_owned(), some("torn"))]);
    assert_eq!(
        event.fingerprint.as_ref(),
        ["/helloworld.Greeter/SayHelloStream", "DATA_LOSS"]
    );
    assert_eq!(messages(&event.breadcrumbs), ["greeting"]);
    assert_eq!(
        event_trace(event).span_id,
        trace(received.only_transaction()).span_id
    );
}

#[test]
fn servers_report_what_is_their_own_fault() {
    for number in 1..=16 {
        let code = Code::from_i32(number);
        let world = World::new();
        world.run(fail(SentryServerLayer::new(), Status::new(code, "")));
        let is_fault = matches!(code, Code::Unknown | Code::Internal | Code::DataLoss);
        assert_eq!(count(&world), usize::from(is_fault), "{code:?}");
    }
}

#[test]
fn codes_are_chosen() {
    for (codes, expected) in [
        (vec![], [0, 0, 0]),
        (vec![Code::NotFound], [1, 0, 0]),
        (vec![Code::NotFound, Code::Cancelled], [1, 1, 0]),
        (vec![Code::Ok, Code::Internal], [0, 0, 1]),
    ] {
        for (code, expected) in [Code::NotFound, Code::Cancelled, Code::Internal]
            .into_iter()
            .zip(expected)
        {
            let world = World::new();
            let layer = SentryServerLayer::new().capture_codes(codes.clone());
            world.run(fail(layer, Status::new(code, "")));
            assert_eq!(count(&world), expected, "{codes:?}: {code:?}");
        }
    }
}

#[test]
fn a_closure_chooses_by_the_outcome() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let layer = {
        let seen = Arc::clone(&seen);
        SentryServerLayer::new().capture_if(move |outcome| {
            assert!(outcome.duration().as_nanos() > 0);
            seen.lock().unwrap().push((
                outcome.side(),
                outcome.service().to_owned(),
                outcome.method().to_owned(),
                outcome.code(),
                outcome.message().map(str::to_owned),
                outcome.source().map(ToString::to_string),
            ));
            outcome.code() == Code::NotFound
        })
    };
    world.run(async {
        fail(layer.clone(), Status::not_found("nobody")).await;
        let status = with_source(Status::internal(""), DiskFull);
        fail(layer.clone(), status).await;
        // Success is never asked for.
        let server = Scripted::new().serve_with(layer).await;
        let mut client = server.client().await;
        client.say_hello(request("Ferris")).await.unwrap();
        drop(client);
        server.stop().await;
    });
    let common = |code, message, source| {
        (
            RpcSide::Server,
            "helloworld.Greeter".to_owned(),
            "SayHello".to_owned(),
            code,
            message,
            source,
        )
    };
    assert_eq!(
        *seen.lock().unwrap(),
        [
            common(Code::NotFound, some("nobody"), None),
            common(Code::Internal, None, some("no space left")),
        ]
    );
    let received = world.received();
    assert_eq!(
        exceptions(received.only_event()),
        [("NOT_FOUND".to_owned(), some("nobody"))]
    );
}

#[test]
fn a_closure_that_panics_harms_no_call_and_reports_nothing() {
    let world = World::new();
    let layer = SentryServerLayer::new().capture_if(|_| panic!("a bad policy"));
    world.run(fail(layer, Status::internal("")));
    let received = world.received();
    assert_eq!(received.events.len(), 0);
    assert_eq!(received.transactions.len(), 1);
}

#[test]
fn clients_report_what_they_are_told_to() {
    for (layer, expected) in [
        (SentryClientLayer::new(), 0),
        (SentryClientLayer::new().capture_codes([Code::NotFound]), 1),
        (
            SentryClientLayer::new().capture_if(|outcome| outcome.side() == RpcSide::Client),
            1,
        ),
    ] {
        let world = World::new();
        world.run(async {
            let greeter = Scripted::new().say_hello(|_| async { Err(Status::not_found("gone")) });
            let (server, _arrivals) = greeter.serve_unobserved().await;
            let client = server.observed_client(layer).await;
            call_in_a_span(client).await;
            server.stop().await;
        });
        let received = world.received();
        assert_eq!(received.events.len(), expected);
        if let [event] = received.events.as_slice() {
            let call = &received.only_transaction().spans[0];
            assert_eq!(event_trace(event).span_id, call.span_id);
            assert_eq!(event.transaction.as_deref(), Some("caller"));
            assert_eq!(exceptions(event), [("NOT_FOUND".to_owned(), some("gone"))]);
            assert_eq!(rpc_context(event)["kind"], "client");
        }
    }
}

#[instrument(name = "caller", skip_all)]
async fn call_in_a_span(mut client: crate::support::greeter::ObservedClient) {
    client.say_hello(request("Ferris")).await.unwrap_err();
}

#[cfg(feature = "transport")]
#[test]
fn a_client_tells_why_the_transport_failed() {
    let world = World::new();
    world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let endpoint = server.endpoint();
        server.stop().await;
        let layer = SentryClientLayer::new().capture_codes([Code::Unavailable]);
        let channel = layer.layer(endpoint.connect_lazy());
        let mut client = crate::support::helloworld::greeter_client::GreeterClient::new(channel);
        client.say_hello(request("Ferris")).await.unwrap_err();
    });
    let received = world.received();
    let event = received.only_event();
    let types: Vec<_> = exceptions(event).into_iter().map(|(ty, _)| ty).collect();
    assert_eq!(types.last().unwrap(), "UNAVAILABLE");
    assert!(types.len() > 2, "{types:?}");
    assert_eq!(event.fingerprint[1], "UNAVAILABLE");
    assert_eq!(event.fingerprint[2], types[0]);
}

#[test]
fn failures_are_told_of_unsampled_calls_and_with_tracing_disabled() {
    for world in [
        World::sampled(0.0),
        World::with(|options| options, |layer| layer),
    ] {
        world.run(fail(SentryServerLayer::new(), Status::internal("failed")));
        let received = world.received();
        assert_eq!(received.transactions.len(), 0);
        assert_eq!(
            exceptions(received.only_event()),
            [("INTERNAL".to_owned(), some("failed"))]
        );
    }
}

#[test]
fn without_a_layer_nothing_is_captured() {
    let world = World::subscribed(tracing_subscriber::registry());
    world.run(fail(SentryServerLayer::new(), Status::internal("failed")));
    assert_eq!(count(&world), 0);
}

pub(crate) fn post<B>(body: B) -> Request<B> {
    Request::post("http://localhost/a.B/C")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

/// Makes calls that a service answers with these codes, once it was polled twice.
pub(crate) async fn calls_of_a_client(codes: &[Code]) {
    let layer = SentryClientLayer::new().capture_if(|_| true);
    let calls = codes.iter().map(|&code| {
        let service = service_fn(move |_: Request<Body>| async move {
            tokio::task::yield_now().await;
            let mut response = Response::new(ScriptedBody::<BoxError>::new([]));
            *response.headers_mut() = grpc_status(code as i32);
            Ok::<_, Infallible>(response)
        });
        let request = post(Body::empty());
        layer.layer(service).oneshot(request)
    });
    for response in futures_of(calls).await {
        drop(response.unwrap());
    }
}

/// All at once, on this task.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        match futures.iter().all(|(_, output)| output.is_some()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    futures
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

#[test]
fn success_is_never_captured() {
    let world = World::new();
    world.run(calls_of_a_client(&[Code::Ok]).instrument(info_span!("job")));
    assert_eq!(count(&world), 0);
}

#[test]
fn an_event_of_a_failure_has_its_status() {
    let world = World::new();
    world.run(fail(SentryServerLayer::new(), Status::internal("failed")));
    let received = world.received();
    let context = event_trace(received.only_event());
    assert_eq!(context.status, Some(SpanStatus::InternalError));
}

/// Of a thread whose hub is gone: the call ends where nothing can be told.
#[test]
fn a_call_that_ends_with_its_thread_harms_nothing() {
    thread_local! {
        static LEFT: RefCell<Option<Box<dyn std::any::Any>>> = const { RefCell::new(None) };
    }
    let world = World::new();
    let (dispatch, client) = (world.dispatch.clone(), world.hub.client());
    let thread = std::thread::spawn(move || {
        // Thread locals go in the reverse order of their making: that of the registry
        // is the last, and sentry's hub is gone before the call.
        let plain = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::dispatcher::with_default(&plain, || info_span!("first").in_scope(|| {}));
        LEFT.set(None);
        Hub::current().bind_client(client);
        tracing::dispatcher::with_default(&dispatch, || {
            let layer = SentryClientLayer::new().capture_if(|_| true);
            let service = service_fn(|_: Request<Body>| {
                std::future::pending::<Result<Response<ScriptedBody<BoxError>>, Infallible>>()
            });
            let request = post(Body::empty());
            let mut call = Box::pin(layer.layer(service).oneshot(request));
            let waker = std::task::Waker::noop();
            let polled = call
                .as_mut()
                .poll(&mut std::task::Context::from_waker(waker));
            assert!(polled.is_pending());
            LEFT.set(Some(Box::new(call)));
        });
    });
    thread.join().unwrap();
    // What it could tell, or nothing.
    assert!(count(&world) <= 1);
}
