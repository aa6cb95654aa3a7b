//! Calls that `TraceLayer` of tower-http watches, against the same ones behind the
//! middleware, on a real server.

use std::future::{Future, pending};
use std::pin::Pin;

use sentry::protocol::{EnvelopeItem, SpanStatus};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::transport::Server;
use tonic::{Code, Status};
use tracing::{info, instrument};

use sentry_tonic::{PanicPolicy, SentryServerLayer};

use crate::sources::{self, KEY};
use crate::support::greeter::{Replies, Running, Scripted, listen, replies, reply, request};
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::observed::{keys, metadata};
use crate::support::received::{Received, Tx, exceptions};
use crate::support::world::{RATES, World};

/// Who watches the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watcher {
    Middleware,
    TraceLayer,
}

/// All of our hooks in a `TraceLayer` for gRPC.
macro_rules! trace_layer {
    ($options:expr) => {
        ::tower_http::trace::TraceLayer::new_for_grpc()
            .make_span_with(::sentry_tonic::SentryMakeSpan::new($options))
            .on_response(::sentry_tonic::SentryTraceCallbacks)
            .on_body_chunk(::sentry_tonic::SentryTraceCallbacks)
            .on_eos(::sentry_tonic::SentryTraceCallbacks)
            .on_failure(::sentry_tonic::SentryTraceCallbacks)
    };
}

pub(crate) use trace_layer;

impl Watcher {
    pub(crate) async fn serve(self, greeter: Scripted, options: SentryServerLayer) -> Running {
        match self {
            Self::Middleware => greeter.serve_with(options).await,
            Self::TraceLayer => {
                let (listening, incoming, stopped) = listen().await;
                let server = Server::builder()
                    .layer(trace_layer!(options))
                    .add_service(GreeterServer::new(greeter))
                    .serve_with_incoming_shutdown(incoming, stopped);
                listening.running(tokio::spawn(server))
            }
        }
    }
}

/// What Sentry received, without what differs from run to run, and from what the one
/// watcher sees and the other does not.
#[derive(Debug, PartialEq)]
struct Seen {
    txs: Vec<Tx>,
    events: Vec<Value>,
}

impl Seen {
    fn new(received: &Received) -> Self {
        let is_report = |item: &EnvelopeItem| matches!(item, EnvelopeItem::ClientReport(_));
        assert!(received.others.iter().all(is_report));
        let mut txs = received.txs();
        for tx in &mut txs {
            tx.data.remove("rpc.request.message_count");
            tx.data.remove("network.peer.port");
            tx.data.remove("server.port");
        }
        let events = received.events.iter();
        let events = events.map(|event| {
            let mut event = serde_json::to_value(event).unwrap();
            strip(&mut event);
            event
        });
        Self {
            txs,
            events: events.collect(),
        }
    }
}

/// Takes out what differs from run to run.
fn strip(value: &mut Value) {
    const VARIABLE: [&str; 12] = [
        "duration_ms",
        "event_id",
        "method_type",
        "network.peer.port",
        "parent_span_id",
        "request_message_count",
        "rpc.request.message_count",
        "server.port",
        "span_id",
        "stream_id",
        "timestamp",
        "trace_id",
    ];
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !VARIABLE.contains(&key.as_str()));
            object.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

#[instrument]
async fn look_up(name: &str) {
    info!("looks up");
    tokio::task::yield_now().await;
    sentry::configure_scope(|scope| scope.set_tag("looked_up", name));
}

fn failure(name: &str) -> Status {
    let number = name.parse().unwrap_or(0);
    let mut status = Status::new(Code::from_i32(number), "as it was told");
    if status.code() == Code::Internal {
        status.set_source(std::sync::Arc::new(std::io::Error::other(
            "the disk is full",
        )));
    }
    status
}

/// Looks up each name, and fails with the code that a name is.
fn greeter() -> Scripted {
    async fn greet(name: String) -> Result<crate::support::helloworld::HelloReply, Status> {
        look_up(&name).await;
        match name.parse::<i32>() {
            Ok(_) => Err(failure(&name)),
            Err(_) => Ok(reply(&name)),
        }
    }
    Scripted::new()
        .head(metadata(&[("x-of-head", "told")]))
        .say_hello(greet)
        .say_hello_stream(|name| async move {
            look_up(&name).await;
            let mut items = vec![Ok(reply("1")), Ok(reply("2"))];
            if name.parse::<i32>().is_ok() {
                items.push(Err(failure(&name)));
            }
            Ok(replies(items))
        })
        .chat(|requests| async move {
            Ok(Box::pin(requests.then(|item| async move { greet(item?.name).await })) as Replies)
        })
}

type Calls = fn(Running) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Each ends before the next one begins.
const CALLS: [(&str, Calls); 6] = [
    ("unary", |server| Box::pin(unary(server))),
    ("server streaming", |server| {
        Box::pin(server_streaming(server))
    }),
    ("client streaming", |server| {
        Box::pin(client_streaming(server))
    }),
    ("bidirectional", |server| Box::pin(bidirectional(server))),
    ("unknown method", |server| Box::pin(unknown_method(server))),
    ("errors inside", |server| Box::pin(unary_again(server))),
];

async fn unary(server: Running) {
    let mut client = server.client().await;
    client.say_hello(request("Ferris")).await.unwrap();
    for code in 1..=16 {
        client
            .say_hello(request(&code.to_string()))
            .await
            .unwrap_err();
    }
    drop(client);
    server.stop().await;
}

async fn unary_again(server: Running) {
    let mut client = server.client().await;
    let mut request = tonic::Request::new(request("13"));
    let headers = [
        (
            "sentry-trace",
            "0123456789abcdef0123456789abcdef-0123456789abcdef",
        ),
        (
            "baggage",
            "sentry-trace_id=0123456789abcdef0123456789abcdef",
        ),
        ("x-of-request", "asked"),
    ];
    *request.metadata_mut() = metadata(&headers);
    client.say_hello(request).await.unwrap_err();
    drop(client);
    server.stop().await;
}

async fn server_streaming(server: Running) {
    let mut client = server.client().await;
    for name in ["Ferris", "2", "5", "13"] {
        let replies = client.say_hello_stream(request(name)).await.unwrap();
        let replies: Vec<_> = replies.into_inner().collect().await;
        assert!(replies.len() >= 2);
    }
    drop(client);
    server.stop().await;
}

async fn client_streaming(server: Running) {
    let mut client = server.client().await;
    let requests = tokio_stream::iter([request("a"), request("b")]);
    client.collect_hellos(requests).await.unwrap();
    drop(client);
    server.stop().await;
}

async fn bidirectional(server: Running) {
    let mut client = server.client().await;
    for name in ["b", "15"] {
        let requests = tokio_stream::iter([request("a"), request(name)]);
        let replies = client.chat(requests).await.unwrap().into_inner();
        let replies: Vec<_> = replies.collect().await;
        assert_eq!(replies.len(), 2);
    }
    drop(client);
    server.stop().await;
}

async fn unknown_method(server: Running) {
    let channel = server.endpoint().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/helloworld.Greeter/Missing");
    let codec = tonic_prost::ProstCodec::<_, crate::support::helloworld::HelloReply>::default();
    let answer = grpc.unary(tonic::Request::new(request("?")), path, codec);
    assert_eq!(answer.await.unwrap_err().code(), Code::Unimplemented);
    drop(grpc);
    server.stop().await;
}

fn options() -> SentryServerLayer {
    SentryServerLayer::new()
        .panic_policy(PanicPolicy::Ignore)
        .breadcrumbs(true)
        .request_metadata(keys(["x-of-request"]))
        .response_metadata(keys(["x-of-head"]))
        .tag("layer", "trace")
        .identify_caller(|parts| {
            let asked = parts.headers.contains_key("x-of-request");
            sentry_tonic::CallerIdentity::new().tag("asked", asked.to_string())
        })
}

fn seen(watcher: Watcher, calls: Calls, rate: Option<f32>, threads: usize) -> Seen {
    let world = World::rated(rate, |options| options, |layer| layer);
    let server = async move {
        let server = watcher.serve(greeter(), options()).await;
        calls(server).await;
    };
    match threads {
        0 => world.run(server),
        threads => world.run_threads(threads, server),
    }
    world.hub.capture_message("probe", sentry::Level::Info);
    Seen::new(&world.received())
}

#[test]
fn sentry_receives_what_the_middleware_would_tell() {
    for rate in RATES {
        for (name, calls) in CALLS {
            for threads in [0, 2] {
                let middleware = seen(Watcher::Middleware, calls, rate, threads);
                assert_eq!(middleware.txs.is_empty(), rate != Some(1.0));
                let traced = seen(Watcher::TraceLayer, calls, rate, threads);
                let case = format!("{name} at {rate:?} on {threads} threads");
                for (traced, middleware) in traced.txs.iter().zip(&middleware.txs) {
                    assert_eq!(traced, middleware, "{case}");
                }
                for (traced, middleware) in traced.events.iter().zip(&middleware.events) {
                    assert_eq!(traced, middleware, "{case}");
                }
                assert_eq!(traced, middleware, "{case}");
            }
        }
    }
}

#[test]
fn calls_that_are_dropped_end_as_their_spans_close() {
    for rate in RATES {
        for threads in [0, 2] {
            for in_stream in [false, true] {
                let world = World::rated(rate, |options| options, |layer| layer);
                let calls = hang_up(in_stream);
                match threads {
                    0 => world.run(calls),
                    threads => world.run_threads(threads, calls),
                }
                let received = world.received();
                // CANCELLED is an event where that is asked for.
                let event = received.only_event();
                assert_eq!(event.tags["rpc.grpc.status_code"], "1");
                assert_eq!(event.tags["of_handler"], "true");
                if rate == Some(1.0) {
                    let tx = received.only_tx();
                    assert_eq!(tx.status, SpanStatus::Cancelled);
                    assert_eq!(tx.data["rpc.grpc.status_code"], 1);
                    assert_eq!(tx.data["rpc.response.status_code"], "CANCELLED");
                }
            }
        }
    }
}

pub(crate) async fn hang_up(in_stream: bool) {
    let (began, mut begun) = mpsc::channel(1);
    let greeter = Scripted::new().say_hello_stream(move |_| {
        let began = began.clone();
        async move {
            sentry::configure_scope(|scope| scope.set_tag("of_handler", true));
            if !in_stream {
                began.send(()).await.unwrap();
                pending::<()>().await;
            }
            let first = tokio_stream::once(Ok(reply("first")));
            Ok(Box::pin(first.chain(tokio_stream::pending())) as Replies)
        }
    });
    let options = SentryServerLayer::new().capture_codes([Code::Cancelled]);
    let server = Watcher::TraceLayer.serve(greeter, options).await;
    let mut client = server.client().await;
    if in_stream {
        let replies = client.say_hello_stream(request("x")).await.unwrap();
        replies.into_inner().message().await.unwrap().unwrap();
    } else {
        tokio::select! {
            answer = client.say_hello_stream(request("x")) => panic!("{answer:?}"),
            () = async { begun.recv().await.unwrap() } => {}
        }
    }
    drop(client);
    server.stop().await;
}

#[test]
fn the_source_of_a_status_is_found_and_its_id_is_left() {
    for call in sources::CALLS {
        let world = World::new();
        let mut status = world.run(async {
            let options = SentryServerLayer::new();
            let server = Watcher::TraceLayer.serve(sources::broken(), options).await;
            sources::fail_seen(server, call).await
        });
        status.metadata_mut().remove(KEY);
        sources::assert_hidden(&status, call);
        let received = world.received();
        assert_eq!(
            exceptions(received.only_event()),
            sources::causes(7),
            "{call}"
        );
    }
}
