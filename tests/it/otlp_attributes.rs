//! What an OpenTelemetry collector receives beside what every call has.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use sentry_tonic::{SemanticConventions, SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Scripted, replies, reply, request};
use crate::support::observed::keys;
use crate::support::otlp::{in_both_orders, only, told};

const ALL: [SemanticConventions; 3] = [
    SemanticConventions::Legacy,
    SemanticConventions::Stable,
    SemanticConventions::Both,
];

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn texts(all: &[&str]) -> Value {
    let values = all.iter().map(|one| AnyValue {
        value: Some(text(one)),
    });
    Value::ArrayValue(ArrayValue {
        values: values.collect(),
    })
}

/// What `span` has under names that contain `part`, by name.
fn with(span: &Span, part: &str) -> Vec<(String, Value)> {
    let (.., attributes) = told(span);
    let with = attributes
        .into_iter()
        .filter(|(name, _)| name.contains(part));
    with.collect()
}

fn named(all: &[(&str, &Value)]) -> Vec<(String, Value)> {
    let all = all
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).clone()));
    all.collect()
}

/// A stream whose head and whose trailers have metadata.
async fn call_with_metadata(conventions: SemanticConventions) {
    let mut head = MetadataMap::new();
    head.append("x-shard", "7".parse().unwrap());
    let greeter = Scripted::new()
        .head(head)
        .say_hello_stream(|name| async move {
            let mut status = Status::not_found("nobody");
            status
                .metadata_mut()
                .insert("x-shard", "8".parse().unwrap());
            Ok(replies(vec![Ok(reply(&name)), Err(status)]))
        });
    let layer = SentryServerLayer::new().semantic_conventions(conventions);
    let layer = layer.request_metadata(keys(["x-tenant", "authorization"]));
    let server = greeter.serve_with(layer).await;
    let layer = SentryClientLayer::new().semantic_conventions(conventions);
    let layer = layer.response_metadata(keys(["x-shard"]));
    let mut client = server.observed_client(layer).await;
    let mut request = Request::new(request("Ferris"));
    let metadata = request.metadata_mut();
    metadata.append("x-tenant", "acme".parse().unwrap());
    metadata.append("x-tenant", "other".parse().unwrap());
    metadata.append("authorization", "Bearer hidden".parse().unwrap());
    let replies = client.say_hello_stream(request).await.unwrap();
    let mut replies = replies.into_inner();
    replies.message().await.unwrap();
    replies.message().await.unwrap_err();
    drop((replies, client));
    server.stop().await;
}

#[test]
fn metadata_is_lists_of_texts() {
    let filtered = texts(&["[Filtered]"]);
    let tenants = texts(&["acme", "other"]);
    let [seven, eight, shards] = [&["7"][..], &["8"], &["7", "8"]].map(texts);
    let legacy_request = [
        ("rpc.grpc.request.metadata.authorization", &filtered),
        ("rpc.grpc.request.metadata.x_tenant", &tenants),
    ];
    let stable_request = [
        ("rpc.request.header.authorization", &filtered),
        ("rpc.request.header.x-tenant", &tenants),
    ];
    let legacy_response = [("rpc.grpc.response.metadata.x_shard", &shards)];
    let stable_response = [
        ("rpc.response.header.x-shard", &seven),
        ("rpc.response.trailer.x-shard", &eight),
    ];
    for conventions in ALL {
        let parts = |legacy: &[_], stable: &[_]| match conventions {
            SemanticConventions::Legacy => named(legacy),
            SemanticConventions::Stable => named(stable),
            _ => [named(legacy), named(stable)].concat(),
        };
        let call = async || call_with_metadata(conventions).await;
        in_both_orders(call, |_, spans, ()| {
            let told = |kind| {
                let span = only(&spans, kind);
                let parts = ["metadata.", "header.", "trailer."];
                parts.map(|part| with(span, part)).concat()
            };
            let expected = parts(&legacy_request, &stable_request);
            assert_eq!(told(SpanKind::Server), expected, "{conventions:?}");
            let expected = parts(&legacy_response, &stable_response);
            assert_eq!(told(SpanKind::Client), expected, "{conventions:?}");
        });
    }
}

#[test]
fn a_method_that_is_not_known_has_one_name() {
    for conventions in ALL {
        let call = async || {
            let layer = SentryServerLayer::new().semantic_conventions(conventions);
            let layer = layer.known_methods(["/helloworld.Greeter/Chat"]);
            let server = Scripted::new().serve_with(layer).await;
            let mut client = server.client().await;
            client.say_hello(request("Ferris")).await.unwrap();
            drop(client);
            server.stop().await;
        };
        in_both_orders(call, |_, spans, ()| {
            let [span] = &spans[..] else {
                panic!("{spans:?}")
            };
            assert_eq!(span.name, "grpc", "{conventions:?}");
            let expected = [
                ("rpc.method", &text("_OTHER")),
                ("rpc.method_original", &text("/helloworld.Greeter/SayHello")),
            ];
            assert_eq!(with(span, "method"), named(&expected), "{conventions:?}");
            assert_eq!(with(span, "service"), []);
        });
    }
}
