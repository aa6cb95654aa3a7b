//! Wherever a tower layer and a tracing layer can stand.

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::net::Ipv4Addr;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use sentry::TransactionContext;
use sentry::protocol::{SpanStatus, Value};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{LayerExt, Routes, interceptor};
use tonic::transport::{Endpoint, Server};
use tonic::{Status, service::InterceptorLayer};
use tower::util::MapRequestLayer;
use tower::{Layer, Service, ServiceExt, service_fn};
use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, info_span};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, registry, reload};

use sentry_tonic::{RequestBody, SentryServerLayer, SentryTracingLayer};

use crate::support::body::{ScriptedBody, Step, grpc_status, headers};
use crate::support::greeter::{Scripted, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::received::Sp;
use crate::support::world::World;

type BoxError = Box<dyn Error + Send + Sync>;

const SAY_HELLO: &str = "/helloworld.Greeter/SayHello";

/// Serves with the router that `make` builds, makes one call, and returns the
/// names of what Sentry received.
fn names_of_one_call<F, Fut>(make: F) -> Vec<String>
where
    F: FnOnce(TcpListener) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let world = World::new();
    world.run(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(make(listener));
        let call = async {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let mut client = GreeterClient::new(endpoint.connect().await.unwrap());
            client.say_hello(request("a")).await.unwrap();
        };
        local.run_until(call).await;
    });
    let txs = world.received().txs().into_iter();
    txs.map(|tx| tx.name).collect()
}

#[test]
fn on_a_server_above_and_below_other_layers() {
    let names = names_of_one_call(|listener| async {
        Server::builder()
            .timeout(Duration::from_secs(60))
            .layer(InterceptorLayer::new(Ok::<tonic::Request<()>, Status>))
            .layer(SentryServerLayer::new())
            .layer(InterceptorLayer::new(Ok::<tonic::Request<()>, Status>))
            .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(60)))
            .add_service(GreeterServer::new(Scripted::new()))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    assert_eq!(names, [SAY_HELLO]);
}

#[test]
fn on_one_service_which_keeps_its_name() {
    fn name<S: NamedService>(_: &S) -> &'static str {
        S::NAME
    }
    let names = names_of_one_call(|listener| async {
        let service = SentryServerLayer::new().layer(GreeterServer::new(Scripted::new()));
        assert_eq!(name(&service), "helloworld.Greeter");
        let service = SentryServerLayer::new().named_layer(service);
        assert_eq!(name(&service), "helloworld.Greeter");
        Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    assert_eq!(names, [SAY_HELLO]);
}

#[test]
fn with_an_interceptor_around_and_inside() {
    let names = names_of_one_call(|listener| async {
        let pass = Ok::<tonic::Request<()>, Status>;
        let inside = GreeterServer::with_interceptor(Scripted::new(), pass);
        let service =
            interceptor::InterceptedService::new(SentryServerLayer::new().layer(inside), pass);
        Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    assert_eq!(names, [SAY_HELLO]);
}

#[test]
fn on_an_axum_router_with_other_routes() {
    let world = World::new();
    world.run(async {
        let app = Routes::new(GreeterServer::new(Scripted::new()))
            .into_axum_router()
            .route("/health", axum::routing::get(|| async { "well" }))
            .layer(SentryServerLayer::new());
        let request = Request::get("/health")
            .body(axum::body::Body::empty())
            .unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "well");

        let hello = [&b"\0\0\0\0\x03\x0a\x01a"[..]].concat();
        let request = Request::post(SAY_HELLO)
            .header("content-type", "application/grpc")
            .body(axum::body::Body::from(hello))
            .unwrap();
        let response = app.oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    });
    let tx = world.received().only_tx();
    assert_eq!(tx.name, SAY_HELLO);
    assert_eq!(tx.data["rpc.request.message_count"], 1);
}

/// Middleware written for one type of request body.
#[derive(Clone)]
struct Typed<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Typed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(request)
    }
}

#[test]
fn around_middleware_written_for_one_type_of_body() {
    let names = names_of_one_call(|listener| async {
        let boxed = |request: Request<RequestBody<Body>>| request.map(Body::new);
        Server::builder()
            .layer(SentryServerLayer::new())
            .layer(MapRequestLayer::new(boxed))
            .layer(tower::layer::layer_fn(Typed))
            .add_service(GreeterServer::new(Scripted::new()))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    assert_eq!(names, [SAY_HELLO]);
}

#[test]
fn twice_on_one_call_counts_once() {
    let world = World::new();
    world.run(async {
        let layer = SentryServerLayer::new();
        let service = layer.layer(layer.layer(GreeterServer::new(Scripted::new())));
        let request = Request::post(SAY_HELLO)
            .header("content-type", "application/grpc")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = layer.layer(service).oneshot(request).await.unwrap();
        drop(response.into_body().collect().await);
    });
    let tx = world.received().only_tx();
    assert_eq!((tx.name.as_str(), tx.spans), (SAY_HELLO, vec![]));
}

#[test]
fn public_types_are_send_sync_and_unpin() {
    fn is_auto<T: Send + Sync + Unpin>() {}
    is_auto::<SentryServerLayer>();
    is_auto::<sentry_tonic::SentryServerService<()>>();
    is_auto::<sentry_tonic::ResponseBody<ScriptedBody<BoxError>>>();
    is_auto::<sentry_tonic::ResponseFuture<std::future::Ready<()>>>();
    is_auto::<RequestBody<Empty<&'static [u8]>>>();
    is_auto::<SentryTracingLayer>();
}

#[test]
fn a_service_gives_back_what_is_inside() {
    let mut service = SentryServerLayer::new().layer(1);
    assert_eq!(*service.get_ref(), 1);
    *service.get_mut() = 2;
    assert_eq!(service.into_inner(), 2);
}

/// Calls a service in this process, below the layer.
async fn call_with_content_type(layer: &SentryServerLayer, content_type: Option<&str>) {
    let service = service_fn(|_: Request<RequestBody<Empty<&'static [u8]>>>| {
        let body =
            ScriptedBody::<BoxError>::new([Step::Data(b"bytes"), Step::Trailers(grpc_status(5))]);
        let mut response = Response::new(body);
        *response.headers_mut() = headers([("x", "y")]);
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        ready(Ok::<_, Infallible>(response))
    });
    let mut request = Request::post(format!("http://localhost{SAY_HELLO}"));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let request = request.body(Empty::new()).unwrap();
    let response = layer.layer(service).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(*response.headers(), headers([("x", "y")]));
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&grpc_status(5)));
    assert_eq!(body.to_bytes(), "bytes");
}

#[test]
fn what_is_not_grpc_passes_through() {
    for (content_type, observed) in [
        (None, false),
        (Some("application/json"), false),
        (Some("application/grpc-web"), false),
        (Some("application/grpc-web+proto"), false),
        (Some("application/grpc-web-text"), false),
        (Some("application/grpcfoo"), false),
        (Some("application/grpc"), true),
        (Some("application/grpc+proto"), true),
        (Some("application/grpc;charset=utf-8"), true),
    ] {
        let world = World::new();
        world.run(call_with_content_type(
            &SentryServerLayer::new(),
            content_type,
        ));
        let count = world.received().transactions.len();
        assert_eq!(count, usize::from(observed), "{content_type:?}");
    }
}

/// What the span says of the server that was called.
fn address_of(request: http::request::Builder) -> (Option<Value>, Option<Value>) {
    let world = World::new();
    world.run(async {
        let service = service_fn(|_: Request<RequestBody<Empty<&'static [u8]>>>| {
            let mut response = Response::new(ScriptedBody::<BoxError>::new([]));
            *response.headers_mut() = grpc_status(0);
            ready(Ok::<_, Infallible>(response))
        });
        let request = request.header("content-type", "application/grpc");
        let request = request.body(Empty::new()).unwrap();
        let layer = SentryServerLayer::new();
        layer.layer(service).oneshot(request).await.unwrap();
    });
    let mut data = world.received().only_tx().data;
    (data.remove("server.address"), data.remove("server.port"))
}

/// In HTTP/1.1, which grpc-web may use, it is in a header.
#[test]
fn the_host_stands_for_the_authority() {
    let known = |host: &str, port: i64| (Some(json!(host)), Some(json!(port)));
    for (uri, host, expected) in [
        ("/a.B/C", "shop.example:8080", known("shop.example", 8080)),
        (
            "/a.B/C",
            "shop.example",
            (Some(json!("shop.example")), None),
        ),
        ("/a.B/C", "[::1]:50051", known("[::1]", 50051)),
        ("/a.B/C", "not a host", (None, None)),
        ("/a.B/C", "", (None, None)),
        ("http://real:1/a.B/C", "other:2", known("real", 1)),
    ] {
        let request = Request::post(uri).header("host", host);
        assert_eq!(address_of(request), expected, "{uri} {host:?}");
    }
    assert_eq!(address_of(Request::post("/a.B/C")), (None, None));
}

/// Its callers make an authority up, tonic's `tonic` and others `localhost`.
#[cfg(all(unix, feature = "transport"))]
#[test]
fn a_unix_socket_has_no_address() {
    use tokio_stream::wrappers::UnixListenerStream;

    let folder = std::env::temp_dir();
    let path = folder.join(format!("sentry-tonic-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let world = World::new();
    world.run(async {
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = Server::builder()
            .layer(SentryServerLayer::new())
            .add_service(GreeterServer::new(Scripted::new()))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                let _ = stopped.await;
            });
        let call = async {
            let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap();
            let mut client = GreeterClient::new(endpoint.connect().await.unwrap());
            client.say_hello(request("a")).await.unwrap();
            drop((client, stop));
        };
        let (served, ()) = tokio::join!(server, call);
        served.unwrap();
    });
    std::fs::remove_file(&path).unwrap();
    let data = world.received().only_tx().data;
    assert_eq!(data.get("server.address"), None);
    assert_eq!(data.get("server.port"), None);
}

#[test]
fn a_call_inside_a_span_is_its_child_unless_forced() {
    for force in [false, true] {
        let world = World::new();
        world.run(async {
            let layer = SentryServerLayer::new().force_transaction(force);
            let _job = info_span!(target: "test", "job").entered();
            call_with_content_type(&layer, Some("application/grpc")).await;
        });
        let mut txs = world.received().txs();
        txs.sort_by(|a, b| a.op.cmp(&b.op));
        let call = Sp::ok(SAY_HELLO, "job").op("grpc.server");
        let call = call.status(SpanStatus::NotFound);
        match (force, txs.as_slice()) {
            (false, [job]) => assert_eq!(job.spans, [call]),
            (true, [call, job]) => {
                assert_eq!(
                    (call.name.as_str(), call.op.as_str()),
                    (SAY_HELLO, "grpc.server")
                );
                assert_eq!((job.name.as_str(), job.spans.len()), ("job", 0));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_call_inside_a_manual_transaction_is_its_child() {
    let world = World::new();
    world.run(async {
        let context = TransactionContext::new("manual", "op");
        let manual = world.hub.start_transaction(context);
        let span = manual.clone().into();
        world
            .hub
            .configure_scope(|scope| scope.set_span(Some(span)));
        call_with_content_type(&SentryServerLayer::new(), Some("application/grpc")).await;
        manual.set_status(SpanStatus::Ok);
        manual.finish();
    });
    let tx = world.received().only_tx();
    let call = Sp::ok(SAY_HELLO, "manual").op("grpc.server");
    assert_eq!(tx.spans, [call.status(SpanStatus::NotFound)]);
}

#[test]
fn a_response_that_outlives_the_span_around_its_call_has_the_same_hub() {
    let world = World::new();
    world.run(async {
        let replies = tokio_stream::iter([(); 2]);
        let replies = tokio_stream::StreamExt::map(replies, |()| {
            sentry::configure_scope(|scope| scope.set_tag("by", "stream"));
            Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::new()))
        });
        let mut body = Some(http_body_util::StreamBody::new(replies));
        let service = service_fn(move |_: Request<RequestBody<Empty<&'static [u8]>>>| {
            ready(Ok::<_, Infallible>(Response::new(body.take().unwrap())))
        });
        let request = Request::post(SAY_HELLO)
            .header("content-type", "application/grpc")
            .body(Empty::new())
            .unwrap();
        // As tonic does with the span of `Server::trace_fn`.
        let around = info_span!(target: "test", "around");
        let call = SentryServerLayer::new().layer(service).oneshot(request);
        let response = tracing::Instrument::instrument(call, around.clone()).await;
        drop(response.unwrap().into_body().collect().await);
    });
    let received = world.received();
    let transaction = received.only_transaction();
    assert_eq!(transaction.name.as_deref(), Some("around"));
    assert_eq!(transaction.tags["by"], "stream");
}

/// A call with a nested span, reported through a subscriber of any make.
fn reported<S>(make: impl FnOnce(SentryTracingLayer) -> S) -> Vec<(String, usize)>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    let world = World::subscribed(make(SentryTracingLayer::new()));
    world.run(async {
        let service = service_fn(|_: Request<RequestBody<Empty<&'static [u8]>>>| async {
            info_span!(target: "test", "nested").in_scope(|| {});
            let mut response = Response::new(ScriptedBody::<BoxError>::default());
            *response.headers_mut() = grpc_status(5);
            Ok::<_, Infallible>(response)
        });
        let trace = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
        let request = Request::post(SAY_HELLO)
            .header("content-type", "application/grpc")
            .header("sentry-trace", trace)
            .body(Empty::new())
            .unwrap();
        drop(
            SentryServerLayer::new()
                .layer(service)
                .oneshot(request)
                .await,
        );
    });
    let received = world.received();
    let txs = received.txs();
    for (tx, transaction) in txs.iter().zip(&received.transactions) {
        let trace = crate::support::received::trace(transaction);
        assert_eq!(
            trace.trace_id.to_string(),
            "09e04486820349518ac7b5d2adbf6ba5"
        );
        assert_eq!(tx.status, SpanStatus::NotFound);
    }
    txs.into_iter()
        .map(|tx| (tx.name, tx.spans.len()))
        .collect()
}

#[test]
fn under_filters_options_boxes_and_reload() {
    let whole = [(SAY_HELLO.to_owned(), 1)];
    let alone = [(SAY_HELLO.to_owned(), 0)];
    assert_eq!(reported(|layer| registry().with(layer)), whole);
    assert_eq!(reported(|layer| registry().with(Some(layer))), whole);
    assert_eq!(reported(|layer| registry().with(vec![layer])), whole);
    assert_eq!(
        reported(|layer| registry()
            .with(layer.boxed() as Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync>)),
        whole
    );
    assert_eq!(
        reported(|layer| registry().with(layer.with_filter(LevelFilter::INFO))),
        whole
    );
    assert_eq!(
        reported(|layer| registry().with(reload::Layer::new(layer).0)),
        whole
    );
    assert_eq!(
        reported(|layer| registry()
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::sink))
            .with(EnvFilter::new("info"))
            .with(layer)),
        whole
    );
    assert_eq!(
        reported(|layer| tracing_subscriber::fmt()
            .with_writer(std::io::sink)
            .finish()
            .with(layer)),
        whole
    );
    // A filter that takes the nested span from us, and one that takes it from
    // everybody.
    assert_eq!(
        reported(|layer| registry().with(layer.with_filter(filter_fn(|m| m.target() != "test")))),
        alone
    );
    assert_eq!(
        reported(|layer| registry()
            .with(EnvFilter::new("sentry_tonic=info"))
            .with(layer)),
        alone
    );
}

#[test]
fn spans_that_are_switched_off_let_calls_pass() {
    assert_eq!(
        reported(|layer| registry().with(layer.with_filter(LevelFilter::OFF))),
        []
    );
    assert_eq!(
        reported(|layer| registry().with(LevelFilter::WARN).with(layer)),
        []
    );
    assert_eq!(
        reported(|_| registry().with(None::<SentryTracingLayer>)),
        []
    );
    assert_eq!(reported(|_| registry()), []);
}

#[test]
fn two_layers_in_one_registry_report_once() {
    assert_eq!(
        reported(|layer| registry().with(layer).with(SentryTracingLayer::new())),
        [(SAY_HELLO.to_owned(), 1)]
    );
}
