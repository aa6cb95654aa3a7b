//! What is told of the metadata of calls.

use http::HeaderValue;
use sentry::protocol::{Event, Value};
use serde_json::json;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Code, Status};
use tower::util::MapRequestLayer;
use tracing::error;

use sentry_tonic::SentryServerLayer;

use crate::support::greeter::{Scripted, listen, reply, request};
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::observed::{KINDS, Kind, Observed, failing, keys, metadata, on_both_sides};
use crate::support::received::{Data, Received, map, rpc_context, with_prefixes};
use crate::support::world::{RATES, World};

/// Of the requests: more of it is not allowed than is.
const SENT: [(&str, &str); 8] = [
    ("x-tenant", "acme"),
    ("x-tenant", "other"),
    ("x-empty", ""),
    ("trace-bin", "four"),
    ("authorization", "Bearer hidden"),
    ("x-ssn", "hidden"),
    ("x-person", "Ferris"),
    ("x-person-bin", "Ferris"),
];

/// What [`on_both_sides`] may tell.
macro_rules! allowing {
    () => {
        on_both_sides!(|layer| {
            let sent = ["x-tenant", "x-empty", "trace-bin", "authorization", "x-ssn"];
            layer
                .capture_codes([Code::Internal])
                .request_metadata(keys(sent).into_iter().chain(keys(["x-missing"])))
                .response_metadata(keys(["x-shard", "cost-bin", "x-api-key", "x-ssn"]))
                .metadata_denylist(["SSN"])
        })
    };
}

/// Of failures.
fn answered() -> MetadataMap {
    metadata(&[
        ("x-shard", "7"),
        ("cost-bin", "seven"),
        ("x-api-key", "hidden"),
        ("x-ssn", "hidden"),
        ("x-person", "Ferris"),
    ])
}

/// Of heads.
fn head() -> MetadataMap {
    metadata(&[("x-shard", "6"), ("x-head", "Ferris")])
}

fn refusal() -> Status {
    Status::with_metadata(Code::Internal, "refused", answered())
}

/// Metadata among the data of the only transaction.
#[track_caller]
fn attributes(received: &Received) -> Data {
    let names = ["request", "response"].map(|kind| {
        [
            format!("rpc.grpc.{kind}.metadata."),
            format!("rpc.{kind}.metadata."),
        ]
    });
    let names: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    with_prefixes(&received.only_tx().data, &names)
}

fn of_event(event: &Event<'_>) -> [Value; 2] {
    let context = rpc_context(event);
    ["request_metadata", "response_metadata"].map(|key| context[key].clone())
}

/// What hyper and tonic add to what the tests send.
fn without_foreign(data: &mut Data) {
    for foreign in [
        "rpc.request.metadata.user-agent",
        "rpc.response.metadata.date",
    ] {
        data.remove(foreign);
    }
}

#[test]
fn what_is_allowed_is_told() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for side in allowing!() {
            let world = World::with_pii(rate, false);
            let greeter = failing(refusal).head(head());
            let call = side.call(greeter, kind, metadata(&SENT));
            world.run(call).unwrap_err();
            let received = world.received();
            let sent = json!({
                "x-tenant": ["acme", "other"],
                "x-empty": [""],
                "trace-bin": ["[6 bytes in base64]"],
                "authorization": ["[Filtered]"],
                "x-ssn": ["[Filtered]"],
            });
            let shards = match kind {
                Kind::Unary => json!(["7"]),
                Kind::Stream => json!(["6", "7"]),
            };
            let answered = json!({
                "x-shard": shards,
                "cost-bin": ["[7 bytes in base64]"],
                "x-api-key": ["[Filtered]"],
                "x-ssn": ["[Filtered]"],
            });
            let case = format!("{side:?} {kind:?} {rate:?}");
            assert_eq!(of_event(received.only_event()), [sent, answered], "{case}");
            if rate == Some(1.0) {
                let expected = map([
                    (
                        "rpc.grpc.request.metadata.x_tenant",
                        json!(["acme", "other"]),
                    ),
                    ("rpc.grpc.request.metadata.x_empty", json!([""])),
                    (
                        "rpc.grpc.request.metadata.trace_bin",
                        json!(["[6 bytes in base64]"]),
                    ),
                    (
                        "rpc.grpc.request.metadata.authorization",
                        json!(["[Filtered]"]),
                    ),
                    ("rpc.grpc.request.metadata.x_ssn", json!(["[Filtered]"])),
                    ("rpc.grpc.response.metadata.x_shard", shards),
                    (
                        "rpc.grpc.response.metadata.cost_bin",
                        json!(["[7 bytes in base64]"]),
                    ),
                    (
                        "rpc.grpc.response.metadata.x_api_key",
                        json!(["[Filtered]"]),
                    ),
                    ("rpc.grpc.response.metadata.x_ssn", json!(["[Filtered]"])),
                ]);
                assert_eq!(attributes(&received), expected, "{case}");
            } else {
                assert_eq!(received.statuses(), [], "{case}");
            }
        }
    }
}

#[test]
fn with_personal_data_all_is_told_but_secrets() {
    for kind in KINDS {
        for side in on_both_sides!(|layer| {
            layer
                .capture_codes([Code::Internal])
                .request_metadata(keys(["x-tenant"]))
                .response_metadata(keys(["x-shard"]))
                .metadata_denylist(["ssn"])
        }) {
            let world = World::with_pii(Some(1.0), true);
            let greeter = failing(refusal).head(head());
            let call = side.call(greeter, kind, metadata(&SENT));
            world.run(call).unwrap_err();
            let received = world.received();
            let mut got = attributes(&received);
            without_foreign(&mut got);
            let shards = match kind {
                Kind::Unary => json!(["7"]),
                Kind::Stream => json!(["6", "7"]),
            };
            let tenants = json!(["acme", "other"]);
            let mut expected = map([
                ("rpc.grpc.request.metadata.x_tenant", tenants.clone()),
                ("rpc.request.metadata.x-tenant", tenants),
                ("rpc.request.metadata.x-empty", json!([""])),
                (
                    "rpc.request.metadata.trace-bin",
                    json!(["[6 bytes in base64]"]),
                ),
                ("rpc.request.metadata.authorization", json!(["[Filtered]"])),
                ("rpc.request.metadata.x-ssn", json!(["[Filtered]"])),
                ("rpc.request.metadata.x-person", json!(["Ferris"])),
                (
                    "rpc.request.metadata.x-person-bin",
                    json!(["[8 bytes in base64]"]),
                ),
                ("rpc.grpc.response.metadata.x_shard", shards.clone()),
                ("rpc.response.metadata.x-shard", shards),
                (
                    "rpc.response.metadata.cost-bin",
                    json!(["[7 bytes in base64]"]),
                ),
                ("rpc.response.metadata.x-api-key", json!(["[Filtered]"])),
                ("rpc.response.metadata.x-ssn", json!(["[Filtered]"])),
                ("rpc.response.metadata.x-person", json!(["Ferris"])),
            ]);
            if kind == Kind::Stream {
                let head = "rpc.response.metadata.x-head".to_owned();
                expected.insert(head, json!(["Ferris"]));
            }
            assert_eq!(got, expected, "{side:?} {kind:?}");
            let [sent, answered] = of_event(received.only_event());
            assert_eq!(sent["x-person"], json!(["Ferris"]));
            assert_eq!(sent["authorization"], json!(["[Filtered]"]));
            assert_eq!(answered["x-person"], json!(["Ferris"]));
            assert_eq!(answered["x-api-key"], json!(["[Filtered]"]));
        }
    }
}

#[test]
fn nothing_is_told_that_is_not_asked_for() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for side in on_both_sides!(|layer| layer.capture_codes([Code::Internal])) {
            let world = World::with_pii(rate, false);
            let call = async || {
                let greeter = failing(refusal).head(head());
                side.call(greeter, kind, metadata(&SENT)).await.unwrap_err();
            };
            world.run(call());
            let received = world.received();
            assert_eq!(of_event(received.only_event()), [Value::Null, Value::Null]);
            if rate == Some(1.0) {
                assert_eq!(attributes(&received), Data::new());
            }
            world.run(call());
            let written = world.written();
            for hidden in ["acme", "Ferris", "hidden", "x-tenant", "x-shard", "Zm91cg"] {
                assert!(!written.contains(hidden), "{hidden} in {written}");
            }
        }
    }
}

#[test]
fn success_tells_of_its_head() {
    for kind in KINDS {
        for side in allowing!() {
            let world = World::new();
            let greeter = Scripted::new().head(head());
            world
                .run(side.call(greeter, kind, MetadataMap::new()))
                .unwrap();
            let expected = map([("rpc.grpc.response.metadata.x_shard", json!(["6"]))]);
            assert_eq!(attributes(&world.received()), expected);
        }
    }
}

#[test]
fn a_stream_that_fails_before_its_head_tells_of_its_status() {
    for side in allowing!() {
        let world = World::new();
        let greeter = Scripted::new()
            .say_hello_stream(|_| async { Err(refusal()) })
            .head(head());
        let call = side.call(greeter, Kind::Stream, MetadataMap::new());
        world.run(call).unwrap_err();
        let received = world.received();
        let expected = map([
            ("rpc.grpc.response.metadata.x_shard", json!(["7"])),
            (
                "rpc.grpc.response.metadata.cost_bin",
                json!(["[7 bytes in base64]"]),
            ),
            (
                "rpc.grpc.response.metadata.x_api_key",
                json!(["[Filtered]"]),
            ),
            ("rpc.grpc.response.metadata.x_ssn", json!(["[Filtered]"])),
        ]);
        assert_eq!(attributes(&received), expected);
        let [sent, answered] = of_event(received.only_event());
        assert_eq!((sent, &answered["x-shard"]), (Value::Null, &json!(["7"])));
    }
}

#[test]
fn an_error_in_the_handler_tells_of_the_request_alone() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let [side, _] = allowing!();
        let world = World::rated(
            rate,
            |options| options,
            |layer| layer.deduplicate_errors(false),
        );
        let greeter = failing(|| {
            error!("on the way");
            refusal()
        });
        let sent = metadata(&[("x-tenant", "acme")]);
        world.run(side.call(greeter, kind, sent)).unwrap_err();
        let received = world.received();
        let [on_the_way, failure] = received.events.as_slice() else {
            panic!("{:?}", received.events)
        };
        let mut expected = json!({
            "system": "grpc",
            "service": "helloworld.Greeter",
            "method": kind.method(),
            "request_metadata": {"x-tenant": ["acme"]},
        });
        assert_eq!(rpc_context(on_the_way), expected);
        let answered = json!({
            "x-shard": ["7"],
            "cost-bin": ["[7 bytes in base64]"],
            "x-api-key": ["[Filtered]"],
            "x-ssn": ["[Filtered]"],
        });
        for (key, value) in [
            ("kind", json!("server")),
            ("status", json!("INTERNAL")),
            ("status_code", json!(13)),
            ("message", json!("refused")),
            ("response_metadata", answered),
        ] {
            expected[key] = value;
        }
        assert_eq!(rpc_context(failure), expected);
    }
}

#[test]
fn a_panic_tells_of_the_request() {
    for kind in KINDS {
        let [side, _] = allowing!();
        let world = World::new();
        let greeter = failing(|| panic!("boom"));
        let sent = metadata(&[("x-tenant", "acme")]);
        world.run(side.call(greeter, kind, sent)).unwrap_err();
        let received = world.received();
        let expected = [json!({"x-tenant": ["acme"]}), Value::Null];
        assert_eq!(of_event(received.only_event()), expected);
        let expected = map([("rpc.grpc.request.metadata.x_tenant", json!(["acme"]))]);
        assert_eq!(attributes(&received), expected);
    }
}

/// One that is marked, under the key `x-marked`.
fn marked() -> MetadataMap {
    let mut value = HeaderValue::from_static("hidden");
    value.set_sensitive(true);
    MetadataMap::from_headers([("x-marked".parse().unwrap(), value)].into_iter().collect())
}

#[test]
fn what_is_marked_as_sensitive_is_filtered() {
    for (pii, kind) in [
        (false, Kind::Unary),
        (true, Kind::Unary),
        (true, Kind::Stream),
    ] {
        // Of a client the request, and of a server the response: the wire does not
        // tell.
        for side in on_both_sides!(|layer| {
            layer
                .request_metadata(keys(["x-marked"]))
                .response_metadata(keys(["x-marked"]))
        }) {
            let world = World::with_pii(Some(1.0), pii);
            let (sent, answered) = match side.is_server() {
                true => (MetadataMap::new(), marked()),
                false => (marked(), MetadataMap::new()),
            };
            let greeter =
                failing(move || Status::with_metadata(Code::Internal, "refused", answered.clone()));
            world.run(side.call(greeter, kind, sent)).unwrap_err();
            let mut got = attributes(&world.received());
            without_foreign(&mut got);
            assert_eq!(got.len(), if pii { 2 } else { 1 });
            assert!(
                got.values().all(|value| *value == json!(["[Filtered]"])),
                "{got:?}"
            );
        }
    }
}

#[test]
fn what_a_layer_marks_on_its_way_in_is_filtered() {
    let world = World::with_pii(Some(1.0), true);
    world.run(async {
        let mark = |mut request: http::Request<Body>| {
            if let Some(value) = request.headers_mut().get_mut("x-person") {
                value.set_sensitive(true);
            }
            request
        };
        let (listening, incoming, stopped) = listen().await;
        let server = Server::builder()
            .layer(MapRequestLayer::new(mark))
            .layer(SentryServerLayer::new())
            .add_service(GreeterServer::new(Scripted::new()))
            .serve_with_incoming_shutdown(incoming, stopped);
        let server = listening.running(tokio::spawn(server));
        let mut client = server.client().await;
        let sent = metadata(&[("x-person", "Ferris"), ("x-place", "sea")]);
        let request = tonic::Request::from_parts(sent, Default::default(), request("a"));
        client.say_hello(request).await.unwrap();
        drop(client);
        server.stop().await;
    });
    let mut got = attributes(&world.received());
    without_foreign(&mut got);
    let expected = map([
        ("rpc.request.metadata.x-person", json!(["[Filtered]"])),
        ("rpc.request.metadata.x-place", json!(["sea"])),
    ]);
    assert_eq!(got, expected);
}

#[test]
fn what_is_sent_is_bounded() {
    for side in on_both_sides!(|layer| layer.request_metadata(keys(["x-many", "x-long"]))) {
        let world = World::new();
        let many: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let long = "v".repeat(5_000);
        let entries = many.iter().map(|value| ("x-many", value.as_str()));
        let entries: Vec<_> = entries.chain([("x-long", long.as_str())]).collect();
        let call = side.call(Scripted::new(), Kind::Unary, metadata(&entries));
        world.run(call).unwrap();
        let expected = map([
            ("rpc.grpc.request.metadata.x_many", json!(many[..16])),
            (
                "rpc.grpc.request.metadata.x_long",
                json!(["v".repeat(1024)]),
            ),
        ]);
        assert_eq!(attributes(&world.received()), expected);
    }
}

#[test]
fn a_call_in_a_handler_has_metadata_of_its_own() {
    let world = World::new();
    world.run(async {
        let upstream = Scripted::new().head(metadata(&[("x-shard", "up")]));
        let (upstream, _arrivals) = upstream.serve_unobserved().await;
        let [_, Observed::Client(layer)] = allowing!() else {
            unreachable!()
        };
        let client = upstream.observed_client(layer).await;
        let greeter = Scripted::new().say_hello(move |name| {
            let mut client = client.clone();
            async move {
                let sent = metadata(&[("x-tenant", "inner")]);
                Kind::Stream.call(&mut client, sent).await?;
                Ok(reply(&name))
            }
        });
        let [side, _] = allowing!();
        let sent = metadata(&[("x-tenant", "outer")]);
        side.call(greeter, Kind::Unary, sent).await.unwrap();
        upstream.stop().await;
    });
    let received = world.received();
    let outer = map([("rpc.grpc.request.metadata.x_tenant", json!(["outer"]))]);
    assert_eq!(attributes(&received), outer);
    let [inner] = received.only_transaction().spans.as_slice() else {
        panic!("{:?}", received.txs())
    };
    let inner = inner.data.clone().into_iter().collect();
    assert_eq!(
        with_prefixes(&inner, &["rpc.grpc.re"]),
        map([
            ("rpc.grpc.request.metadata.x_tenant", json!(["inner"])),
            ("rpc.grpc.response.metadata.x_shard", json!(["up"])),
        ])
    );
}
