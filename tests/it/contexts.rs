//! What events say of their call, how they are grouped, and from what they came.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use sentry::protocol::{Event, Value};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::{Instrument, error, info_span};

use sentry_tonic::{GrpcClientLayer, GrpcServerLayer, RpcOutcome, keep_source};

use crate::support::greeter::{Scripted, replies, reply};
use crate::support::observed::{KINDS, Kind, Observed, failing, on_both_sides};
use crate::support::received::{Received, event_trace, exceptions, rpc_context, trace};
use crate::support::world::{RATES, World};

/// Where each failure is told as often as it is told of.
fn world(rate: Option<f32>, pii: bool) -> World {
    World::rated(
        rate,
        |options| options.send_default_pii(pii),
        |layer| layer.one_event_per_failure(false),
    )
}

fn torn() -> Status {
    Status::internal("torn")
}

/// A call of a handler that says an error on its way, and fails.
fn fail_twice(world: &World, layer: GrpcServerLayer, kind: Kind) -> Received {
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
        let layer = GrpcServerLayer::new().server_id("greeter-7");
        let received = fail_twice(&world(rate, false), layer, kind);
        for event in both(&received) {
            assert_eq!(rpc_context(event)["server_id"], "greeter-7");
        }
    }
}

#[test]
fn a_stream_that_is_known_has_an_id() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let layer = GrpcServerLayer::new().streaming_methods(["*Stream"]);
        let received = fail_twice(&world(rate, false), layer, kind);
        for event in both(&received) {
            let context = rpc_context(event);
            match kind {
                Kind::Unary => {
                    assert_eq!(context["method_type"], "unary");
                    assert_eq!(context["stream_id"], Value::Null);
                }
                Kind::Stream => {
                    assert_eq!(context["method_type"], "stream");
                    assert_eq!(context["stream_id"], span_id(event), "{rate:?}");
                }
            }
        }
        if rate == Some(1.0) {
            let own = trace(received.only_transaction()).span_id;
            assert_eq!(event_trace(&received.events[1]).span_id, own);
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
    let side = Observed::Client(
        GrpcClientLayer::new()
            .streaming_methods(["*Stream"])
            .capture_codes([Code::Internal]),
    );
    let call = side.call(failing(torn), Kind::Stream, MetadataMap::new());
    let job = async { call.instrument(info_span!("job")).await };
    world.run(job).unwrap_err();
    let received = world.received();
    let event = received.only_event();
    let span = &received.only_transaction().spans[0];
    assert_eq!(span.op.as_deref(), Some("grpc.client"));
    assert_eq!(rpc_context(event)["stream_id"], span.span_id.to_string());
    assert_eq!(event_trace(event).span_id, span.span_id);
}

#[test]
fn without_the_context_events_still_say_the_method() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        let layer = GrpcServerLayer::new()
            .rpc_context(false)
            .streaming_methods(["*"]);
        let received = fail_twice(&world(rate, true), layer, kind);
        for event in both(&received) {
            assert!(!event.contexts.contains_key("rpc"), "{kind:?} {rate:?}");
            assert_eq!(event.tags["rpc.method"], kind.method());
        }
        let side = Observed::Client(
            GrpcClientLayer::new()
                .rpc_context(false)
                .capture_codes([Code::Internal]),
        );
        let world = world(rate, false);
        let call = side.call(failing(torn), kind, MetadataMap::new());
        world.run(call).unwrap_err();
        let received = world.received();
        assert!(!received.only_event().contexts.contains_key("rpc"));
    }
}

#[test]
fn who_calls_is_told_with_personal_data_alone() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for pii in [false, true] {
            let received = fail_twice(&world(rate, pii), GrpcServerLayer::new(), kind);
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
        let layer = GrpcServerLayer::new().fingerprint(|outcome| {
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

#[derive(Debug)]
struct DiskFull;

impl fmt::Display for DiskFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no space left")
    }
}

impl std::error::Error for DiskFull {}

fn of_full_disk(mut status: Status) -> Status {
    status.set_source(Arc::new(DiskFull));
    status
}

fn exception(ty: &str, value: &str) -> (String, Option<String>) {
    (ty.to_owned(), Some(value.to_owned()))
}

type Sources = Arc<Mutex<Vec<Option<String>>>>;

/// Captures all, and writes the sources down.
fn asking() -> (Sources, impl Fn(&RpcOutcome<'_>) -> bool + Send + Sync) {
    let sources = Sources::default();
    let told = Arc::clone(&sources);
    let wants = move |outcome: &RpcOutcome<'_>| {
        let source = outcome.source().map(ToString::to_string);
        told.lock().unwrap().push(source);
        true
    };
    (sources, wants)
}

fn end_with(rate: Option<f32>, end: impl Fn() -> Status + Send + Sync + 'static) -> Vec<String> {
    let world = World::with_pii(rate, false);
    let (sources, wants) = asking();
    let side = Observed::Server(GrpcServerLayer::new().capture_if(wants));
    let call = side.call(failing(end), Kind::Stream, MetadataMap::new());
    let status = world.run(call).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "torn"));
    let received = world.received();
    let event = received.only_event();
    let told = sources.lock().unwrap();
    let mut expected = vec![exception("INTERNAL", "torn")];
    if let [Some(source)] = told.as_slice() {
        expected.insert(0, exception("DiskFull", source));
        assert_eq!(event.fingerprint[2], "DiskFull");
    }
    assert_eq!(exceptions(event), expected);
    told.iter().flatten().cloned().collect()
}

#[test]
fn what_a_stream_failed_with_may_be_kept() {
    for rate in RATES {
        let kept = end_with(rate, || keep_source(of_full_disk(torn())));
        assert_eq!(kept, ["no space left"]);
        // Where nobody keeps it, tonic drops it.
        assert!(end_with(rate, || of_full_disk(torn())).is_empty());
    }
}

#[test]
fn what_is_kept_in_a_span_of_the_call_is_kept() {
    let kept = end_with(Some(1.0), || {
        info_span!("inside").in_scope(|| keep_source(of_full_disk(torn())))
    });
    assert_eq!(kept, ["no space left"]);
}

#[test]
fn what_is_kept_is_told_of_no_other_status() {
    let others: [fn() -> Status; 3] = [
        || Status::not_found("torn"),
        || Status::internal("another"),
        || Status::internal(""),
    ];
    for other in others {
        let kept = end_with(Some(1.0), move || {
            let _ = keep_source(of_full_disk(other()));
            torn()
        });
        assert_eq!(kept, [""; 0]);
    }
    // The last one counts.
    let kept = end_with(Some(1.0), || {
        let _ = keep_source(of_full_disk(torn()));
        let _ = keep_source(of_full_disk(Status::not_found("gone")));
        torn()
    });
    assert_eq!(kept, [""; 0]);
}

#[test]
fn a_long_message_is_known_again() {
    let world = World::new();
    let message = "é".repeat(2000);
    let status = Status::internal(message);
    let side = Observed::Server(GrpcServerLayer::new());
    let greeter = failing(move || keep_source(of_full_disk(status.clone())));
    world
        .run(side.call(greeter, Kind::Stream, MetadataMap::new()))
        .unwrap_err();
    let received = world.received();
    let expected = [
        exception("DiskFull", "no space left"),
        exception("INTERNAL", &"é".repeat(512)),
    ];
    assert_eq!(exceptions(received.only_event()), expected);
}

#[test]
fn outside_of_a_call_nothing_is_kept() {
    let status = keep_source(of_full_disk(torn()));
    assert_eq!(status.message(), "torn");
    let world = World::new();
    world.sync(|| {
        let status = keep_source(of_full_disk(torn()));
        assert!(std::error::Error::source(&status).is_some());
        info_span!("job").in_scope(|| keep_source(status));
    });
    assert_eq!(world.received().events, []);
}
