//! Calls that a client makes, through `SentryClientLayer` and without it.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use sentry::protocol::{SpanStatus, Value};
use serde_json::json;
use tonic::Status;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tracing::{Instrument, info_span};

use sentry_tonic::{SentryClientLayer, TracePropagationInterceptor};

use crate::support::body::{ScriptedBody, Step, grpc_status};
use crate::support::greeter::{Scripted, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::received::{Data, Received, Tx, map, trace};
use crate::support::world::World;

pub(crate) const SAY_HELLO: &str = "/helloworld.Greeter/SayHello";

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
        let mut client = server.observed_client(SentryClientLayer::new()).await;
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
        let layer = SentryClientLayer::new().only_if_parent(true);
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

pub(crate) type Answer = Result<Response<ScriptedBody<Infallible>>, Infallible>;

pub(crate) fn grpc_request() -> Request<Full<Bytes>> {
    Request::post(format!("http://localhost:50051{SAY_HELLO}"))
        .header("content-type", "application/grpc")
        .body(Full::default())
        .unwrap()
}

/// A service that answers UNAVAILABLE, and tells what it received.
pub(crate) fn unavailable(
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
fn what_is_not_grpc_passes_through() {
    let world = World::new();
    world.run(async {
        let echo = service_fn(|request: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        });
        let service = SentryClientLayer::new().layer(echo);
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
        let service = SentryClientLayer::new().layer(inner);
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
        let layer = SentryClientLayer::new()
            .op("rpc.client")
            .span_name(|parts| {
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
            let service = SentryClientLayer::new().layer(unavailable(&arrived));
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
        let layer = || SentryClientLayer::new().endpoint(endpoint.uri().clone());

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
            SentryClientLayer::new().layer(endpoint.connect_lazy()),
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
        let client = server.observed_client(SentryClientLayer::new()).await;
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
    is_shared::<SentryClientLayer>();
    is_shared::<sentry_tonic::SentryClientService<Channel>>();
    is_shared::<TracePropagationInterceptor>();
    is_shared::<sentry_tonic::TraceHeaders>();
    is_shared::<sentry_tonic::TraceTransport>();
    let mut service = SentryClientLayer::new().layer(7_u8);
    *service.get_mut() += 1;
    assert_eq!((*service.get_ref(), service.into_inner()), (8, 8));
}
