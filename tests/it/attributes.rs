//! What attributes spans have, and who has the last word on them.

use sentry::protocol::{Span, Transaction};
use serde_json::{Value, json};
use tracing::info_span;

use sentry_tonic::SentryClientLayer;

use crate::support::greeter::{Scripted, reply, request};
use crate::support::world::World;

#[test]
fn how_a_call_ended_is_not_for_the_application_to_say() {
    let worlds = [
        World::new(),
        // Its sampler is asked by another way.
        World::with(|options| options.traces_sampler(|_| 1.0), |layer| layer),
    ];
    for world in worlds {
        world.run(async {
            let greeter = Scripted::new().say_hello(|name| {
                sentry::configure_scope(|scope| {
                    let span = scope.get_span().unwrap();
                    for key in ["rpc.grpc.status_code", "rpc.method", "own"] {
                        span.set_data(key, "own".into());
                    }
                });
                async move { Ok(reply(&name)) }
            });
            let server = greeter.serve().await;
            let mut client = server.client().await;
            client.say_hello(request("a")).await.unwrap();
            drop(client);
            server.stop().await;
        });
        let data = world.received().only_tx().data;
        assert_eq!(data["rpc.grpc.status_code"], json!(0));
        assert_eq!(data["rpc.response.status_code"], json!("OK"));
        assert_eq!(data["rpc.method"], json!("own"));
        assert_eq!(data["own"], json!("own"));
    }
}

/// Spans finish in another order than they began, and one of the application's is among
/// them: each has its own attributes.
#[test]
fn spans_have_their_own_attributes() {
    let world = World::new();
    world.run(async {
        let back = Scripted::new().serve().await;
        let client = back.observed_client(SentryClientLayer::new()).await;
        let greeter = Scripted::new().say_hello(move |name| {
            let mut client = client.clone();
            async move {
                let first = info_span!("first").entered();
                let first = first.exit();
                let root = sentry::configure_scope(|scope| scope.get_span()).unwrap();
                let own = root.start_child("own", "own");
                client.say_hello(request("b")).await.unwrap();
                info_span!(parent: &first, "second").in_scope(|| {});
                own.finish();
                drop(first);
                Ok(reply(&name))
            }
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        client.say_hello(request("a")).await.unwrap();
        drop(client);
        server.stop().await;
        back.stop().await;
    });
    let received = world.received();
    let is_front = |tx: &&Transaction<'_>| tx.spans.len() > 1;
    let front = received.transactions.iter().find(is_front).unwrap();
    let told: Vec<_> = front.spans.iter().map(told).collect();
    let second = told[1].2.clone();
    assert!(second.is_u64());
    let expected = [
        (
            "/helloworld.Greeter/SayHello",
            json!("auto.rpc.tonic"),
            Value::Null,
            json!("OK"),
        ),
        ("second", Value::Null, second, Value::Null),
        ("own", Value::Null, Value::Null, Value::Null),
        ("first", Value::Null, told[3].2.clone(), Value::Null),
    ];
    let expected =
        expected.map(|(name, origin, line, status)| (name.to_owned(), origin, line, status));
    assert_eq!(told, expected);
    assert!(told[3].2.as_u64() < told[1].2.as_u64(), "{told:?}");
}

/// Name, origin, line and status of a span.
fn told(span: &Span) -> (String, Value, Value, Value) {
    let data = |key: &str| span.data.get(key).cloned().unwrap_or_default();
    (
        span.description.clone().unwrap_or_default(),
        data("sentry.origin"),
        data("code.line.number"),
        data("rpc.response.status_code"),
    )
}
