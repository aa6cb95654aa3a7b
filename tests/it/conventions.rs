//! The names by which spans tell their calls.

use std::collections::BTreeMap;

use sentry::ClientOptions;
use serde_json::{Value, json};
use tonic::{Request, Status};

use sentry_tonic::{SemanticConventions, SentryClientLayer, SentryServerLayer};

use crate::support::alone::alone_with;
use crate::support::greeter::{Scripted, request};
use crate::support::observed::keys;
use crate::support::world::World;

type Data = BTreeMap<String, Value>;

/// A call that fails with NOT_FOUND: what its server and its client tell of it.
fn told(
    conventions: SemanticConventions,
    options: fn(ClientOptions) -> ClientOptions,
) -> [Data; 2] {
    let server = SentryServerLayer::new().semantic_conventions(conventions);
    let client = SentryClientLayer::new().semantic_conventions(conventions);
    told_by(server, client, options)
}

fn told_by(
    server: SentryServerLayer,
    client: SentryClientLayer,
    options: fn(ClientOptions) -> ClientOptions,
) -> [Data; 2] {
    let world = World::with(|o| options(o.traces_sample_rate(1.0)), |layer| layer);
    world.run(async {
        let greeter = Scripted::new().say_hello(|_| async {
            let mut status = Status::not_found("nobody");
            status
                .metadata_mut()
                .insert("x-shard", "7".parse().unwrap());
            Err(status)
        });
        let layer = server.request_metadata(keys(["x-tenant"]));
        let server = greeter.serve_with(layer).await;
        let layer = client.response_metadata(keys(["x-shard"]));
        let mut client = server.observed_client(layer).await;
        let mut request = Request::new(request("Ferris"));
        request
            .metadata_mut()
            .insert("x-tenant", "acme".parse().unwrap());
        client.say_hello(request).await.unwrap_err();
        drop(client);
        server.stop().await;
    });
    let mut txs = world.received().txs();
    txs.sort_by(|a, b| b.op.cmp(&a.op));
    let data = txs.into_iter().map(|tx| tx.data);
    let own =
        |(key, _): &(String, Value)| key.starts_with("rpc.") && !key.ends_with("message_count");
    let own = data.map(|data| data.into_iter().filter(own).collect());
    own.collect::<Vec<_>>().try_into().unwrap()
}

fn map(parts: &[&[(&str, &str)]]) -> Data {
    let parts = parts.iter().copied().flatten();
    let number_or_text = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    parts
        .map(|(key, text)| ((*key).to_owned(), number_or_text(text)))
        .collect()
}

#[test]
fn each_generation_has_its_names() {
    let always = &[("rpc.response.status_code", "NOT_FOUND")][..];
    let legacy = &[
        ("rpc.system", "grpc"),
        ("rpc.service", "helloworld.Greeter"),
        ("rpc.method", "SayHello"),
        ("rpc.grpc.status_code", "5"),
    ][..];
    let stable = &[
        ("rpc.system.name", "grpc"),
        ("rpc.method", "helloworld.Greeter/SayHello"),
        ("rpc.status_code", "NOT_FOUND"),
    ][..];
    let legacy_request = &[("rpc.grpc.request.metadata.x_tenant", r#"["acme"]"#)][..];
    let stable_request = &[("rpc.request.header.x-tenant", r#"["acme"]"#)][..];
    let legacy_response = &[("rpc.grpc.response.metadata.x_shard", r#"["7"]"#)][..];
    let stable_response = &[("rpc.response.trailer.x-shard", r#"["7"]"#)][..];
    for (conventions, server, client) in [
        (
            SemanticConventions::Legacy,
            map(&[always, legacy, legacy_request]),
            map(&[always, legacy, legacy_response]),
        ),
        (
            SemanticConventions::Stable,
            map(&[always, stable, stable_request]),
            map(&[always, stable, stable_response]),
        ),
        (
            SemanticConventions::Both,
            map(&[always, legacy, stable, legacy_request, stable_request]),
            map(&[always, legacy, stable, legacy_response, stable_response]),
        ),
    ] {
        assert_eq!(told(conventions, |options| options), [server, client]);
    }
}

/// In processes of their own: it is read once.
#[test]
fn the_environment_chooses_where_nobody_else_does() {
    let name = "conventions::the_environment_chooses_where_nobody_else_does";
    for list in ["", "http,database/dup", "http, rpc", "rpc,rpc/dup"] {
        let variables = [("OTEL_SEMCONV_STABILITY_OPT_IN", list)];
        alone_with(name, &variables, || {
            let list = std::env::var("OTEL_SEMCONV_STABILITY_OPT_IN").unwrap();
            let conventions = match list.as_str() {
                "" | "http,database/dup" => SemanticConventions::Legacy,
                "http, rpc" => SemanticConventions::Stable,
                _ => SemanticConventions::Both,
            };
            let by_default = (SentryServerLayer::new(), SentryClientLayer::new());
            assert_eq!(
                told_by(by_default.0, by_default.1, |options| options),
                told(conventions, |options| options)
            );
        });
    }
}

#[test]
fn methods_that_are_not_known_have_one_name_from_the_start() {
    for (conventions, service) in [
        (SemanticConventions::Legacy, Some("helloworld.Greeter")),
        (SemanticConventions::Stable, None),
    ] {
        let world = World::new();
        world.run(async {
            let layer = SentryServerLayer::new()
                .semantic_conventions(conventions)
                .known_methods(["/helloworld.Greeter/Say*"]);
            let server = Scripted::new().serve_with(layer).await;
            let mut client = server.client().await;
            client.say_hello(request("Ferris")).await.unwrap();
            let names = tokio_stream::once(request("Ferris"));
            client.collect_hellos(names).await.unwrap();
            drop(client);
            server.stop().await;
        });
        let txs = world.received().txs();
        let of = |key: &str| {
            txs.iter()
                .map(|tx| tx.data.get(key).cloned())
                .collect::<Vec<_>>()
        };
        let names: Vec<_> = txs.iter().map(|tx| tx.name.as_str()).collect();
        assert_eq!(names, ["/helloworld.Greeter/SayHello", "_OTHER"]);
        assert_eq!(of("rpc.service"), [service.map(Value::from), None]);
        assert_eq!(of("rpc.method")[1], Some(json!("_OTHER")));
        let original = Some(json!("/helloworld.Greeter/CollectHellos"));
        assert_eq!(of("rpc.method_original"), [None, original]);
    }
}
