//! Calls that a client makes, through `GrpcClientLayer` and without it.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use sentry::protocol::{SpanStatus, Value};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::retry::{Policy, RetryLayer};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, info_span};
use tracing_subscriber::layer::SubscriberExt;

use sentry_tonic::{
    GrpcClientLayer, GrpcServerLayer, SentryGrpcLayer, TracePropagationInterceptor,
};

use crate::support::body::{ScriptedBody, Step, grpc_status};
use crate::support::greeter::{Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::received::{Data, Received, Sp, Tx, map, trace};
use crate::support::recorder::Recorder;
use crate::support::world::World;

const SAY_HELLO: &str = "/helloworld.Greeter/SayHello";

fn client_data(port: u16) -> Data {
    map([
        ("rpc.system", json!("grpc")),
        ("rpc.service", json!("helloworld.Greeter")),
        ("rpc.method", json!("SayHello")),
        ("rpc.grpc.status_code", json!(0)),
        ("rpc.response.status_code", json!("OK")),
        ("rpc.request.message_count", json!(1)),
        ("rpc.response.message_count", json!(1)),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(port)),
        ("sentry.kind", json!("client")),
    ])
}

#[test]
fn a_call_outside_of_any_span_is_a_transaction() {
    let world = World::new();
    let port = world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let mut client = server.observed_client(GrpcClientLayer::new()).await;
        client.say_hello(request("a")).await.unwrap();
        drop(client);
        let port = server.address.port();
        server.stop().await;
        port
    });
    assert_eq!(
        world.received().txs(),
        [Tx {
            name: SAY_HELLO.to_owned(),
            op: "grpc.client".to_owned(),
            status: SpanStatus::Ok,
            origin: Some("auto.rpc.tonic".to_owned()),
            data: client_data(port),
            tags: map([]),
            spans: vec![],
        }]
    );
}

#[test]
fn a_call_in_a_span_is_its_child_and_the_server_is_below_it() {
    let world = World::new();
    let port = world.run(async {
        let server = Scripted::new().serve().await;
        let layer = GrpcClientLayer::new().only_if_parent(true);
        let mut client = server.observed_client(layer).await;
        let job = info_span!(target: "test", "job");
        client
            .say_hello(request("a"))
            .instrument(job)
            .await
            .unwrap();
        drop(client);
        let port = server.address.port();
        server.stop().await;
        port
    });
    let received = world.received();
    let find = |op: &str| {
        let mut found = received.transactions.iter();
        found
            .find(|tx| trace(tx).op.as_deref() == Some(op))
            .unwrap()
    };
    assert_eq!(received.transactions.len(), 2);
    let (job, server) = (find("test::job"), find("grpc.server"));
    let [call] = job.spans.as_slice() else {
        panic!("{:?}", job.spans)
    };
    assert_eq!(call.op.as_deref(), Some("grpc.client"));
    assert_eq!(call.description.as_deref(), Some(SAY_HELLO));
    assert_eq!(call.status, Some(SpanStatus::Ok));
    let data: Data = call.data.clone().into_iter().collect();
    let mut expected = client_data(port);
    // A transaction has a place of its own for it.
    expected.insert("sentry.origin".to_owned(), json!("auto.rpc.tonic"));
    assert_eq!(data, expected);
    assert_eq!(call.parent_span_id, Some(trace(job).span_id));
    assert_eq!(trace(server).trace_id, trace(job).trace_id);
    assert_eq!(trace(server).parent_span_id, Some(call.span_id));
    assert_eq!(received.contexts[0], received.contexts[1]);
}

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
    let mut client = GreeterClient::new(GrpcClientLayer::new().layer(channel));
    match client.say_hello(request("a")).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

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
    let mut client = GreeterClient::new(GrpcClientLayer::new().layer(channel));
    let replies = client.say_hello_stream(request("a")).await.unwrap();
    seen.notify_one();
    match replies.into_inner().message().await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

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
            let service = GrpcClientLayer::new().layer(service);
            let response = service.oneshot(grpc_request()).await.unwrap();
            response.into_body().collect().await
        };
        let caught = catch_unwind(AssertUnwindSafe(|| world.run(call)));
        assert!(caught.is_err());
        let status = world.received().only_tx().status;
        assert_eq!(status, SpanStatus::InternalError);
    }
}

#[derive(Clone)]
struct Twice(u32);

impl<E> Policy<Request<Full<Bytes>>, Response<E>, Infallible> for Twice {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        _: &mut Result<Response<E>, Infallible>,
    ) -> Option<Self::Future> {
        self.0 = self.0.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

type Answer = Result<Response<ScriptedBody<Infallible>>, Infallible>;

fn grpc_request() -> Request<Full<Bytes>> {
    Request::post(format!("http://localhost:50051{SAY_HELLO}"))
        .header("content-type", "application/grpc")
        .body(Full::default())
        .unwrap()
}

/// A service that answers UNAVAILABLE, and tells what it received.
fn unavailable(
    arrived: &Arc<Mutex<Vec<HeaderMap>>>,
) -> impl Service<
    Request<Body>,
    Response = Response<ScriptedBody<Infallible>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ use<> {
    let arrived = Arc::clone(arrived);
    service_fn(move |request: Request<Body>| {
        arrived.lock().unwrap().push(request.headers().clone());
        let mut response = Response::new(ScriptedBody::new([]));
        *response.headers_mut() = grpc_status(14);
        ready(Answer::Ok(response))
    })
}

#[test]
fn each_attempt_below_a_retry_layer_is_a_call() {
    let world = World::new();
    let arrived = Arc::default();
    world.run(async {
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(Twice(1)))
            .layer(GrpcClientLayer::new())
            .service(unavailable(&arrived));
        let job = info_span!(target: "test", "job");
        service
            .oneshot(grpc_request())
            .instrument(job)
            .await
            .unwrap();
    });
    let tx = world.received().only_tx();
    let call = || Sp {
        name: SAY_HELLO.to_owned(),
        op: "grpc.client".to_owned(),
        status: Some(SpanStatus::Unavailable),
        parent: "job".to_owned(),
    };
    assert_eq!(tx.spans, [call(), call()]);
    let arrived = arrived.lock().unwrap();
    let sent: Vec<_> = arrived.iter().map(|h| h["sentry-trace"].clone()).collect();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0], sent[1], "each attempt is a span of its own");
    for headers in arrived.iter() {
        assert_eq!(headers.get_all("sentry-trace").iter().count(), 1);
        assert_eq!(headers.get_all("baggage").iter().count(), 1);
    }
}

#[test]
fn all_attempts_above_a_retry_layer_are_one_call() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        let inner = ServiceBuilder::new()
            .layer(RetryLayer::new(Twice(1)))
            .map_request(|request: Request<Full<Bytes>>| request.map(Body::new))
            .service(unavailable(&arrived));
        let inner = ServiceBuilder::new()
            .map_request(|request: Request<Body>| request.map(|_| Full::<Bytes>::default()))
            .service(inner);
        let service = GrpcClientLayer::new().layer(inner);
        service.oneshot(grpc_request()).await.unwrap();
    });
    assert_eq!(world.received().only_tx().status, SpanStatus::Unavailable);
    let arrived = arrived.lock().unwrap();
    assert_eq!(arrived.len(), 2);
    assert_eq!(arrived[0]["sentry-trace"], arrived[1]["sentry-trace"]);
}

#[test]
fn twice_on_one_call_counts_once() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        let service = ServiceBuilder::new()
            .layer(GrpcClientLayer::new())
            .layer(GrpcClientLayer::new())
            .service(unavailable(&arrived));
        service.oneshot(grpc_request()).await.unwrap();
    });
    assert_eq!(world.received().only_tx().spans, []);
}

#[test]
fn a_proxy_that_passes_a_request_on_is_a_server_and_a_client() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        let client = GrpcClientLayer::new().layer(unavailable(&arrived));
        // As it came, with headers and extensions.
        let proxy = service_fn(move |request: Request<_>| client.clone().oneshot(request));
        let server = GrpcServerLayer::new().layer(proxy);
        // And in the process of who calls it.
        let server = ServiceBuilder::new()
            .map_request(|request: Request<Body>| request)
            .service(server);
        let caller = GrpcClientLayer::new().layer(server);
        let response = caller.oneshot(grpc_request()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "14");
    });
    let received = world.received();
    let mut ops: Vec<_> = received
        .txs()
        .into_iter()
        .map(|tx| {
            (
                tx.op,
                tx.spans.into_iter().map(|sp| sp.op).collect::<Vec<_>>(),
            )
        })
        .collect();
    ops.sort();
    assert_eq!(
        ops,
        [
            ("grpc.client".to_owned(), vec![]),
            ("grpc.server".to_owned(), vec!["grpc.client".to_owned()])
        ]
    );
    let ids: Vec<_> = received.transactions.iter().map(trace).collect();
    assert_eq!(ids[0].trace_id, ids[1].trace_id);
}

/// Headers of a call with these targets, to a server that is known or not.
fn told(targets: Option<&[&str]>, endpoint: Option<&'static str>) -> bool {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        let mut layer = GrpcClientLayer::new();
        if let Some(targets) = targets {
            layer = layer.trace_propagation_targets(targets.iter().copied());
        }
        if let Some(endpoint) = endpoint {
            layer = layer.endpoint(endpoint.parse().unwrap());
        }
        let service = layer.layer(unavailable(&arrived));
        let mut request = grpc_request();
        // As above a `Channel`.
        *request.uri_mut() = SAY_HELLO.parse().unwrap();
        service.oneshot(request).await.unwrap();
    });
    // It is observed all the same.
    assert_eq!(world.received().txs().len(), 1);
    let arrived = arrived.lock().unwrap();
    let is_told = arrived[0].contains_key("sentry-trace");
    assert_eq!(arrived[0].contains_key("baggage"), is_told);
    is_told
}

#[test]
fn propagation_targets_match_host_and_method() {
    let server = Some("http://payments.internal:50051");
    assert!(told(None, None));
    assert!(!told(Some(&[]), server));
    assert!(told(Some(&["payments.internal"]), server));
    assert!(!told(Some(&["payments.internal"]), None));
    assert!(told(Some(&["/helloworld.Greeter/"]), None));
    assert!(!told(Some(&["/other.Service/"]), server));
}

#[test]
fn the_server_that_a_request_names_counts() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        for target in ["localhost:50051", "elsewhere"] {
            let layer = GrpcClientLayer::new()
                .endpoint("http://elsewhere:1".parse().unwrap())
                .trace_propagation_targets([target]);
            let service = layer.layer(unavailable(&arrived));
            service.oneshot(grpc_request()).await.unwrap();
        }
    });
    for tx in world.received().txs() {
        assert_eq!(tx.data["server.address"], "localhost");
        assert_eq!(tx.data["server.port"], 50051);
    }
    let arrived = arrived.lock().unwrap();
    let told: Vec<_> = arrived
        .iter()
        .map(|h| h.contains_key("sentry-trace"))
        .collect();
    assert_eq!(told, [true, false]);
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
            drop(GrpcClientLayer::new().layer(service).call(request));
        });
        assert_eq!(world.received().only_tx().status, status, "{timeout}");
    }
}

#[test]
fn a_call_that_no_subscriber_wants_takes_a_trace_along() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let errors_only = tracing_subscriber::registry()
        .with(SentryGrpcLayer::new().hub(Arc::clone(&world.hub)))
        .with(LevelFilter::ERROR);
    tracing::subscriber::with_default(errors_only, || {
        let mut service = GrpcClientLayer::new().layer(unavailable(&arrived));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(service.call(grpc_request())).unwrap();
    });
    assert_eq!(world.received().txs(), []);
    let header = world.hub.configure_scope(|scope| {
        let (_, header) = scope.iter_trace_propagation_headers().next().unwrap();
        header
    });
    let arrived = arrived.lock().unwrap();
    assert_eq!(arrived[0]["sentry-trace"], header);
    let baggage = arrived[0]["baggage"].to_str().unwrap();
    assert!(baggage.contains("sentry-public_key=public"), "{baggage}");
}

#[test]
fn a_call_that_is_left_out_names_no_errors() {
    let world = World::new();
    world.run(async {
        let inner = service_fn(|_: Request<Body>| {
            sentry::capture_message("inside", sentry::Level::Info);
            ready(Answer::Ok(Response::new(ScriptedBody::new([]))))
        });
        let layer = GrpcClientLayer::new().only_if_parent(true);
        layer.layer(inner).oneshot(grpc_request()).await.unwrap();
    });
    let received = world.received();
    assert_eq!(received.only_event().transaction, None);
    assert_eq!(received.txs(), []);
}

#[test]
fn with_no_targets_a_trace_is_continued_all_the_same() {
    let world = World::new();
    world.run(async {
        let (next, arrivals) = Scripted::new().serve_unobserved().await;
        let layer = GrpcClientLayer::new().trace_propagation_targets([""; 0]);
        let client = Mutex::new(Some(next.observed_client(layer).await));
        let front = Scripted::new().say_hello(move |name| {
            let client = client.lock().unwrap().take();
            async move {
                client.unwrap().say_hello(request(&name)).await?;
                Ok(reply(&name))
            }
        });
        let front = front.serve().await;
        let mut client = front.client().await;
        let mut request = tonic::Request::new(request("a"));
        let header = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
        request
            .metadata_mut()
            .insert("sentry-trace", header.parse().unwrap());
        client.say_hello(request).await.unwrap();
        drop(client);
        front.stop().await;
        next.stop().await;
        assert!(!arrivals.recv().unwrap().contains_key("sentry-trace"));
    });
    let received = world.received();
    let context = trace(received.only_transaction());
    assert_eq!(
        context.trace_id.to_string(),
        "09e04486820349518ac7b5d2adbf6ba5"
    );
    assert_eq!(received.only_tx().spans.len(), 1);
}

#[test]
fn what_is_not_grpc_passes_through() {
    let world = World::new();
    world.run(async {
        let echo = service_fn(|request: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        });
        let service = GrpcClientLayer::new().layer(echo);
        for content_type in ["", "application/json", "application/grpc-web"] {
            let mut request = grpc_request().map(|_| Full::from("body"));
            request.headers_mut().remove("content-type");
            if !content_type.is_empty() {
                let value = content_type.parse().unwrap();
                request.headers_mut().insert("content-type", value);
            }
            let response = service.clone().oneshot(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "body");
        }
    });
    assert_eq!(world.received().txs(), []);
}

#[test]
fn a_request_arrives_as_it_was_sent_but_for_its_trace() {
    let world = World::new();
    world.run(async {
        let inner = service_fn(|request: Request<Body>| async move {
            assert_eq!(request.uri().path(), SAY_HELLO);
            assert_eq!(request.headers()["custom"], "value");
            assert_eq!(request.extensions().get::<u8>(), Some(&7));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, &b"\0\0\0\0\x01a"[..]);
            let trailers = grpc_status(0);
            let steps = [Step::Data(b"\0\0\0\0\0"), Step::Trailers(trailers)];
            Answer::Ok(Response::new(ScriptedBody::new(steps)))
        });
        let service = GrpcClientLayer::new().layer(inner);
        let mut request = grpc_request().map(|_| Full::from(&b"\0\0\0\0\x01a"[..]));
        request
            .headers_mut()
            .insert("custom", "value".parse().unwrap());
        request.extensions_mut().insert(7_u8);
        let response = service.oneshot(request).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&grpc_status(0)));
        assert_eq!(collected.to_bytes(), &b"\0\0\0\0\0"[..]);
    });
    let data = world.received().only_tx().data;
    assert_eq!(data["server.address"], "localhost");
    assert_eq!(data["server.port"], 50051);
    assert_eq!(data["rpc.request.message_count"], 1);
    assert_eq!(data["rpc.response.message_count"], 1);
}

#[test]
fn op_and_name_can_be_set() {
    let world = World::new();
    world.run(async {
        let layer = GrpcClientLayer::new().op("rpc.client").name(|parts| {
            assert!(!parts.headers.contains_key("panic"), "names nothing");
            format!("call {}", parts.uri.path())
        });
        let service = layer.layer(unavailable(&Arc::default()));
        service.clone().oneshot(grpc_request()).await.unwrap();
        let mut request = grpc_request();
        request.headers_mut().insert("panic", "1".parse().unwrap());
        service.oneshot(request).await.unwrap();
    });
    let txs = world.received().txs();
    let names: Vec<_> = txs.iter().map(|tx| (&*tx.op, &*tx.name)).collect();
    let expected = ["call /helloworld.Greeter/SayHello", SAY_HELLO];
    assert_eq!(names, expected.map(|name| ("rpc.client", name)));
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
            let mut service = GrpcClientLayer::new().layer(answer);
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

/// Headers of a call with an interceptor alone.
fn intercepted(world: &World, in_span: bool) -> HeaderMap {
    world.run(async {
        let (server, arrivals) = Scripted::new().serve_unobserved().await;
        let channel = server.endpoint().connect().await.unwrap();
        let interceptor = TracePropagationInterceptor::new();
        let mut client = GreeterClient::with_interceptor(channel, interceptor);
        let mut request = tonic::Request::new(request("a"));
        let metadata = request.metadata_mut();
        metadata.insert("baggage", "vendor=1".parse().unwrap());
        metadata.insert("sentry-trace", "replaced".parse().unwrap());
        let call = client.say_hello(request);
        if in_span {
            call.instrument(info_span!(target: "test", "job"))
                .await
                .unwrap();
        } else {
            call.await.unwrap();
        }
        drop(client);
        server.stop().await;
        arrivals.recv().unwrap()
    })
}

#[test]
fn an_interceptor_hands_on_the_trace_of_the_current_span() {
    for rate in [1.0, 0.0] {
        let world = World::sampled(rate);
        let headers = intercepted(&world, true);
        let header = headers["sentry-trace"].to_str().unwrap();
        assert_eq!(headers.get_all("sentry-trace").iter().count(), 1);
        assert!(header.ends_with(if rate == 1.0 { "-1" } else { "-0" }));
        let baggage = headers["baggage"].to_str().unwrap();
        assert!(
            baggage.starts_with("vendor=1,sentry-trace_id="),
            "{baggage}"
        );
        for transaction in world.received().transactions {
            let context = trace(&transaction);
            assert_eq!(
                header,
                format!("{}-{}-1", context.trace_id, context.span_id)
            );
        }
    }
}

#[test]
fn without_a_client_that_can_send_a_request_stays_as_it_is() {
    let world = World::new();
    world.hub.client().unwrap().close(None);
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let headers = world.run(async {
        let service = GrpcClientLayer::new().layer(unavailable(&arrived));
        service.oneshot(grpc_request()).await.unwrap();
        arrived.lock().unwrap()[0].clone()
    });
    assert!(!headers.contains_key("sentry-trace"), "{headers:?}");
    let headers = intercepted(&world, true);
    assert_eq!(headers["sentry-trace"], "replaced");
    assert_eq!(headers["baggage"], "vendor=1");
}

#[test]
fn a_call_in_a_manual_transaction_is_its_child() {
    for (rate, context) in [
        (0.25, None),
        (0.25, Some(true)),
        (0.25, Some(false)),
        (1.0, None),
    ] {
        let world = World::sampled(rate);
        let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
        let mut transaction_context = sentry::TransactionContext::new("manual", "manual");
        transaction_context.set_sampled(context);
        let transaction = world.hub.start_transaction(transaction_context);
        world
            .hub
            .configure_scope(|scope| scope.set_span(Some(transaction.clone().into())));
        world.run(async {
            let service = GrpcClientLayer::new().layer(unavailable(&arrived));
            service.oneshot(grpc_request()).await.unwrap();
        });
        let id = transaction.get_trace_context().trace_id.to_string();
        let (_, own) = transaction.iter_headers().next().unwrap();
        transaction.finish();
        let arrived = arrived.lock().unwrap();
        let header = arrived[0]["sentry-trace"].to_str().unwrap();
        assert_eq!(header.split('-').next(), Some(&*id));
        assert_eq!(header.split('-').nth(2), own.split('-').nth(2));
        // It agrees with itself, as far as it goes.
        let baggage = arrived[0]["baggage"].to_str().unwrap();
        let member = |key: &str| {
            let mut members = baggage
                .split(',')
                .filter_map(|member| member.split_once('='));
            members.find_map(|(name, value)| (name == format!("sentry-{key}")).then_some(value))
        };
        assert_eq!(member("trace_id"), Some(&*id));
        let sampled = member("sampled").unwrap() == "true";
        assert_eq!(header.ends_with("-1"), sampled);
        let rand: f64 = member("sample_rand").unwrap().parse().unwrap();
        if let Some(rate) = member("sample_rate") {
            assert_eq!(rand < rate.parse().unwrap(), sampled, "{baggage}");
        }
        for tx in world.received().transactions {
            assert_eq!((tx.name.as_deref(), tx.spans.len()), (Some("manual"), 1));
        }
    }
}

#[test]
fn clients_of_all_kinds_take_the_layer() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let world = World::new();
    world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let endpoint = server.endpoint();
        let layer = || GrpcClientLayer::new().endpoint(endpoint.uri().clone());

        let mut client = GreeterClient::new(layer().layer(endpoint.connect_lazy()));
        is_shared(&client);
        client.say_hello(request("lazy")).await.unwrap();

        let balanced = Channel::balance_list([endpoint.clone(), endpoint.clone()].into_iter());
        let mut client = GreeterClient::new(layer().layer(balanced));
        client.say_hello(request("balanced")).await.unwrap();

        let stack = ServiceBuilder::new()
            .layer(layer())
            .timeout(Duration::from_secs(60))
            .map_request(|request: Request<Body>| request)
            .service(endpoint.connect_lazy());
        let mut client = GreeterClient::new(stack);
        client.say_hello(request("above others")).await.unwrap();

        let stack = ServiceBuilder::new()
            .concurrency_limit(2)
            .layer(layer())
            .service(endpoint.connect_lazy());
        let mut client = GreeterClient::new(stack);
        client.say_hello(request("below others")).await.unwrap();

        let intercept = |request: tonic::Request<()>| Ok::<_, Status>(request);
        let inside = InterceptedService::new(endpoint.connect_lazy(), intercept);
        let mut client = GreeterClient::new(layer().layer(inside));
        client
            .say_hello(request("around an interceptor"))
            .await
            .unwrap();

        let observed = layer().layer(endpoint.connect_lazy());
        let mut client = GreeterClient::with_interceptor(observed, intercept);
        client
            .say_hello(request("below an interceptor"))
            .await
            .unwrap();

        let mut client = GreeterClient::with_origin(
            GrpcClientLayer::new().layer(endpoint.connect_lazy()),
            endpoint.uri().clone(),
        );
        client.say_hello(request("with an origin")).await.unwrap();
        drop(client);
        // Connections of the others end with the runtime.
    });
    let received: Received = world.received();
    assert_eq!(received.txs().len(), 7);
    for tx in received.txs() {
        assert_eq!((&*tx.op, tx.status), ("grpc.client", SpanStatus::Ok));
        assert_eq!(tx.data["server.address"], Value::from("127.0.0.1"));
    }
}

#[test]
fn a_client_in_a_spawned_task_does_not_take_the_hub_of_who_spawned_it() {
    let world = World::new();
    world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let client = server.observed_client(GrpcClientLayer::new()).await;
        let job = async {
            sentry::configure_scope(|scope| scope.set_tag("mine", "1"));
            let mut task_client = client.clone();
            let task = async move {
                task_client.say_hello(request("a")).await.unwrap();
            };
            tokio::spawn(task.in_current_span()).await.unwrap();
            sentry::capture_message("from the job", sentry::Level::Info);
        };
        job.instrument(info_span!(target: "test", "job")).await;
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    assert_eq!(received.only_event().tags["mine"], "1");
    assert_eq!(received.only_tx().spans.len(), 1);
}

#[test]
fn layers_and_services_are_what_clients_need() {
    fn is_shared<T: Clone + Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    is_shared::<GrpcClientLayer>();
    is_shared::<sentry_tonic::GrpcClientService<Channel>>();
    is_shared::<TracePropagationInterceptor>();
    is_shared::<sentry_tonic::TraceHeaders>();
    is_shared::<sentry_tonic::TraceTransport>();
    let mut service = GrpcClientLayer::new().layer(7_u8);
    *service.get_mut() += 1;
    assert_eq!((*service.get_ref(), service.into_inner()), (8, 8));
}
