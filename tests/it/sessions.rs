//! Calls as sessions of release health.

use std::fmt;

use sentry::integrations::panic::PanicIntegration;
use sentry::protocol::{EnvelopeItem, SessionAggregateItem, User};
use sentry::{ClientOptions, SessionMode};
use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::error;

use sentry_tonic::{CallerIdentity, PanicPolicy, SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::observed::{KINDS, Kind, Observed, failing, metadata};
use crate::support::world::{RATES, World};

fn world(rate: Option<f32>, options: impl FnOnce(ClientOptions) -> ClientOptions) -> World {
    let with_sessions = |client: ClientOptions| {
        let client = client
            .release("greeter@1.0.0")
            .environment("test")
            .auto_session_tracking(true)
            .session_mode(SessionMode::Request);
        options(client)
    };
    World::rated(rate, with_sessions, |layer| layer)
}

/// How many there are of each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    exited: u32,
    errored: u32,
    crashed: u32,
    abnormal: u32,
}

const EXITED: Counts = Counts { exited: 1, ..NONE };
const ERRORED: Counts = Counts { errored: 1, ..NONE };
const CRASHED: Counts = Counts { crashed: 1, ..NONE };
const NONE: Counts = Counts {
    exited: 0,
    errored: 0,
    crashed: 0,
    abnormal: 0,
};

/// By whose they are. They are sent when the client is closed.
fn aggregates(world: &World) -> Vec<(Option<String>, Counts)> {
    world.hub.client().unwrap().close(None);
    let mut found = std::collections::BTreeMap::<_, Counts>::new();
    for item in world.received().others {
        let aggregates = match item {
            EnvelopeItem::SessionAggregates(aggregates) => aggregates,
            // Of what was not sampled.
            EnvelopeItem::ClientReport(_) => continue,
            other => panic!("{other:?}"),
        };
        assert_eq!(aggregates.attributes.release, "greeter@1.0.0");
        assert_eq!(aggregates.attributes.environment.as_deref(), Some("test"));
        for SessionAggregateItem {
            distinct_id,
            exited,
            errored,
            crashed,
            abnormal,
            ..
        } in aggregates.aggregates
        {
            // Of two minutes, where a test was at their edge.
            let counts = found.entry(distinct_id).or_default();
            counts.exited += exited;
            counts.errored += errored;
            counts.crashed += crashed;
            counts.abnormal += abnormal;
        }
    }
    found.into_iter().collect()
}

#[track_caller]
fn assert_counts(world: &World, expected: Counts) {
    let aggregates = aggregates(world);
    match expected {
        NONE => assert_eq!(aggregates, []),
        _ => assert_eq!(aggregates, [(None, expected)]),
    }
}

fn end(world: &World, layer: SentryServerLayer, kind: Kind, greeter: Scripted) {
    let side = Observed::Server(layer);
    let call = side.call(greeter, kind, MetadataMap::new());
    let _ = world.run(call);
}

#[test]
fn each_end_of_a_call_is_a_session() {
    type End = fn() -> Status;
    let ends: [(End, Counts); 5] = [
        (|| Status::not_found("nobody"), EXITED),
        (|| Status::cancelled("by the handler"), EXITED),
        (|| Status::internal("failed"), ERRORED),
        (
            || {
                error!("failed");
                Status::not_found("nobody")
            },
            ERRORED,
        ),
        (|| panic!("boom"), CRASHED),
    ];
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let world_of_success = world(rate, |options| options);
        end(
            &world_of_success,
            SentryServerLayer::new(),
            kind,
            Scripted::new(),
        );
        assert_counts(&world_of_success, EXITED);
        for (index, (fails, expected)) in ends.into_iter().enumerate() {
            let world = world(rate, |options| options);
            end(&world, SentryServerLayer::new(), kind, failing(fails));
            let aggregates = aggregates(&world);
            assert_eq!(aggregates, [(None, expected)], "{kind:?} {rate:?} {index}");
        }
    }
}

#[test]
fn a_failure_without_an_event_is_no_error() {
    for kind in KINDS {
        let world = world(Some(1.0), |options| options);
        let layer = SentryServerLayer::new().capture_codes([]);
        end(&world, layer, kind, failing(|| Status::internal("failed")));
        assert_counts(&world, EXITED);
    }
}

#[test]
fn an_event_that_is_held_back_is_no_error() {
    let world = world(Some(1.0), |options| options);
    let layer = SentryServerLayer::new().max_events_per_minute(1);
    for _ in 0..3 {
        let greeter = failing(|| Status::internal("failed"));
        end(&world, layer.clone(), Kind::Unary, greeter);
    }
    let expected = Counts {
        exited: 2,
        errored: 1,
        ..NONE
    };
    assert_counts(&world, expected);
}

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

#[test]
fn a_panic_is_a_crash_also_where_another_error_was_sent_before() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for has_hook in [false, true] {
            for panic_policy in [
                PanicPolicy::ReturnInternal,
                PanicPolicy::ResumeUnwind,
                PanicPolicy::Ignore,
            ] {
                for is_told in [false, true] {
                    let world = world(rate, |options| match has_hook {
                        true => options.add_integration(PanicIntegration::new()),
                        false => options,
                    });
                    let layer = SentryServerLayer::new().panic_policy(panic_policy);
                    let greeter = failing(move || {
                        if is_told {
                            sentry::capture_error(&Refused);
                        }
                        panic!("boom")
                    });
                    end(&world, layer, kind, greeter);
                    let aggregates = aggregates(&world);
                    let case = format!("{kind:?} {rate:?} {has_hook} {panic_policy:?} {is_told}");
                    assert_eq!(aggregates, [(None, CRASHED)], "{case}");
                }
            }
        }
    }
}

#[test]
fn a_caller_that_hangs_up_ends_the_session() {
    for rate in RATES {
        let world = world(rate, |options| options);
        world.run(async {
            let greeter = Scripted::new().say_hello_stream(|name| async move {
                let replies = tokio_stream::once(Ok(reply(&name)));
                let replies = replies.chain(tokio_stream::pending());
                Ok(Box::pin(replies) as Replies)
            });
            let server = greeter.serve().await;
            let mut client = server.client().await;
            let replies = client.say_hello_stream(request("a")).await.unwrap();
            let mut replies = replies.into_inner();
            replies.next().await.unwrap().unwrap();
            drop((client, replies));
            server.stop().await;
        });
        assert_counts(&world, EXITED);
    }
}

/// Whoever calls says who it is.
fn knowing() -> SentryServerLayer {
    SentryServerLayer::new().identify_caller(|parts| {
        let id = parts.headers.get("x-user").map(|id| id.to_str().unwrap());
        CallerIdentity::from(User {
            id: id.map(str::to_owned),
            ..User::default()
        })
    })
}

#[test]
fn sessions_are_those_of_users() {
    for rate in RATES {
        let world = world(rate, |options| options);
        world.run(async {
            let greeter = failing(|| Status::internal("failed"))
                .say_hello_stream(|_| async { Err(Status::not_found("nobody")) });
            let side = Observed::Server(knowing());
            side.run(greeter, async |mut client| {
                for (kind, user) in [
                    (Kind::Unary, Some("a")),
                    (Kind::Stream, Some("a")),
                    (Kind::Stream, Some("b")),
                    (Kind::Stream, None),
                ] {
                    let sent = user.map(|user| ("x-user", user));
                    let sent = metadata(sent.as_slice());
                    kind.call(&mut client, sent).await.unwrap_err();
                }
            })
            .await;
        });
        let both = Counts {
            errored: 1,
            ..EXITED
        };
        let expected = [
            (None, EXITED),
            (Some("a".to_owned()), both),
            (Some("b".to_owned()), EXITED),
        ];
        assert_eq!(aggregates(&world), expected);
    }
}

#[test]
fn health_checks_and_calls_of_clients_are_none() {
    let world = world(Some(1.0), |options| options);
    let layer = SentryServerLayer::new().ignore(["*"]);
    end(&world, layer, Kind::Unary, Scripted::new());
    let client = SentryClientLayer::new().capture_codes([Code::Internal]);
    let side = Observed::Client(client);
    let greeter = failing(|| Status::internal("failed"));
    let call = side.call(greeter, Kind::Unary, MetadataMap::new());
    world.run(call).unwrap_err();
    assert_counts(&world, NONE);
}

#[test]
fn without_request_mode_and_without_tracking_there_are_none() {
    for kind in KINDS {
        for (mode, tracks) in [
            (SessionMode::Application, true),
            (SessionMode::Request, false),
        ] {
            let world = world(Some(1.0), |options| {
                options.session_mode(mode).auto_session_tracking(tracks)
            });
            end(&world, SentryServerLayer::new(), kind, Scripted::new());
            assert_counts(&world, NONE);
        }
    }
}

#[test]
fn each_of_many_calls_at_once_is_one() {
    let world = world(Some(0.0), |options| options);
    world.run_threads(2, async {
        let greeter = Scripted::new().say_hello(|name| async move {
            tokio::task::yield_now().await;
            match name.as_str() {
                "0" => Ok(reply(&name)),
                "1" => Err(Status::internal("failed")),
                _ => panic!("boom"),
            }
        });
        let layer = SentryServerLayer::new().max_events_per_minute(None);
        let server = greeter.serve_with(layer).await;
        let client = server.client().await;
        let calls = (0..300).map(|i| {
            let mut client = client.clone();
            tokio::spawn(async move { client.say_hello(request(&(i % 3).to_string())).await })
        });
        for call in calls.collect::<Vec<_>>() {
            let _ = call.await.unwrap();
        }
        drop(client);
        server.stop().await;
    });
    let expected = Counts {
        exited: 100,
        errored: 100,
        crashed: 100,
        ..NONE
    };
    assert_counts(&world, expected);
}
