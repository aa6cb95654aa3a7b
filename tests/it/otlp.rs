//! What an OpenTelemetry collector receives of calls, by OTLP over gRPC.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use sentry_tonic::SemanticConventions;

use crate::endings::NAMES;
use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::HelloReply;
use crate::support::otlp::{Told, in_both_orders, serve, told};
use crate::support::received::trace;

/// A name is the code that the answer has.
fn answer(name: &str) -> Result<HelloReply, Status> {
    match name.parse().map_or(Code::Ok, Code::from_i32) {
        Code::Ok => Ok(reply(name)),
        code => Err(Status::new(code, "what went wrong")),
    }
}

fn greeter() -> Scripted {
    Scripted::new()
        .say_hello(|name| async move { answer(&name) })
        .say_hello_stream(|name| async move {
            let replies = tokio_stream::iter(["Ferris".to_owned(), name]);
            Ok(Box::pin(replies.map(|name| answer(&name))) as Replies)
        })
}

/// A call as it is made: method, code, and how many messages go and come.
type Call = (&'static str, i64, i64, i64);

fn calls() -> Vec<Call> {
    let with_code = (0..=16).flat_map(|code| {
        let replies = i64::from(code == 0);
        [
            ("SayHello", code, 1, replies),
            ("SayHelloStream", code, 1, 1 + replies),
        ]
    });
    let mut calls: Vec<Call> = with_code.collect();
    calls.extend([("CollectHellos", 0, 2, 1), ("Chat", 0, 2, 2)]);
    calls
}

async fn call_all(conventions: SemanticConventions) -> Port {
    let (server, mut client) = serve(greeter(), conventions).await;
    let names = || tokio_stream::iter(["Ada", "Grace"].map(request));
    for (method, code, ..) in calls() {
        let request = request(&code.to_string());
        let end = match method {
            "SayHello" => client.say_hello(request).await.map(drop),
            "CollectHellos" => client.collect_hellos(names()).await.map(drop),
            _ => {
                let replies = match method {
                    "Chat" => client.chat(names()).await,
                    _ => client.say_hello_stream(request).await,
                };
                let mut replies = replies.unwrap().into_inner();
                loop {
                    match replies.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break Ok(()),
                        Err(status) => break Err(status),
                    }
                }
            }
        };
        let ended = end.map_or_else(|status| status.code(), |()| Code::Ok);
        assert_eq!(i64::from(i32::from(ended)), code);
    }
    let port = server.address.port().into();
    drop(client);
    server.stop().await;
    port
}

type Port = i64;

/// By the table of the semantic conventions for gRPC.
fn expected_of(call: Call, is_server: bool, conventions: SemanticConventions, port: Port) -> Told {
    let (method, code, requests, responses) = call;
    let text = |text: &str| Value::StringValue(text.to_owned());
    let int = Value::IntValue;
    let is_legacy = conventions != SemanticConventions::Stable;
    let is_stable = conventions != SemanticConventions::Legacy;
    let full = format!("helloworld.Greeter/{method}");
    let is_error = match is_server {
        true => [2, 4, 12, 13, 14, 15].contains(&code),
        false => code != 0,
    };
    let said = NAMES[usize::try_from(code).unwrap()];
    let attributes = [
        (is_legacy, "rpc.system", text("grpc")),
        (is_legacy, "rpc.service", text("helloworld.Greeter")),
        (is_legacy, "rpc.grpc.status_code", int(code)),
        (is_stable, "rpc.system.name", text("grpc")),
        (is_stable, "rpc.status_code", text(said)),
        (true, "rpc.response.status_code", text(said)),
        (
            true,
            "rpc.method",
            text(if is_stable { &full } else { method }),
        ),
        (true, "rpc.request.message_count", int(requests)),
        (true, "rpc.response.message_count", int(responses)),
        (true, "server.address", text("127.0.0.1")),
        (true, "server.port", int(port)),
        (is_error, "error.type", text(said)),
    ];
    let attributes = attributes.into_iter().filter(|(is_there, ..)| *is_there);
    let attributes = attributes.map(|(_, name, value)| (name.to_owned(), value));
    let (status, message) = match is_error {
        true => (StatusCode::Error, "what went wrong"),
        false => (StatusCode::Unset, ""),
    };
    (full, status, message.to_owned(), attributes.collect())
}

/// The spans of one side, in the order in which they began.
fn of_kind(spans: &[Span], kind: SpanKind) -> Vec<&Span> {
    let mut spans: Vec<_> = spans.iter().filter(|span| span.kind() == kind).collect();
    spans.sort_by_key(|span| span.start_time_unix_nano);
    spans
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_collector_gets_one_span_for_each_side_of_a_call() {
    for conventions in [
        SemanticConventions::Legacy,
        SemanticConventions::Stable,
        SemanticConventions::Both,
    ] {
        let call = async || call_all(conventions).await;
        in_both_orders(call, |world, spans, port| {
            assert_eq!(spans.len(), 2 * calls().len());
            for (is_server, kind) in [(true, SpanKind::Server), (false, SpanKind::Client)] {
                let spans = of_kind(&spans, kind);
                let mut told: Vec<Told> = spans.into_iter().map(told).collect();
                for (.., attributes) in &mut told {
                    let peer = ["address", "port"]
                        .map(|part| attributes.remove(&format!("network.peer.{part}")));
                    if is_server {
                        let [address, port] = peer.map(Option::unwrap);
                        assert_eq!(address, Value::StringValue("127.0.0.1".to_owned()));
                        assert!(matches!(port, Value::IntValue(1..)));
                    } else {
                        assert_eq!(peer, [None, None]);
                    }
                }
                let expected = calls().into_iter();
                let expected = expected.map(|call| expected_of(call, is_server, conventions, port));
                assert_eq!(told, expected.collect::<Vec<_>>(), "{conventions:?}");
            }
            let servers = of_kind(&spans, SpanKind::Server);
            for (server, client) in servers.iter().zip(of_kind(&spans, SpanKind::Client)) {
                assert_eq!(server.trace_id, client.trace_id);
                assert_eq!(server.parent_span_id, client.span_id);
                assert!(client.parent_span_id.is_empty());
            }
            let mut exported: Vec<_> = spans
                .iter()
                .map(|span| [&span.trace_id, &span.span_id, &span.parent_span_id].map(|id| hex(id)))
                .collect();
            let received = world.received();
            let reported = received.transactions.iter().map(trace).map(|trace| {
                let parent = trace.parent_span_id.map(|id| id.to_string());
                let own = [trace.trace_id.to_string(), trace.span_id.to_string()];
                let [trace_id, span_id] = own;
                [trace_id, span_id, parent.unwrap_or_default()]
            });
            let mut reported: Vec<_> = reported.collect();
            exported.sort();
            reported.sort();
            assert_eq!(exported, reported);
        });
    }
}
