//! What both backends are told of a call.

use std::collections::BTreeMap;

use opentelemetry::trace::{SpanKind, Status as OtelStatus};
use opentelemetry::{Array, StringValue};
use opentelemetry_sdk::trace::Sampler;
use tonic::{Request, Status};

use sentry_tonic::{SemanticConventions, SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Scripted, request};
use crate::support::observed::keys;
use crate::support::otel::{NAMES, Otel, of_otel, of_sentry, worlds};

#[test]
fn both_are_told_the_same() {
    for conventions in [
        SemanticConventions::Legacy,
        SemanticConventions::Stable,
        SemanticConventions::Both,
    ] {
        let otel = Otel::new(Sampler::AlwaysOn);
        let [world, _] = worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel));
        world.run(async {
            let greeter = Scripted::new().say_hello(|_| async {
                let mut status = Status::not_found("nobody");
                status
                    .metadata_mut()
                    .insert("x-shard", "7".parse().unwrap());
                Err(status)
            });
            let layer = SentryServerLayer::new().semantic_conventions(conventions);
            let layer = layer.request_metadata(keys(["x-tenant", "authorization"]));
            let layer = layer.response_metadata(keys(["x-shard"]));
            let server = greeter.serve_with(layer).await;
            let layer = SentryClientLayer::new().semantic_conventions(conventions);
            let mut client = server.observed_client(layer).await;
            let mut request = Request::new(request("Ferris"));
            let metadata = request.metadata_mut();
            metadata.append("x-tenant", "acme".parse().unwrap());
            metadata.append("x-tenant", "other".parse().unwrap());
            metadata.append("authorization", "Bearer hidden".parse().unwrap());
            client.say_hello(request).await.unwrap_err();
            drop(client);
            server.stop().await;
        });
        let received = world.received();
        let ids = of_sentry(&received);
        assert_eq!(ids[NAMES[3]].2.as_ref(), Some(&ids[NAMES[0]].1));
        assert_eq!(ids, of_otel(&otel.spans()));
        assert!(!format!("{:?}", otel.spans()).contains("hidden"));
        for (op, kind) in [
            ("grpc.server", SpanKind::Server),
            ("grpc.client", SpanKind::Client),
        ] {
            let spans = otel.spans();
            let span = spans.iter().find(|span| span.span_kind == kind).unwrap();
            let txs = received.txs();
            let tx = txs.iter().find(|tx| tx.op == op).unwrap();
            // Those of the calls: OpenTelemetry has some of its own, and Sentry too.
            let is_told = |key: &str| key.starts_with("rpc.") || key.starts_with("server.");
            let exported = span.attributes.iter();
            let exported: BTreeMap<_, _> = exported
                .filter(|attribute| is_told(attribute.key.as_str()))
                .map(|attribute| (attribute.key.to_string(), json_of(&attribute.value)))
                .collect();
            let told: BTreeMap<_, _> = tx
                .data
                .iter()
                .filter(|(key, _)| is_told(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            assert_eq!(exported, told, "{conventions:?} {op}");
            let error = |description: &str| OtelStatus::Error {
                description: description.to_owned().into(),
            };
            let status = match kind {
                SpanKind::Server => OtelStatus::Unset,
                _ => error("nobody"),
            };
            assert_eq!(span.status, status);
        }
    }
}

fn json_of(value: &opentelemetry::Value) -> serde_json::Value {
    use opentelemetry::Value;

    match value {
        Value::Bool(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Array(Array::String(values)) => values.iter().map(StringValue::as_str).collect(),
        other => panic!("{other:?}"),
    }
}
