//! Real calls over TCP, of all four kinds.

use std::error::Error;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sentry::Hub;
use sentry::protocol::{EnvelopeItem, SpanStatus};
use serde_json::json;
use tokio::sync::Notify;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::{Request, Response, Status, Streaming};
use tower::Layer;

use sentry_tonic::{RpcSide, SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::HelloReply;
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::received::{Tx, map, trace};
use crate::support::world::World;

type BoxError = Box<dyn Error + Send + Sync>;

async fn count(replies: Response<Streaming<HelloReply>>) -> usize {
    let replies = replies.into_inner();
    replies.fold(0, |count, _| count + 1).await
}

#[test]
fn a_unary_call_is_a_transaction() {
    let world = World::new();
    let port = world.run(async {
        let server = Scripted::new().serve().await;
        let mut client = server.client().await;
        client.say_hello(request("Ferris")).await.unwrap();
        drop(client);
        let port = server.address.port();
        server.stop().await;
        port
    });
    assert_eq!(
        world.received().txs(),
        [Tx {
            name: "/helloworld.Greeter/SayHello".to_owned(),
            op: "grpc.server".to_owned(),
            status: SpanStatus::Ok,
            origin: Some("auto.rpc.tonic".to_owned()),
            data: map([
                ("rpc.system", json!("grpc")),
                ("rpc.service", json!("helloworld.Greeter")),
                ("rpc.method", json!("SayHello")),
                ("rpc.grpc.status_code", json!(0)),
                ("rpc.response.status_code", json!("OK")),
                ("rpc.request.message_count", json!(1)),
                ("rpc.response.message_count", json!(1)),
                ("server.address", json!("127.0.0.1")),
                ("server.port", json!(port)),
                ("sentry.kind", json!("server")),
            ]),
            tags: map([]),
            spans: vec![],
        }]
    );
}

#[test]
fn streams_count_their_messages() {
    let world = World::new();
    world.run(async {
        let server = Scripted::new().serve().await;
        let mut client = server.client().await;
        let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
        assert_eq!(count(replies).await, 3);
        let names = tokio_stream::iter(vec![request("a"); 4]);
        client.collect_hellos(names).await.unwrap();
        let names = tokio_stream::iter(vec![request("a"); 5]);
        let replies = client.chat(names).await.unwrap();
        assert_eq!(count(replies).await, 5);
        drop(client);
        server.stop().await;
    });
    let counts: Vec<_> = world
        .received()
        .txs()
        .into_iter()
        .map(|tx| {
            (
                tx.name,
                tx.status,
                tx.data["rpc.request.message_count"].clone(),
                tx.data["rpc.response.message_count"].clone(),
            )
        })
        .collect();
    let expected = [
        ("SayHelloStream", 1, 3),
        ("CollectHellos", 4, 1),
        ("Chat", 5, 5),
    ];
    assert_eq!(
        counts,
        expected.map(|(method, requests, responses)| (
            format!("/helloworld.Greeter/{method}"),
            SpanStatus::Ok,
            json!(requests),
            json!(responses),
        ))
    );
}

/// What a handler does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Succeed,
    /// Before the first message of the response.
    Fail,
    /// After the first message of the response.
    FailLater,
    Panic,
    PanicLater,
    /// Never answers; the caller goes away.
    Hang,
    /// Sends one message and no more; the caller goes away.
    HangLater,
    /// Never answers; the caller's time runs out, of which it told the server.
    Dawdle,
    /// Never answers; the caller's time runs out, of which it told nobody.
    Outwait,
}

impl Act {
    async fn before(self, started: &Notify) -> Result<(), Status> {
        match self {
            Self::Succeed | Self::FailLater | Self::PanicLater | Self::HangLater => Ok(()),
            Self::Fail => Err(Status::failed_precondition("not now")),
            Self::Panic => panic!("the handler panics"),
            Self::Hang | Self::Dawdle | Self::Outwait => {
                started.notify_one();
                pending().await
            }
        }
    }

    fn replies(self) -> Replies {
        let first = tokio_stream::once(Ok(reply("first")));
        match self {
            Self::FailLater => {
                let failure = Err(Status::data_loss("torn"));
                Box::pin(first.chain(tokio_stream::once(failure)))
            }
            Self::PanicLater => {
                let then = tokio_stream::once(()).map(|()| panic!("the stream panics"));
                Box::pin(first.chain(then))
            }
            Self::HangLater => Box::pin(first.chain(tokio_stream::pending())),
            _ => Box::pin(first),
        }
    }

    fn status(self) -> SpanStatus {
        match self {
            Self::Succeed => SpanStatus::Ok,
            Self::Fail => SpanStatus::FailedPrecondition,
            Self::FailLater => SpanStatus::DataLoss,
            Self::Panic | Self::PanicLater => SpanStatus::InternalError,
            Self::Hang | Self::HangLater => SpanStatus::Cancelled,
            Self::Dawdle | Self::Outwait => SpanStatus::DeadlineExceeded,
        }
    }

    fn request<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if self == Self::Dawdle {
            let timeout = "20m".parse().unwrap();
            request.metadata_mut().insert("grpc-timeout", timeout);
        }
        request
    }

    /// Calls, and goes away once the handler hangs.
    async fn call<T>(self, started: &Notify, call: impl Future<Output = T>) -> Option<T> {
        if self == Self::Hang {
            tokio::select! {
                _ = call => unreachable!("hangs"),
                () = started.notified() => None,
            }
        } else {
            Some(call.await)
        }
    }
}

/// Reads the first message, or all of them.
async fn read(act: Act, replies: Option<Result<Response<Streaming<HelloReply>>, Status>>) {
    let Some(Ok(replies)) = replies else { return };
    let mut replies = replies.into_inner();
    while let Some(Ok(_)) = replies.next().await {
        if act == Act::HangLater {
            return;
        }
    }
}

const BEFORE: [Act; 4] = [Act::Succeed, Act::Fail, Act::Panic, Act::Hang];
const LATER: [Act; 3] = [Act::FailLater, Act::PanicLater, Act::HangLater];

/// A Greeter that acts, and tells once it hangs.
fn actor(act: Act) -> (Scripted, Arc<Notify>) {
    let started = Arc::new(Notify::new());
    let before = {
        let started = Arc::clone(&started);
        move || {
            let started = Arc::clone(&started);
            async move { act.before(&started).await }
        }
    };
    let (a, b, c, d) = (before.clone(), before.clone(), before.clone(), before);
    let actor = Scripted::new()
        .say_hello(move |name| {
            let before = a();
            async move { before.await.map(|()| reply(&name)) }
        })
        .say_hello_stream(move |_| {
            let before = b();
            async move { before.await.map(|()| act.replies()) }
        })
        .collect_hellos(move |mut requests| {
            let before = c();
            async move {
                requests.next().await.unwrap()?;
                before.await.map(|()| reply("all"))
            }
        })
        .chat(move |mut requests| {
            let before = d();
            async move {
                requests.next().await.unwrap()?;
                before.await.map(|()| act.replies())
            }
        });
    (actor, started)
}

/// All four kinds of call, where they can end as `act` does; their methods.
async fn call_all_kinds<T>(mut client: GreeterClient<T>, act: Act, started: &Notify) -> Vec<String>
where
    T: GrpcService<Body>,
    T::Error: Into<BoxError>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError> + Send,
{
    let mut methods = Vec::new();
    if !LATER.contains(&act) {
        let call = client.say_hello(act.request(request("a")));
        let _ = act.call(started, call).await;
        methods.push("SayHello");
        let names = tokio_stream::iter([request("a"), request("b")]);
        let call = client.collect_hellos(act.request(names));
        let _ = act.call(started, call).await;
        methods.push("CollectHellos");
    }
    let call = client.say_hello_stream(act.request(request("a")));
    read(act, act.call(started, call).await).await;
    methods.push("SayHelloStream");
    let names = tokio_stream::iter([request("a"), request("b")]);
    let call = client.chat(act.request(names));
    read(act, act.call(started, call).await).await;
    methods.push("Chat");
    let full = |method| format!("/helloworld.Greeter/{method}");
    methods.into_iter().map(full).collect()
}

/// Observed by the server alone.
async fn received_calls(act: Act) -> Vec<String> {
    let (actor, started) = actor(act);
    let server = actor.serve().await;
    let methods = call_all_kinds(server.patient_client(), act, &started).await;
    server.stop().await;
    methods
}

/// Observed by the client alone.
async fn made_calls(act: Act) -> Vec<String> {
    let (actor, started) = actor(act);
    let (server, _arrivals) = actor.serve_unobserved().await;
    let mut endpoint = server.endpoint();
    if act == Act::Outwait {
        endpoint = endpoint.timeout(Duration::from_millis(20));
    }
    let channel = endpoint.connect().await.unwrap();
    let client = GreeterClient::new(SentryClientLayer::new().layer(channel));
    let methods = call_all_kinds(client, act, &started).await;
    server.stop().await;
    methods
}

fn assert_statuses(
    world: &World,
    side: RpcSide,
    methods: Vec<String>,
    status: SpanStatus,
    case: &str,
) {
    let received = world.received();
    let mut statuses = received.statuses();
    statuses.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected: Vec<_> = methods.into_iter().map(|name| (name, status)).collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(statuses, expected, "{case}");
    // By default, those of a server that are its own fault, and none of a client.
    let is_fault = matches!(status, SpanStatus::InternalError | SpanStatus::DataLoss);
    let is_captured = side == RpcSide::Server && is_fault;
    let events = if is_captured { expected.len() } else { 0 };
    assert_eq!(received.events.len(), events, "{case}");
}

#[test]
fn all_kinds_of_calls_end_with_the_right_status() {
    for act in BEFORE.into_iter().chain(LATER).chain([Act::Dawdle]) {
        for threads in [None, Some(2)] {
            let world = World::new();
            let methods = match threads {
                None => world.run(received_calls(act)),
                Some(threads) => world.run_threads(threads, received_calls(act)),
            };
            let case = format!("{act:?} on {threads:?} threads");
            assert_statuses(&world, RpcSide::Server, methods, act.status(), &case);
        }
    }
}

#[cfg(feature = "transport")]
#[test]
fn all_kinds_of_calls_end_with_the_status_that_their_caller_saw() {
    // Of a timeout that the server knows of, either end may be first to tell.
    for act in BEFORE.into_iter().chain(LATER).chain([Act::Outwait]) {
        for threads in [None, Some(2)] {
            let world = World::new();
            let methods = match threads {
                None => world.run(made_calls(act)),
                Some(threads) => world.run_threads(threads, made_calls(act)),
            };
            let status = match act {
                // tonic resets the stream of a handler that panics.
                Act::Panic | Act::PanicLater => SpanStatus::Cancelled,
                _ => act.status(),
            };
            let case = format!("{act:?} on {threads:?} threads");
            assert_statuses(&world, RpcSide::Client, methods, status, &case);
        }
    }
}

#[test]
fn unsampled_calls_send_nothing_and_are_counted() {
    for act in BEFORE.into_iter().chain(LATER) {
        let world = World::sampled(0.0);
        let calls = world.run(received_calls(act)).len() + world.run(made_calls(act)).len();
        // Each envelope carries the report of what was left out until then.
        world.hub.capture_message("probe", sentry::Level::Info);
        let received = world.received();
        assert_eq!(received.statuses(), []);
        let reports = received.others.iter().map(|item| match item {
            EnvelopeItem::ClientReport(report) => serde_json::to_value(report).unwrap(),
            other => panic!("not a report: {other:?}"),
        });
        let discarded = reports.flat_map(|report| {
            let discarded = report["discarded_events"].as_array().unwrap();
            discarded.clone()
        });
        let transactions: u64 = discarded
            .filter(|item| item["category"] == "transaction" && item["reason"] == "sample_rate")
            .map(|item| item["quantity"].as_u64().unwrap())
            .sum();
        assert_eq!(transactions, calls as u64, "{act:?}");
    }
}

#[test]
fn an_incoming_trace_is_continued() {
    let trace_id = "09e04486820349518ac7b5d2adbf6ba5";
    let span_id = "9cf635fa5b870b3a";
    for (header, rate, sampled) in [
        (format!("{trace_id}-{span_id}-1"), 0.0, true),
        (format!("{trace_id}-{span_id}-0"), 1.0, false),
        (format!("{trace_id}-{span_id}"), 1.0, true),
    ] {
        let world = World::sampled(rate);
        let headers = world.run(async {
            let (send, receive) = std::sync::mpsc::channel();
            let greeter = Scripted::new().say_hello(move |name| {
                let headers: Vec<_> = Hub::current()
                    .configure_scope(|scope| scope.iter_trace_propagation_headers().collect());
                send.send(headers).unwrap();
                async move { Ok(reply(&name)) }
            });
            let server = greeter.serve().await;
            let mut client = server.client().await;
            let mut request = Request::new(request("a"));
            let metadata = request.metadata_mut();
            metadata.insert("sentry-trace", header.parse().unwrap());
            client.say_hello(request).await.unwrap();
            drop(client);
            server.stop().await;
            receive.recv().unwrap()
        });
        let received = world.received();
        assert_eq!(received.transactions.len(), usize::from(sampled));
        for transaction in &received.transactions {
            let trace = trace(transaction);
            assert_eq!(trace.trace_id.to_string(), trace_id);
            assert_eq!(trace.parent_span_id.unwrap().to_string(), span_id);
        }
        let [(name, value)] = headers.as_slice() else {
            panic!("{headers:?}")
        };
        assert_eq!(*name, "sentry-trace");
        assert!(value.starts_with(trace_id) && !value.contains(span_id));
        assert!(value.ends_with(if sampled { "-1" } else { "-0" }));
    }
}

#[test]
fn hostile_headers_never_fail_a_call() {
    let world = World::new();
    world.run(async {
        let server = Scripted::new().serve().await;
        let mut client = server.client().await;
        let long = "a".repeat(10_000);
        for (name, value) in [
            (
                "sentry-trace",
                "00000000000000000000000000000000-0000000000000000-1",
            ),
            ("sentry-trace", "-"),
            ("sentry-trace", &*long),
            ("baggage", &*long),
            ("baggage", ",,,=,;=%zz%,sentry-=,=sentry-trace_id"),
            ("traceparent", "00-zz"),
            ("grpc-timeout", "soon"),
            ("grpc-timeout", "99999999H"),
            ("host", "][:99999999"),
        ] {
            let mut request = Request::new(request("a"));
            let value = tonic::metadata::MetadataValue::try_from(value).unwrap();
            request.metadata_mut().insert(name, value);
            client.say_hello(request).await.unwrap();
        }
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    assert_eq!(received.transactions.len(), 9);
    for transaction in &received.transactions {
        assert_eq!(trace(transaction).parent_span_id, None);
    }
}

#[test]
fn op_and_name_can_be_set() {
    let world = World::new();
    world.run(async {
        let layer = SentryServerLayer::new()
            .op("rpc.server")
            .span_name(|parts| {
                assert_ne!(
                    parts.uri.path(),
                    "/helloworld.Greeter/Chat",
                    "names nothing"
                );
                format!("rpc {}", parts.uri.path())
            });
        let server = Scripted::new().serve_with(layer).await;
        let mut client = server.client().await;
        client.say_hello(request("a")).await.unwrap();
        client.chat(tokio_stream::iter([])).await.unwrap();
        drop(client);
        server.stop().await;
    });
    let names: Vec<_> = world
        .received()
        .txs()
        .into_iter()
        .map(|tx| (tx.op, tx.name))
        .collect();
    assert_eq!(
        names,
        [
            "rpc /helloworld.Greeter/SayHello",
            "/helloworld.Greeter/Chat"
        ]
        .map(|name| ("rpc.server".to_owned(), name.to_owned()))
    );
}

#[cfg(feature = "transport")]
#[test]
fn the_address_of_the_peer_needs_send_default_pii() {
    for pii in [false, true] {
        let world = World::with(
            |options| options.traces_sample_rate(1.0).send_default_pii(pii),
            |layer| layer,
        );
        world.run(async {
            Scripted::new().say_hello_once("a").await.unwrap();
        });
        let data = world.received().only_tx().data;
        assert_eq!(
            data.get("network.peer.address"),
            pii.then(|| json!("127.0.0.1")).as_ref()
        );
        assert_eq!(data.contains_key("network.peer.port"), pii);
    }
}
