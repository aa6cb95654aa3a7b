//! Parameters of calls, as fields of spans tell them.

use std::fmt;

use sentry::protocol::{Event, Transaction, Value};
use serde_json::json;
use tokio::task::yield_now;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tracing::field::Empty;
use tracing::{Instrument, Span, error, info_span, instrument};

use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentryTracingLayer};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::observed::{KINDS, Kind, Observed, failing};
use crate::support::received::{Data, Received, event_trace, map, trace, with_prefixes};
use crate::support::world::{RATES, World};

/// Shown in one way, and debugged in another.
struct Table;

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("users")
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table { users }")
    }
}

#[instrument(skip_all, fields(
    rpc.param.table = name,
    rpc.param.page = 7,
    rpc.param.offset = -7_i64,
    rpc.param.ratio = 0.5,
    rpc.param.all = true,
    rpc.param.shown = %Table,
    rpc.param.printed = ?Table,
    rpc.param.later = Empty,
    rpc.param.never = Empty,
    rpc.param.api_key = "hidden",
    rpc.param.session_token = 7,
    of_the_span = name,
))]
fn query(name: &str) {
    Span::current().record("rpc.param.later", "recorded");
}

fn of_query() -> Data {
    map([
        ("rpc.param.table", json!("users")),
        ("rpc.param.page", json!(7)),
        ("rpc.param.offset", json!(-7)),
        ("rpc.param.ratio", json!(0.5)),
        ("rpc.param.all", json!(true)),
        ("rpc.param.shown", json!("users")),
        ("rpc.param.printed", json!("Table { users }")),
        ("rpc.param.later", json!("recorded")),
        ("rpc.param.api_key", json!("[Filtered]")),
        ("rpc.param.session_token", json!("[Filtered]")),
    ])
}

/// Those of the only transaction, on whose spans are none.
#[track_caller]
fn of_transaction(received: &Received) -> Data {
    for span in &received.only_transaction().spans {
        let data = span.data.clone().into_iter().collect();
        assert_eq!(with_prefixes(&data, &["rpc.param."]), Data::new());
    }
    with_prefixes(&received.only_tx().data, &["rpc.param."])
}

fn server() -> Observed {
    Observed::Server(SentryServerLayer::new())
}

/// A call of a handler that does `act` and fails.
fn handle(world: &World, kind: Kind, act: impl Fn() + Send + Sync + 'static) {
    let greeter = failing(move || {
        act();
        Status::internal("failed")
    });
    let call = server();
    let call = call.call(greeter, kind, MetadataMap::new());
    world.run(call).unwrap_err();
}

fn sampled(layer: impl FnOnce(SentryTracingLayer) -> SentryTracingLayer) -> World {
    World::rated(Some(1.0), |options| options, layer)
}

#[test]
fn fields_of_any_kind_stand_on_the_span_of_the_call() {
    for kind in KINDS {
        let world = World::new();
        handle(&world, kind, || {
            info_span!("outer").in_scope(|| query("users"));
        });
        let received = world.received();
        assert_eq!(of_transaction(&received), of_query());
        let [query, outer] = received.only_transaction().spans.as_slice() else {
            panic!("{:?}", received.txs())
        };
        assert_eq!(query.data["of_the_span"], "users");
        assert_eq!(outer.description.as_deref(), Some("outer"));
        // No parameter is told by an event that was not asked to.
        assert_eq!(tags(received.only_event()), []);
    }
}

#[test]
fn of_two_values_the_last_one_counts() {
    let world = World::new();
    handle(&world, Kind::Unary, || {
        query("places");
        query("users");
        let span = info_span!("again", rpc.param.page = 8);
        span.record("rpc.param.page", 9);
        span.in_scope(|| {});
        span.record("rpc.param.page", 10);
    });
    let mut expected = of_query();
    expected.insert("rpc.param.page".to_owned(), json!(10));
    assert_eq!(of_transaction(&world.received()), expected);
}

#[test]
fn a_span_that_is_never_entered_tells_them_too() {
    let world = World::new();
    handle(&world, Kind::Unary, || {
        drop(info_span!("idle", rpc.param.table = "users"));
    });
    let expected = map([("rpc.param.table", json!("users"))]);
    assert_eq!(of_transaction(&world.received()), expected);
}

async fn tells_in_tasks(name: String) -> Result<crate::support::helloworld::HelloReply, Status> {
    let in_current = async {
        yield_now().await;
        info_span!("a", rpc.param.a = 1).in_scope(|| {});
    };
    let in_own = async {
        yield_now().await;
        Span::current().record("rpc.param.b", 2);
    };
    let own = info_span!("b", rpc.param.b = Empty);
    let tasks = [
        tokio::spawn(in_current.in_current_span()),
        tokio::spawn(in_own.instrument(own)),
    ];
    for task in tasks {
        task.await.unwrap();
    }
    Ok(reply(&name))
}

#[test]
fn tasks_of_a_call_tell_of_the_call() {
    for threads in [None, Some(2)] {
        let world = World::new();
        let call = async {
            let greeter = Scripted::new().say_hello(tells_in_tasks);
            greeter.say_hello_once("a").await.unwrap();
        };
        match threads {
            None => world.run(call),
            Some(threads) => world.run_threads(threads, call),
        }
        let expected = map([("rpc.param.a", json!(1)), ("rpc.param.b", json!(2))]);
        assert_eq!(of_transaction(&world.received()), expected);
    }
}

#[test]
fn without_a_call_around_they_stand_on_their_span() {
    let world = World::new();
    world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let mut client = server.observed_client(SentryClientLayer::new()).await;
        let job = info_span!("job", rpc.param.job = 1);
        let call = async {
            query("users");
            client.say_hello(request("a")).await.unwrap();
        };
        call.instrument(job).await;
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    let of = |data: &Data| with_prefixes(data, &["rpc.param."]);
    let expected = map([("rpc.param.job", json!(1))]);
    assert_eq!(of(&received.only_tx().data), expected);
    let spans = received.only_transaction().spans.iter();
    let of_spans: Vec<_> = spans
        .map(|span| of(&span.data.clone().into_iter().collect()))
        .collect();
    assert_eq!(of_spans, [of_query(), Data::new()]);
}

/// Those that parameters became.
fn tags(event: &Event<'_>) -> Vec<(String, String)> {
    let tags = event.tags.clone().into_iter();
    tags.filter(|(key, _)| key.starts_with("rpc.param."))
        .collect()
}

#[test]
fn some_are_tags_of_the_transaction_and_of_errors() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let world = World::rated(
            rate,
            |options| options,
            |layer| {
                layer
                    .tag_params([
                        "table", "page", "all", "printed", "later", "api_key", "long",
                    ])
                    .deduplicate_errors(false)
            },
        );
        handle(&world, kind, || {
            error!("before them");
            query("users");
            let long = "é".repeat(300);
            info_span!("long", rpc.param.long = long).in_scope(|| error!("after them"));
        });
        let received = world.received();
        let expected = map([
            ("rpc.param.all", "true".to_owned()),
            ("rpc.param.api_key", "[Filtered]".to_owned()),
            ("rpc.param.later", "recorded".to_owned()),
            ("rpc.param.long", "é".repeat(200)),
            ("rpc.param.page", "7".to_owned()),
            ("rpc.param.printed", "Table { users }".to_owned()),
            ("rpc.param.table", "users".to_owned()),
        ]);
        let expected: Vec<_> = expected.into_iter().collect();
        let of_events: Vec<_> = received.events.iter().map(tags).collect();
        assert_eq!(of_events, [vec![], expected.clone(), expected.clone()]);
        match rate {
            Some(1.0) => {
                let tags: Vec<_> = received.only_tx().tags.into_iter().collect();
                assert_eq!(tags, expected);
                let transaction = trace(received.only_transaction());
                assert_eq!(
                    event_trace(&received.events[2]).span_id,
                    transaction.span_id
                );
            }
            _ => assert_eq!(received.statuses(), []),
        }
    }
}

#[test]
fn a_tag_of_the_handlers_own_outranks_that_of_a_parameter() {
    let world = sampled(|layer| layer.tag_params(["table"]));
    handle(&world, Kind::Unary, || {
        query("users");
        sentry::configure_scope(|scope| scope.set_tag("rpc.param.table", "own"));
    });
    let received = world.received();
    let own = vec![("rpc.param.table".to_owned(), "own".to_owned())];
    assert_eq!(tags(received.only_event()), own);
    assert_eq!(received.only_tx().tags.into_iter().collect::<Vec<_>>(), own);
}

#[instrument(skip_all, fields(rpc.param.password = "hidden", rpc.param.table = "users"))]
fn log_in() {}

fn logged_in(layer: impl FnOnce(SentryTracingLayer) -> SentryTracingLayer) -> (World, Data) {
    let world = sampled(layer);
    handle(&world, Kind::Unary, log_in);
    let data = of_transaction(&world.received());
    (world, data)
}

fn password_and_table(password: impl Into<Value>, table: impl Into<Value>) -> Data {
    map([
        ("rpc.param.password", password.into()),
        ("rpc.param.table", table.into()),
    ])
}

#[test]
fn a_redactor_of_the_applications_own_replaces_the_rule() {
    let (_, data) = logged_in(|layer| {
        layer.param_redactor(|name, value| match name {
            "table" => "a table".into(),
            _ => value,
        })
    });
    assert_eq!(data, password_and_table("hidden", "a table"));
    let (_, data) = logged_in(|layer| layer.redact_params(false));
    assert_eq!(data, password_and_table("hidden", "users"));
}

#[test]
fn a_redactor_that_panics_or_makes_nonsense_tells_nothing_and_harms_nothing() {
    let (world, data) = logged_in(|layer| {
        let layer = layer.tag_params(["password", "table"]);
        layer.param_redactor(|name, value| match name {
            "password" => panic!("a bad redactor"),
            _ => json!([value]),
        })
    });
    assert_eq!(data, password_and_table("[Filtered]", "[Filtered]"));
    handle(&world, Kind::Stream, log_in);
    let written = world.written();
    assert!(written.contains("[Filtered]"));
    assert!(!written.contains("hidden") && !written.contains("\"users\""));
}

#[test]
fn a_redactor_may_trace_and_capture() {
    let (world, data) = logged_in(|layer| {
        layer.param_redactor(|_, value| {
            error!("in the redactor");
            info_span!("of the redactor", rpc.param.more = 1).in_scope(|| {});
            sentry::configure_scope(|scope| scope.set_tag("by", "redactor"));
            value
        })
    });
    assert_eq!(data, password_and_table("hidden", "users"));
    assert_eq!(world.received().statuses(), []);
}

/// Prints a megabyte, and then panics.
struct Endless;

impl fmt::Debug for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for _ in 0..1 << 19 {
            f.write_str("é")?;
        }
        panic!("printed to the end")
    }
}

#[test]
fn long_values_are_cut() {
    for (max, expected) in [(None, 512), (Some(11), 5), (Some(0), 0)] {
        let world = sampled(|layer| match max {
            Some(max) => layer.max_param_len(max).tag_params(["printed"]),
            None => layer.tag_params(["printed"]),
        });
        handle(&world, Kind::Unary, || {
            let text = "é".repeat(1 << 19);
            let span = info_span!(
                "query",
                rpc.param.printed = ?Endless,
                rpc.param.text = text,
                rpc.param.shown = %text,
                rpc.param.later = Empty,
            );
            span.record("rpc.param.later", tracing::field::debug(Endless));
        });
        let received = world.received();
        let cut = "é".repeat(expected);
        let of_max = map([
            ("rpc.param.printed", json!(cut)),
            ("rpc.param.text", json!(cut)),
            ("rpc.param.shown", json!(cut)),
            ("rpc.param.later", json!(cut)),
        ]);
        assert_eq!(of_transaction(&received), of_max);
        let tag = received.only_event().tags.get("rpc.param.printed").cloned();
        let expected = (expected > 0).then(|| "é".repeat(expected.min(200)));
        assert_eq!(tag, expected);
    }
}

#[test]
fn each_call_has_its_own() {
    let world = sampled(|layer| layer.tag_params(["name"]));
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            let query = async {
                yield_now().await;
                error!("failed");
            };
            query
                .instrument(info_span!("query", rpc.param.name = name))
                .await;
            Ok(reply(&name))
        });
        server()
            .run(greeter, async |client| {
                let calls = (0..50).map(|i| {
                    let mut client = client.clone();
                    let call = async move { client.say_hello(request(&i.to_string())).await };
                    tokio::spawn(call)
                });
                for call in calls.collect::<Vec<_>>() {
                    call.await.unwrap().unwrap();
                }
            })
            .await;
    });
    let received = world.received();
    let of_span = |one: &Transaction<'_>| {
        let name = trace(one).data["rpc.param.name"].clone();
        (one.spans[0].span_id, name)
    };
    let told: Vec<_> = received.transactions.iter().map(of_span).collect();
    for i in 0..50 {
        let name = json!(i.to_string());
        assert_eq!(told.iter().filter(|(_, told)| *told == name).count(), 1);
    }
    for event in &received.events {
        let [(_, name)] = tags(event).try_into().unwrap();
        assert!(told.contains(&(event_trace(event).span_id, json!(name))));
    }
    assert_eq!(received.events.len(), 50);
}
