//! Failures that come again and again.

use sentry::protocol::Event;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::error;

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::greeter::request;
use crate::support::observed::{KINDS, Kind, Observed, failing, on_both_sides};
use crate::support::received::{map, rpc_context};
use crate::support::world::{RATES, World};

const CALLS: usize = 20;

/// As many calls as there are, each of which fails.
async fn storm(side: &Observed, kind: Kind, end: impl Fn() -> Status + Send + Sync + 'static) {
    let calls = async |mut client| {
        for _ in 0..CALLS {
            let call = kind.call(&mut client, MetadataMap::new());
            call.await.unwrap_err();
        }
    };
    side.run(failing(end), calls).await;
}

fn internal() -> Status {
    Status::internal("failed")
}

/// How many there are of each method and code.
fn counts(events: &[Event<'_>]) -> Vec<(String, usize)> {
    let mut counts = map::<usize>([]);
    for event in events {
        let context = rpc_context(event);
        let [method, status] = ["method", "status"].map(|key| context[key].as_str().unwrap());
        *counts.entry(format!("{method} {status}")).or_default() += 1;
        // Nothing was held back before the last one that was sent.
        assert!(context["held_back"].is_null());
    }
    counts.into_iter().collect()
}

fn count(name: &str, count: usize) -> (String, usize) {
    (name.to_owned(), count)
}

#[test]
fn no_more_are_told_than_may_be() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (max, expected) in [(Some(3), 3), (Some(0), 0), (None, CALLS)] {
            for side in on_both_sides!(|layer| {
                layer
                    .capture_codes([Code::Internal])
                    .max_events_per_minute(max)
            }) {
                let world = World::with_pii(rate, false);
                world.run(storm(&side, kind, internal));
                let received = world.received();
                assert_eq!(
                    received.events.len(),
                    expected,
                    "{side:?} {kind:?} {rate:?}"
                );
                let sent = if rate == Some(1.0) { CALLS } else { 0 };
                assert_eq!(received.transactions.len(), sent);
            }
        }
    }
}

#[test]
fn by_default_there_are_a_hundred() {
    let world = World::sampled(0.0);
    let side = Observed::Server(SentryServerLayer::new());
    for _ in 0..6 {
        world.run(storm(&side, Kind::Unary, internal));
    }
    assert_eq!(world.received().events.len(), 100);
}

#[test]
fn each_method_and_code_has_a_limit_of_its_own() {
    let world = World::new();
    for side in on_both_sides!(|layer| {
        layer
            .capture_codes([Code::Internal, Code::DataLoss])
            .max_events_per_minute(3)
    }) {
        for kind in KINDS {
            world.run(storm(&side, kind, internal));
            world.run(storm(&side, kind, || Status::data_loss("lost")));
        }
        let expected = [
            count("SayHello DATA_LOSS", 3),
            count("SayHello INTERNAL", 3),
            count("SayHelloStream DATA_LOSS", 3),
            count("SayHelloStream INTERNAL", 3),
        ];
        assert_eq!(counts(&world.received().events), expected, "{side:?}");
    }
}

#[test]
fn each_layer_has_a_limit_of_its_own_and_its_copies_share_it() {
    let world = World::new();
    let [layer, other] = [(); 2].map(|()| SentryServerLayer::new().max_events_per_minute(3));
    for layer in [layer.clone(), layer, other] {
        world.run(storm(&Observed::Server(layer), Kind::Unary, internal));
    }
    assert_eq!(world.received().events.len(), 6);
}

#[test]
fn what_is_not_captured_does_not_count() {
    let world = World::new();
    let side = Observed::Server(SentryServerLayer::new().max_events_per_minute(3));
    // Each tells its failure itself.
    let told = || {
        error!("failed");
        internal()
    };
    world.run(storm(&side, Kind::Unary, told));
    assert_eq!(world.received().events.len(), CALLS);
    world.run(storm(&side, Kind::Unary, internal));
    assert_eq!(
        counts(&world.received().events),
        [count("SayHello INTERNAL", 3)]
    );
}

#[test]
fn panics_count_too_and_by_themselves() {
    for kind in KINDS {
        let world = World::new();
        let side = Observed::Server(SentryServerLayer::new().max_events_per_minute(3));
        world.run(storm(&side, kind, || panic!("boom")));
        world.run(storm(&side, kind, internal));
        let expected = [count(&format!("{} INTERNAL", kind.method()), 6)];
        assert_eq!(counts(&world.received().events), expected);
    }
}

#[test]
fn a_storm_over_threads_is_told_no_more_often() {
    for _ in 0..5 {
        let world = World::new();
        world.run_threads(2, async {
            let layer = SentryServerLayer::new().max_events_per_minute(3);
            let server = failing(internal).serve_with(layer).await;
            let client = server.client().await;
            let calls = (0..200).map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { client.say_hello(request("a")).await.unwrap_err() })
            });
            for call in calls.collect::<Vec<_>>() {
                call.await.unwrap();
            }
            drop(client);
            server.stop().await;
        });
        assert_eq!(
            counts(&world.received().events),
            [count("SayHello INTERNAL", 3)]
        );
    }
}

#[test]
fn breadcrumbs_of_calls_are_not_held_back() {
    let world = World::new();
    world.run(async {
        let layer = SentryClientLayer::new()
            .capture_codes([Code::Internal])
            .max_events_per_minute(1);
        storm(&Observed::Client(layer), Kind::Unary, internal).await;
        error!("afterwards");
    });
    let received = world.received();
    let [_, afterwards] = received.events.as_slice() else {
        panic!("{:?}", received.events)
    };
    let breadcrumbs = afterwards.breadcrumbs.iter();
    assert_eq!(breadcrumbs.filter(|one| one.ty == "grpc").count(), CALLS);
}

#[test]
fn panics_that_a_hook_tells_of_are_limited_too() {
    let options = |options: sentry::ClientOptions| {
        let options = options.traces_sample_rate(1.0);
        options.add_integration(sentry::integrations::panic::PanicIntegration::new())
    };
    for (max, told) in [(Some(3), 3), (None, 20)] {
        let world = World::with(options, |layer| layer);
        world.run(async {
            let layer = SentryServerLayer::new().max_events_per_minute(max);
            let server = failing(|| panic!("boom")).serve_with(layer).await;
            let mut client = server.client().await;
            for _ in 0..20 {
                client.say_hello(request("a")).await.unwrap_err();
            }
            drop(client);
            server.stop().await;
        });
        let events = world.received().events;
        assert_eq!(events.len(), told);
        let stacks = events
            .iter()
            .map(|event| event.exception[0].stacktrace.is_some());
        assert!(stacks.into_iter().all(|has_stack| has_stack));
    }
}
