//! What belongs to one RPC stays in it and is everywhere in it: across awaits,
//! threads and tasks.

use std::sync::Arc;

use sentry::protocol::{Event, SpanStatus};
use sentry::{Hub, Level};
use tokio::task::yield_now;
use tonic::Status;
use tracing::{info, instrument};

use sentry_tonic::SentryServerLayer;
use tower::Layer;

use crate::support::greeter::{Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::received::{event_trace, messages, trace};
use crate::support::world::World;

pub(crate) fn tag<'a>(
    tags: &'a sentry::protocol::Map<String, String>,
    key: &str,
) -> Option<&'a str> {
    tags.get(key).map(String::as_str)
}

#[instrument(target = "test")]
async fn nested(name: &str) {
    sentry::configure_scope(|scope| scope.set_tag(&format!("of-{name}"), name));
    sentry::add_breadcrumb(sentry::Breadcrumb {
        message: Some(format!("by sentry, of {name}")),
        ..Default::default()
    });
    info!(target: "test", "by tracing, of {name}");
    yield_now().await;
}

/// A handler that leaves its name behind, and fails after some awaits.
async fn handler(name: String) -> Result<crate::support::helloworld::HelloReply, Status> {
    nested(&name).await;
    yield_now().await;
    sentry::capture_message(&format!("error of {name}"), Level::Error);
    Err(Status::aborted(name))
}

type Story = (String, Vec<(String, String)>, Vec<String>);

/// All that an event says of the RPC it is from.
fn story(event: &Event<'static>) -> Story {
    let breadcrumbs = messages(&event.breadcrumbs).into_iter();
    (
        event.message.clone().unwrap(),
        tags(&event.tags),
        breadcrumbs.map(str::to_owned).collect(),
    )
}

pub(crate) fn tags(tags: &sentry::protocol::Map<String, String>) -> Vec<(String, String)> {
    tags.clone().into_iter().collect()
}

fn own_tag(name: &str) -> (String, String) {
    (format!("of-{name}"), name.to_owned())
}

fn expected_story(name: &str) -> Story {
    let text = |text: &str| text.to_owned();
    (
        format!("error of {name}"),
        vec![
            own_tag(name),
            (text("rpc.method"), text("SayHello")),
            (text("rpc.service"), text("helloworld.Greeter")),
        ],
        vec![
            format!("by sentry, of {name}"),
            format!("by tracing, of {name}"),
        ],
    )
}

#[test]
fn what_a_nested_function_writes_is_the_rpcs() {
    for rate in [1.0, 0.0] {
        let world = World::sampled(rate);
        world.run(async {
            Scripted::new()
                .say_hello(handler)
                .say_hello_once("a")
                .await
                .unwrap_err();
        });
        let received = world.received();
        let event = received.only_event();
        assert_eq!(story(event), expected_story("a"));
        assert_eq!(
            event.transaction.as_deref(),
            Some("/helloworld.Greeter/SayHello")
        );
        assert!(event.contexts.contains_key("rpc"));
        assert_eq!(received.transactions.len(), usize::from(rate > 0.0));
        for transaction in &received.transactions {
            assert_eq!(tags(&transaction.tags), [own_tag("a")]);
            assert_eq!(trace(transaction).status, Some(SpanStatus::Aborted));
            assert_eq!(trace(transaction).trace_id, event_trace(event).trace_id);
        }
    }
}

/// Calls with many names at once, over one connection.
async fn interleaved(count: usize) {
    let server = Scripted::new().say_hello(handler).serve().await;
    let client = server.client().await;
    let calls: Vec<_> = (0..count)
        .map(|n| {
            let mut client = client.clone();
            tokio::spawn(async move {
                client.say_hello(request(&n.to_string())).await.unwrap_err();
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    drop(client);
    server.stop().await;
}

#[test]
fn rpcs_share_nothing() {
    const COUNT: usize = 60;
    for (rate, threads) in [(1.0, None), (1.0, Some(3)), (0.0, None), (0.0, Some(3))] {
        let world = World::sampled(rate);
        match threads {
            None => world.run(interleaved(COUNT)),
            Some(threads) => world.run_threads(threads, interleaved(COUNT)),
        }
        let received = world.received();
        let mut names: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
        names.sort();
        let mut stories: Vec<_> = received.events.iter().map(story).collect();
        stories.sort();
        let expected: Vec<_> = names.iter().map(|name| expected_story(name)).collect();
        assert_eq!(stories, expected);

        let mut traces: Vec<_> = received
            .events
            .iter()
            .map(|event| event_trace(event).trace_id.to_string())
            .collect();
        if rate > 0.0 {
            let mut own: Vec<_> = received
                .transactions
                .iter()
                .map(|t| tags(&t.tags))
                .collect();
            own.sort();
            let expected: Vec<_> = names.iter().map(|name| vec![own_tag(name)]).collect();
            assert_eq!(own, expected);
            for transaction in &received.transactions {
                let of_mine = received.events.iter().filter(|event| {
                    event_trace(event).trace_id == trace(transaction).trace_id
                        && transaction
                            .tags
                            .iter()
                            .all(|(key, value)| event.tags.get(key) == Some(value))
                });
                assert_eq!(of_mine.count(), 1);
            }
        }
        traces.sort();
        traces.dedup();
        assert_eq!(traces.len(), COUNT, "trace ids are shared");
    }
}

#[test]
fn back_to_back_rpcs_share_nothing() {
    let world = World::new();
    world.run(async {
        let server = Scripted::new().say_hello(handler).serve().await;
        let mut client = server.client().await;
        for name in ["a", "b"] {
            client.say_hello(request(name)).await.unwrap_err();
        }
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    let stories: Vec<_> = received.events.iter().map(story).collect();
    assert_eq!(stories, [expected_story("a"), expected_story("b")]);
    let traces: Vec<_> = received
        .events
        .iter()
        .map(|e| event_trace(e).trace_id)
        .collect();
    let of_transactions: Vec<_> = received
        .transactions
        .iter()
        .map(|t| trace(t).trace_id)
        .collect();
    assert_eq!(traces, of_transactions);
    assert_ne!(traces[0], traces[1]);
}

#[test]
fn ambient_tags_come_along_and_ambient_breadcrumbs_do_not() {
    let world = World::new();
    world
        .hub
        .configure_scope(|scope| scope.set_tag("ambient", "yes"));
    world.hub.add_breadcrumb(sentry::Breadcrumb {
        message: Some("ambient".to_owned()),
        ..Default::default()
    });
    world.run(async {
        Scripted::new()
            .say_hello(handler)
            .say_hello_once("a")
            .await
            .unwrap_err();
    });
    let received = world.received();
    let (_, tags, breadcrumbs) = story(received.only_event());
    assert!(tags.contains(&("ambient".to_owned(), "yes".to_owned())));
    assert_eq!(breadcrumbs, expected_story("a").2);
    let transaction = received.only_transaction();
    assert_eq!(tag(&transaction.tags, "ambient"), Some("yes"));
}

#[test]
fn the_application_keeps_its_hub() {
    let world = World::new();
    world.run(async {
        let before = Hub::current();
        let server = Scripted::new().say_hello(handler).serve().await;
        let mut client = server.client().await;
        client.say_hello(request("a")).await.unwrap_err();
        assert!(Arc::ptr_eq(&before, &Hub::current()));
        drop(client);
        server.stop().await;
    });
    world.hub.capture_message("afterwards", Level::Info);
    let received = world.received();
    let event = received.events.last().unwrap();
    assert_eq!(event.message.as_deref(), Some("afterwards"));
    assert_eq!(event.tags.len() + event.breadcrumbs.len(), 0);
    assert_eq!(event.transaction, None);
}

#[test]
fn a_call_that_brings_a_trace_into_another_call_is_a_transaction_of_its_own() {
    const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
    fn tell(name: &str) {
        sentry::configure_scope(|scope| scope.set_tag(&format!("of-{name}"), name));
        info!(target: "test", "breadcrumb of {name}");
        sentry::capture_message(name, Level::Info);
    }
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            tell("outer");
            let inner = Scripted::new().say_hello(|name| async move {
                tell("inner");
                yield_now().await;
                Ok(reply(&name))
            });
            // In this process and on this task, as a test or a gateway does.
            let service = SentryServerLayer::new().layer(GreeterServer::new(inner));
            let origin = "http://localhost".parse().unwrap();
            let mut client = GreeterClient::with_origin(service, origin);
            let mut request = tonic::Request::new(request("b"));
            let metadata = request.metadata_mut();
            metadata.insert("sentry-trace", TRACE.parse().unwrap());
            client.say_hello(request).await.unwrap();
            sentry::capture_message("outer", Level::Info);
            Ok(reply(&name))
        });
        greeter.say_hello_once("a").await.unwrap();
    });
    let received = world.received();
    let [inner, outer] = received.transactions.as_slice() else {
        panic!("{:?}", received.txs())
    };
    assert_eq!(trace(inner).trace_id.to_string(), TRACE[..32]);
    assert_ne!(trace(inner).trace_id, trace(outer).trace_id);
    assert_eq!(tags(&inner.tags), [own_tag("inner")]);
    assert_eq!(tags(&outer.tags), [own_tag("outer")]);
    let stories: Vec<_> = received
        .events
        .iter()
        .map(|event| {
            let name = event.message.as_deref().unwrap();
            let transaction = if name == "inner" { inner } else { outer };
            assert_eq!(event_trace(event).span_id, trace(transaction).span_id);
            let own = tags(&event.tags)
                .into_iter()
                .filter(|(key, _)| key.starts_with("of-"));
            assert_eq!(own.collect::<Vec<_>>(), [own_tag(name)]);
            (name, messages(&event.breadcrumbs))
        })
        .collect();
    assert_eq!(
        stories,
        [
            ("outer", vec!["breadcrumb of outer"]),
            ("inner", vec!["breadcrumb of inner"]),
            ("outer", vec!["breadcrumb of outer"]),
        ]
    );
}
