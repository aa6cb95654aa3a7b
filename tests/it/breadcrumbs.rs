//! Calls as breadcrumbs of the errors that follow them.

use sentry::protocol::{Event, Value};
use sentry::{Breadcrumb, ClientOptions, Level};
use serde_json::json;
use tonic::{Code, Status};
use tracing::{Instrument, error, info_span};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::endings::NAMES;
use crate::support::greeter::{ObservedClient, Running, Scripted, replies, reply, request};
use crate::support::received::Received;
use crate::support::world::World;

/// Everything but the times, of which the duration must be one.
#[track_caller]
fn shape(breadcrumb: &Breadcrumb) -> Value {
    let mut data = breadcrumb.data.clone();
    let duration = data.remove("duration_ms").unwrap();
    assert!(duration.as_f64().unwrap() > 0.0);
    json!({
        "type": breadcrumb.ty,
        "category": breadcrumb.category,
        "level": breadcrumb.level.to_string(),
        "message": breadcrumb.message,
        "data": data,
    })
}

/// Those of calls.
fn calls<'a>(event: &'a Event<'_>) -> Vec<&'a Breadcrumb> {
    let breadcrumbs = event.breadcrumbs.iter();
    breadcrumbs.filter(|one| one.ty == "grpc").collect()
}

fn of_method(method: &str, status: &str, level: &str, message: Option<&str>) -> Value {
    let code = Code::from_i32(NAMES.iter().position(|name| *name == status).unwrap() as i32);
    json!({
        "type": "grpc",
        "category": "grpc.client",
        "level": level,
        "message": message,
        "data": {
            "method": format!("/helloworld.Greeter/{method}"),
            "status": status,
            "status_code": code as i32,
            "request_message_count": 1,
            "response_message_count": i32::from(code == Code::Ok),
        },
    })
}

/// An unobserved server that fails each call with the code that it is asked for,
/// and a client of it.
async fn failing_by_name(layer: SentryClientLayer) -> (Running, ObservedClient) {
    let greeter = Scripted::new().say_hello(|name| async move {
        match name.parse().unwrap() {
            0 => Ok(reply("a")),
            code => Err(Status::new(Code::from_i32(code), "why")),
        }
    });
    let (server, _arrivals) = greeter.serve_unobserved().await;
    let client = server.observed_client(layer).await;
    (server, client)
}

/// What is received of a job that makes one call of this code, and then fails.
fn job(world: &World, layer: SentryClientLayer, code: i32) -> Received {
    world.run(async {
        let (server, mut client) = failing_by_name(layer).await;
        let job = async {
            let _ = client.say_hello(request(&code.to_string())).await;
            error!("failed");
        };
        job.instrument(info_span!("job")).await;
        drop(client);
        server.stop().await;
    });
    world.received()
}

#[test]
fn a_call_is_a_breadcrumb_of_the_errors_around_it() {
    for number in 0..=16 {
        let world = World::new();
        let received = job(&world, SentryClientLayer::new(), number);
        let code = Code::from_i32(number);
        let (level, message) = match code {
            Code::Ok => ("info", None),
            Code::Cancelled => ("info", Some("why")),
            Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => ("error", Some("why")),
            _ => ("warning", Some("why")),
        };
        let name = NAMES[usize::try_from(number).unwrap()];
        let [call] = calls(received.only_event())[..] else {
            panic!("{:?}", received.events)
        };
        assert_eq!(shape(call), of_method("SayHello", name, level, message));
    }
}

#[test]
fn a_call_of_a_handler_is_a_breadcrumb_of_its_errors() {
    let world = World::new();
    world.run(async {
        let (upstream, client) = failing_by_name(SentryClientLayer::new()).await;
        let greeter = Scripted::new().say_hello(move |_| {
            let mut client = client.clone();
            async move {
                client.say_hello(request("5")).await.unwrap_err();
                Err(Status::internal("nobody to greet"))
            }
        });
        greeter.say_hello_once("Ferris").await.unwrap_err();
        upstream.stop().await;
    });
    let received = world.received();
    let [call] = calls(received.only_event())[..] else {
        panic!("{:?}", received.events)
    };
    let expected = of_method("SayHello", "NOT_FOUND", "warning", Some("why"));
    assert_eq!(shape(call), expected);
}

#[test]
fn a_stream_is_a_breadcrumb_at_its_end() {
    let world = World::new();
    world.run(async {
        let greeter = Scripted::new().say_hello_stream(|name| async move {
            let failure = Err(Status::data_loss("torn"));
            Ok(replies(vec![Ok(reply(&name)), Ok(reply(&name)), failure]))
        });
        let (server, _arrivals) = greeter.serve_unobserved().await;
        let mut client = server.observed_client(SentryClientLayer::new()).await;
        let job = async {
            let replies = client.say_hello_stream(request("a")).await.unwrap();
            let mut replies = replies.into_inner();
            replies.message().await.unwrap();
            error!("in the midst of it");
            replies.message().await.unwrap();
            replies.message().await.unwrap_err();
            error!("after it");
            let dropped = client.say_hello_stream(request("a")).await.unwrap();
            drop(dropped);
            error!("after one that was dropped");
        };
        job.instrument(info_span!("job")).await;
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    let seen: Vec<Vec<_>> = received
        .events
        .iter()
        .map(|event| {
            let calls = calls(event).into_iter();
            calls
                .map(|call| {
                    (
                        call.level,
                        call.data["status"].clone(),
                        call.data["response_message_count"].clone(),
                    )
                })
                .collect()
        })
        .collect();
    let torn = (Level::Error, json!("DATA_LOSS"), json!(2));
    let dropped = (Level::Info, json!("CANCELLED"), json!(0));
    assert_eq!(seen, [vec![], vec![torn.clone()], vec![torn, dropped]]);
}

#[test]
fn a_call_outside_of_any_span_is_one_of_the_pinned_hub() {
    for layer in [
        SentryClientLayer::new(),
        SentryClientLayer::new().only_if_parent(true),
    ] {
        for rate in [0.0, 1.0] {
            let world = World::sampled(rate).pinned();
            world.run(async {
                let (server, mut client) = failing_by_name(layer.clone()).await;
                client.say_hello(request("0")).await.unwrap();
                drop(client);
                server.stop().await;
            });
            world.hub.capture_message("later", Level::Error);
            let received = world.received();
            let [call] = calls(received.only_event())[..] else {
                panic!("{:?}", received.events)
            };
            assert_eq!(shape(call), of_method("SayHello", "OK", "info", None));
        }
    }
}

#[test]
fn without_a_pinned_hub_it_is_one_of_the_current_hub() {
    let world = World::new();
    world.run(async {
        let (server, mut client) = failing_by_name(SentryClientLayer::new()).await;
        client.say_hello(request("0")).await.unwrap();
        drop(client);
        server.stop().await;
    });
    world.hub.capture_message("later", Level::Error);
    let received = world.received();
    let [call] = calls(received.only_event())[..] else {
        panic!("{:?}", received.events)
    };
    assert_eq!(shape(call), of_method("SayHello", "OK", "info", None));
}

#[test]
fn a_failure_has_the_breadcrumb_of_its_own_call() {
    for world in [
        World::new(),
        World::sampled(0.0),
        World::with(|options| options, |layer| layer),
    ] {
        world.run(async {
            let layer = SentryClientLayer::new().capture_codes([Code::Unavailable]);
            let (server, mut client) = failing_by_name(layer).await;
            client.say_hello(request("14")).await.unwrap_err();
            drop(client);
            server.stop().await;
        });
        let received = world.received();
        let [call] = calls(received.only_event())[..] else {
            panic!("{:?}", received.events)
        };
        let expected = of_method("SayHello", "UNAVAILABLE", "error", Some("why"));
        assert_eq!(shape(call), expected);
    }
}

#[test]
fn they_are_a_choice_and_within_the_limits_of_the_client() {
    let limit = |options: ClientOptions| options.traces_sample_rate(1.0).max_breadcrumbs(0);
    let drop = |options: ClientOptions| {
        options
            .traces_sample_rate(1.0)
            .before_breadcrumb(|breadcrumb| (breadcrumb.ty != "grpc").then_some(breadcrumb))
    };
    let same = |layer| layer;
    let off = SentryClientLayer::new().breadcrumbs(false);
    for (world, layer) in [
        (World::new(), off),
        (World::with(limit, same), SentryClientLayer::new()),
        (World::with(drop, same), SentryClientLayer::new()),
    ] {
        let received = job(&world, layer, 5);
        assert_eq!(calls(received.only_event()), [] as [&Breadcrumb; 0]);
    }
}

#[test]
fn servers_leave_them_where_they_are_told_to() {
    for (layer, expected) in [
        (SentryServerLayer::new(), 0),
        (SentryServerLayer::new().breadcrumbs(true), 1),
    ] {
        let world = World::new();
        world.run(async {
            let server = Scripted::new().serve_with(layer).await;
            let mut client = server.client().await;
            client.say_hello(request("a")).await.unwrap();
            drop(client);
            server.stop().await;
        });
        world.hub.capture_message("later", Level::Error);
        let received = world.received();
        let event = received.only_event();
        let categories = calls(event).into_iter().map(|one| one.category.clone());
        let expected = vec![Some("grpc.server".to_owned()); expected];
        assert_eq!(categories.collect::<Vec<_>>(), expected);
    }
}
