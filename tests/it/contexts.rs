//! What events say of their call, how they are grouped, and from what they came.

use std::net::IpAddr;

use sentry::protocol::{Event, Value};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::{Instrument, error, info_span};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Scripted, replies, reply};
use crate::support::observed::{KINDS, Kind, Observed, failing, on_both_sides};
use crate::support::received::{Received, event_trace, rpc_context};
use crate::support::world::{RATES, World};

/// Where each failure is told as often as it is told of.
fn world(rate: Option<f32>, pii: bool) -> World {
    World::rated(
        rate,
        |options| options.send_default_pii(pii),
        |layer| layer.deduplicate_errors(false),
    )
}

fn torn() -> Status {
    Status::internal("torn")
}

/// A call of a handler that says an error on its way, and fails.
fn fail_twice(world: &World, layer: SentryServerLayer, kind: Kind) -> Received {
    let greeter = failing(|| {
        error!("on the way");
        torn()
    });
    let side = Observed::Server(layer);
    let call = side.call(greeter, kind, MetadataMap::new());
    world.run(call).unwrap_err();
    world.received()
}

/// Of an error on the way, and of the failure at the end.
fn both(received: &Received) -> [&Event<'static>; 2] {
    let [on_the_way, failure] = received.events.as_slice() else {
        panic!("{:?}", received.events)
    };
    [on_the_way, failure]
}

fn span_id(event: &Event<'_>) -> Value {
    event_trace(event).span_id.to_string().into()
}

#[test]
fn a_server_has_a_name() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let layer = SentryServerLayer::new().server_id("greeter-7");
        let received = fail_twice(&world(rate, false), layer, kind);
        for event in both(&received) {
            assert_eq!(rpc_context(event)["server_id"], "greeter-7");
        }
    }
}

/// Two replies, and a failure.
fn two_and_torn() -> Scripted {
    Scripted::new().say_hello_stream(|name| async move {
        error!("on the way");
        let reply = reply(&name);
        Ok(replies(vec![Ok(reply.clone()), Ok(reply), Err(torn())]))
    })
}

#[test]
fn of_a_method_that_is_not_known_its_messages_tell() {
    for rate in RATES {
        for side in on_both_sides!(|layer| layer.capture_codes([Code::Internal])) {
            let world = world(rate, false);
            let call = side.call(two_and_torn(), Kind::Stream, MetadataMap::new());
            world.run(call).unwrap_err();
            let received = world.received();
            let failure = received.events.last().unwrap();
            let context = rpc_context(failure);
            assert_eq!(context["method_type"], "stream");
            assert_eq!(context["stream_id"], span_id(failure));
            if side.is_server() {
                let [on_the_way, _] = both(&received);
                let context = rpc_context(on_the_way);
                let both = (&context["method_type"], &context["stream_id"]);
                assert_eq!(both, (&Value::Null, &Value::Null));
            }
        }
    }
}

#[test]
fn a_stream_inside_a_span_is_named_by_its_own_span() {
    let world = World::new();
    let side = Observed::Client(SentryClientLayer::new().capture_codes([Code::Internal]));
    let call = side.call(two_and_torn(), Kind::Stream, MetadataMap::new());
    let job = async { call.instrument(info_span!("job")).await };
    world.run(job).unwrap_err();
    let received = world.received();
    let event = received.events.last().unwrap();
    let span = &received.only_transaction().spans[0];
    assert_eq!(span.op.as_deref(), Some("grpc.client"));
    assert_eq!(rpc_context(event)["stream_id"], span.span_id.to_string());
    assert_eq!(event_trace(event).span_id, span.span_id);
}

#[test]
fn without_the_context_events_still_say_the_method() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let layer = SentryServerLayer::new().attach_rpc_context(false);
        let received = fail_twice(&world(rate, true), layer, kind);
        for event in both(&received) {
            assert!(!event.contexts.contains_key("rpc"), "{kind:?} {rate:?}");
            assert_eq!(event.tags["rpc.method"], kind.method());
        }
        let side = Observed::Client(
            SentryClientLayer::new()
                .attach_rpc_context(false)
                .capture_codes([Code::Internal]),
        );
        let world = world(rate, false);
        let call = side.call(failing(torn), kind, MetadataMap::new());
        world.run(call).unwrap_err();
        let received = world.received();
        assert!(!received.only_event().contexts.contains_key("rpc"));
    }
}

#[cfg(feature = "transport")]
#[test]
fn who_calls_is_told_with_personal_data_alone() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for pii in [false, true] {
            let received = fail_twice(&world(rate, pii), SentryServerLayer::new(), kind);
            for event in both(&received) {
                let peer = rpc_context(event)["peer_address"].clone();
                let peer = peer.as_str().map(|peer| peer.parse::<IpAddr>().unwrap());
                assert_eq!(peer.map(|peer| peer.is_loopback()), pii.then_some(true));
            }
        }
    }
}

fn parts(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

#[test]
fn issues_are_grouped_as_the_application_says() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for side in on_both_sides!(|layer| {
            layer
                .capture_codes([Code::Internal])
                .fingerprint(|outcome| {
                    parts(&[outcome.service(), outcome.message().unwrap_or_default()])
                })
        }) {
            let world = World::with_pii(rate, false);
            let call = side.call(failing(torn), kind, MetadataMap::new());
            world.run(call).unwrap_err();
            let received = world.received();
            let fingerprint = received.only_event().fingerprint.as_ref();
            assert_eq!(fingerprint, ["helloworld.Greeter", "torn"]);
        }
    }
}

#[test]
fn panics_are_grouped_as_the_application_says_too() {
    for kind in KINDS {
        let world = World::new();
        let layer = SentryServerLayer::new().fingerprint(|outcome| {
            let is_panic = outcome.is_panic().to_string();
            parts(&[&is_panic, "{{ default }}"])
        });
        let side = Observed::Server(layer);
        let call = side.call(failing(|| panic!("boom")), kind, MetadataMap::new());
        world.run(call).unwrap_err();
        let received = world.received();
        let fingerprint = received.only_event().fingerprint.as_ref();
        assert_eq!(fingerprint, ["true", "{{ default }}"]);
    }
}

#[test]
fn a_fingerprint_that_panics_groups_as_by_default() {
    for kind in KINDS {
        for side in on_both_sides!(|layer| {
            layer
                .capture_codes([Code::Internal])
                .fingerprint(|_| panic!("a bad fingerprint"))
        }) {
            let world = World::new();
            let call = side.call(failing(torn), kind, MetadataMap::new());
            world.run(call).unwrap_err();
            let received = world.received();
            let path = format!("/helloworld.Greeter/{}", kind.method());
            let fingerprint = received.only_event().fingerprint.as_ref();
            assert_eq!(fingerprint, [path.as_str(), "INTERNAL"]);
        }
    }
}
