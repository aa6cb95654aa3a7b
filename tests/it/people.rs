//! Who makes a call.

use http::request::Parts;
use sentry::Level;
use sentry::protocol::{Event, Map, User};
use serde_json::json;
use tokio::task::{JoinSet, yield_now};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::{error, info, info_span, instrument};

use sentry_tonic::{CallerIdentity, SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::observed::{KINDS, Kind, Observed, failing, metadata, on_both_sides};
use crate::support::received::{map, messages, trace};
use crate::support::world::{RATES, World};

type Tags = Vec<(String, String)>;

fn tags<'a>(tags: impl IntoIterator<Item = (&'static str, &'a str)>) -> Tags {
    let tags = tags.into_iter().map(|(key, value)| (key, value.to_owned()));
    map(tags).into_iter().collect()
}

/// But for those that each event of a call has.
fn tags_of(event: &Event<'_>) -> Tags {
    let tags = event.tags.clone().into_iter();
    tags.filter(|(key, _)| !key.starts_with("rpc.")).collect()
}

fn user(id: &str, email: &str) -> User {
    User {
        id: Some(id.to_owned()),
        email: Some(email.to_owned()),
        ..User::default()
    }
}

fn header(parts: &Parts, name: &str) -> String {
    let value = parts
        .headers
        .get(name)
        .and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// Knows callers by what they send.
fn knowing() -> SentryServerLayer {
    SentryServerLayer::new()
        .identify_caller(|parts| {
            CallerIdentity::from(user("u-1", "a@b.example"))
                .tag("tenant", header(parts, "x-tenant"))
                .tag("path", parts.uri.path())
                .tag("not a key", "left out")
                .auth_domain("staff")
                .authenticated(true)
                .claim("plan", "gold")
                .claim("org", 7)
                .claim("untold", "hidden")
        })
        .claims([
            ("plan", "billing.plan"),
            ("missing", "missing"),
            ("org", "user.org"),
            ("plan", "user.username"),
        ])
}

fn known_user() -> User {
    User {
        username: Some("gold".to_owned()),
        other: Map::from([("org".to_owned(), json!("7"))]),
        ..user("u-1", "a@b.example")
    }
}

fn known_tags(kind: Kind) -> Tags {
    tags([
        ("auth.authenticated", "true"),
        ("auth.domain", "staff"),
        ("billing.plan", "gold"),
        ("path", &format!("/helloworld.Greeter/{}", kind.method())),
        ("tenant", "acme"),
    ])
}

/// Calls a handler that does `act` and fails.
fn handle(
    world: &World,
    layer: SentryServerLayer,
    kind: Kind,
    act: impl Fn() + Send + Sync + 'static,
) {
    let greeter = failing(move || {
        act();
        Status::internal("failed")
    });
    let side = Observed::Server(layer);
    let call = side.call(greeter, kind, metadata(&[("x-tenant", "acme")]));
    world.run(call).unwrap_err();
}

/// Where each failure is told as often as it is told of.
fn world(rate: Option<f32>) -> World {
    World::rated(
        rate,
        |options| options,
        |layer| layer.deduplicate_errors(false),
    )
}

#[test]
fn the_caller_is_known_to_the_transaction_and_to_all_errors() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let world = world(rate);
        handle(&world, knowing(), kind, || {
            error!("in the handler");
            info_span!("inside").in_scope(|| {
                sentry::capture_message("in a span", Level::Error);
            });
        });
        let received = world.received();
        assert_eq!(received.events.len(), 3);
        for event in &received.events {
            assert_eq!(event.user, Some(known_user()), "{kind:?} {rate:?}");
            assert_eq!(tags_of(event), known_tags(kind), "{kind:?} {rate:?}");
        }
        if rate == Some(1.0) {
            let transaction = received.only_transaction();
            assert_eq!(transaction.user, Some(known_user()));
            let tags: Tags = received.only_tx().tags.into_iter().collect();
            assert_eq!(tags, known_tags(kind));
        } else {
            assert_eq!(received.statuses(), []);
        }
    }
}

#[test]
fn the_scope_of_the_handler_outranks() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let world = world(rate);
        let layer = knowing().tag("tenant", "of the layer");
        handle(&world, layer, kind, || {
            sentry::configure_scope(|scope| {
                scope.set_user(Some(user("own", "own@b.example")));
                scope.set_tag("tenant", "own");
            });
            error!("in the handler");
        });
        let received = world.received();
        let mut expected = known_tags(kind);
        expected.retain(|(key, _)| key != "tenant");
        expected.push(("tenant".to_owned(), "own".to_owned()));
        assert_eq!(received.events.len(), 2);
        for event in &received.events {
            assert_eq!(event.user, Some(user("own", "own@b.example")));
            assert_eq!(tags_of(event), expected);
        }
        for transaction in &received.transactions {
            assert_eq!(transaction.user, Some(user("own", "own@b.example")));
            let tags: Tags = transaction.tags.clone().into_iter().collect();
            assert_eq!(tags, expected);
        }
    }
}

#[instrument(skip_all, fields(user.id = "f-1", user.name = %"Ferris", user.email = "f@b.example"))]
fn looked_up() {
    error!("in the handler");
}

#[test]
fn fields_tell_what_nobody_else_does() {
    let of_fields = User {
        username: Some("Ferris".to_owned()),
        ..user("f-1", "f@b.example")
    };
    let merged = User {
        username: Some("Ferris".to_owned()),
        ..user("u-1", "f@b.example")
    };
    let only_id = || {
        SentryServerLayer::new().identify_caller(|_| {
            CallerIdentity::from(User {
                id: Some("u-1".to_owned()),
                ..User::default()
            })
        })
    };
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (layer, expected) in [(SentryServerLayer::new(), &of_fields), (only_id(), &merged)] {
            let world = world(rate);
            handle(&world, layer, kind, looked_up);
            let received = world.received();
            assert_eq!(received.events.len(), 2);
            for event in &received.events {
                assert_eq!(event.user.as_ref(), Some(expected));
            }
            for transaction in &received.transactions {
                assert_eq!(transaction.user.as_ref(), Some(expected));
                assert_eq!(transaction.spans[0].data["user.id"], json!("f-1"));
            }
            assert_eq!(received.transactions.len(), usize::from(rate == Some(1.0)));
        }
    }
}

#[test]
fn nobody_is_known_of_a_closure_that_panics() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let world = world(rate);
        let layer = SentryServerLayer::new().identify_caller(|_| panic!("a bad closure"));
        handle(&world, layer, kind, || {});
        let received = world.received();
        let event = received.only_event();
        assert_eq!((event.user.clone(), tags_of(event)), (None, vec![]));
        assert_eq!(received.transactions.len(), usize::from(rate == Some(1.0)));
    }
}

#[test]
fn nonsense_is_bounded_or_left_out() {
    let huge = || {
        let other = (0..1000).map(|i| (format!("key-{i:04}"), json!("x".repeat(2000))));
        User {
            id: Some("é".repeat(1 << 20)),
            email: Some(String::new()),
            other: other.collect(),
            ..User::default()
        }
    };
    let layer = SentryServerLayer::new().identify_caller(move |_| {
        let caller = CallerIdentity::from(huge())
            .tag("", "no key")
            .tag("empty", "");
        let caller = caller.tag("long", "é".repeat(1000)).tag("lines", "a\nb");
        (0..1000).fold(caller, |caller, i| caller.tag(&format!("tag-{i:04}"), i))
    });
    let world = World::new();
    handle(&world, layer, Kind::Unary, || {});
    let received = world.received();
    let event = received.only_event();
    let user = event.user.clone().unwrap();
    assert_eq!((user.id, user.email), (Some("é".repeat(512)), None));
    assert_eq!(user.other.len(), 32);
    assert_eq!(user.other["key-0031"], json!("x".repeat(1024)));
    let tags = tags_of(event);
    assert_eq!(tags.len(), 64);
    assert_eq!(tags[0], ("lines".to_owned(), "a b".to_owned()));
    assert_eq!(tags[1], ("long".to_owned(), "é".repeat(200)));
    assert_eq!(tags[63], ("tag-0061".to_owned(), "61".to_owned()));
}

#[test]
fn a_user_that_says_nothing_is_none() {
    let empty = User {
        id: Some(String::new()),
        ..User::default()
    };
    let world = World::new();
    let layer =
        SentryServerLayer::new().identify_caller(move |_| CallerIdentity::from(empty.clone()));
    handle(&world, layer, Kind::Unary, || {});
    let received = world.received();
    assert_eq!(received.only_event().user, None);
    assert_eq!(received.only_transaction().user, None);
}

#[test]
fn a_layer_has_tags_of_its_own() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for side in on_both_sides!(|layer| {
            layer
                .capture_codes([Code::Internal])
                .tag("layer", "a")
                .tag("count", 7)
                .tag("no key", "left out")
                .tag("empty", "")
        }) {
            let world = World::with_pii(rate, false);
            let greeter = failing(|| Status::internal("failed"));
            let call = side.call(greeter, kind, MetadataMap::new());
            world.run(call).unwrap_err();
            let received = world.received();
            let expected = tags([("count", "7"), ("layer", "a")]);
            assert_eq!(tags_of(received.only_event()), expected);
            if rate == Some(1.0) {
                let tags: Tags = received.only_tx().tags.into_iter().collect();
                assert_eq!(tags, expected);
            }
        }
    }
}

/// Without the client's tags on the call around it.
#[test]
fn a_call_in_a_handler_has_tags_of_its_own() {
    let world = World::new();
    world.run(async {
        let (upstream, _arrivals) = failing(|| Status::not_found("gone"))
            .serve_unobserved()
            .await;
        let layer = SentryClientLayer::new()
            .tag("layer", "client")
            .capture_codes([Code::NotFound]);
        let client = upstream.observed_client(layer).await;
        let greeter = Scripted::new().say_hello(move |name| {
            let mut client = client.clone();
            async move {
                client.say_hello(request("b")).await.unwrap_err();
                error!("in the handler");
                Ok(reply(&name))
            }
        });
        let side = Observed::Server(knowing());
        let sent = metadata(&[("x-tenant", "acme")]);
        side.call(greeter, Kind::Unary, sent).await.unwrap();
        upstream.stop().await;
    });
    let received = world.received();
    let of_handler = known_tags(Kind::Unary);
    let mut of_client = of_handler.clone();
    of_client.insert(3, ("layer".to_owned(), "client".to_owned()));
    let events: Vec<_> = received.events.iter().map(tags_of).collect();
    assert_eq!(events, [of_client, of_handler.clone()]);
    let of_transaction: Tags = received.only_tx().tags.into_iter().collect();
    assert_eq!(of_transaction, of_handler);
    let span = &received.only_transaction().spans[0];
    assert_eq!(span.tags["layer"], "client");
    assert_eq!(received.events[0].user, Some(known_user()));
}

/// A handler that leaves its name everywhere, and fails.
async fn leave(name: String) -> Result<crate::support::helloworld::HelloReply, Status> {
    sentry::configure_scope(|scope| scope.set_tag("own", &name));
    info!("breadcrumb of {name}");
    yield_now().await;
    sentry::add_breadcrumb(sentry::Breadcrumb {
        message: Some(format!("and of {name}")),
        ..sentry::Breadcrumb::default()
    });
    yield_now().await;
    Err(Status::internal(name))
}

async fn calls(count: usize) {
    let layer = SentryServerLayer::new()
        .max_events_per_minute(None)
        .identify_caller(|parts| {
            let id = header(parts, "x-id");
            CallerIdentity::from(user(&id, "a@b.example")).tag("caller", id)
        });
    let server = Scripted::new().say_hello(leave).serve_with(layer).await;
    let client = server.client().await;
    let mut calls = JoinSet::new();
    for i in 0..count {
        let mut client = client.clone();
        let name = i.to_string();
        let sent = metadata(&[("x-id", &name)]);
        let request = tonic::Request::from_parts(sent, Default::default(), request(&name));
        calls.spawn(async move { client.say_hello(request).await.unwrap_err() });
    }
    calls.join_all().await;
    drop(client);
    server.stop().await;
}

#[test]
fn a_thousand_calls_at_once_share_nothing() {
    const COUNT: usize = 1000;
    for rate in RATES {
        let world = World::with_pii(rate, false);
        world.run_threads(2, calls(COUNT));
        let received = world.received();
        let mut names: Vec<String> = (0..COUNT).map(|i| i.to_string()).collect();
        names.sort();
        let mut told = Vec::new();
        for event in &received.events {
            let name = event.tags["own"].clone();
            assert_eq!(
                tags_of(event),
                tags([("caller", name.as_str()), ("own", &name)])
            );
            assert_eq!(event.user, Some(user(&name, "a@b.example")));
            let breadcrumbs = [format!("breadcrumb of {name}"), format!("and of {name}")];
            assert_eq!(messages(&event.breadcrumbs), breadcrumbs);
            assert_eq!(
                event.exception.values[0].value.as_deref(),
                Some(name.as_str())
            );
            told.push(name);
        }
        told.sort();
        assert_eq!(told, names);
        let mut told = Vec::new();
        for transaction in &received.transactions {
            let name = transaction.tags["own"].clone();
            let of_transaction: Tags = transaction.tags.clone().into_iter().collect();
            assert_eq!(
                of_transaction,
                tags([("caller", name.as_str()), ("own", &name)])
            );
            assert_eq!(transaction.user, Some(user(&name, "a@b.example")));
            assert_eq!(
                trace(transaction).data["otel.status_description"],
                json!(name)
            );
            told.push(name);
        }
        told.sort();
        match rate {
            Some(1.0) => assert_eq!(told, names),
            _ => assert_eq!(told, [""; 0]),
        }
    }
}
