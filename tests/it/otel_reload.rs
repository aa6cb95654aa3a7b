//! An OpenTelemetry layer that comes or goes while a call runs.

use std::cell::RefCell;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use opentelemetry_sdk::trace::Sampler;
use tokio::sync::Notify;
use tracing::info_span;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, reload};

use sentry_tonic::SentryClientLayer;

use crate::support::greeter::{Scripted, reply, request};
use crate::support::otel::{
    Boxed, Ids, NAMES, Otel, OtelLayer, all_of_otel, call, look_up, of_sentry, worlds,
};
use crate::support::world::World;

/// In a handler, after the change.
const LATE: &str = "Internal late";

const ALL: [&str; 5] = [NAMES[0], LATE, NAMES[1], NAMES[2], NAMES[3]];

/// Where the change happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    InSpan,
    /// While the call waits.
    Beside,
}

const BOTH: [Place; 2] = [Place::InSpan, Place::Beside];

fn take(world: &World, otel: &Otel) -> [Ids; 2] {
    let mut exported = all_of_otel(&otel.spans());
    // tonic's own dependencies trace every frame.
    exported.retain(|name, _| ALL.contains(&name.as_str()));
    otel.exporter.reset();
    [of_sentry(&world.received()), exported]
}

/// A call while which `change` happens, and one after it: what Sentry and what
/// OpenTelemetry then know.
fn call_twice(
    world: &World,
    otel: &Otel,
    place: Place,
    change: impl Fn() + Send + Sync + 'static,
) -> [[Ids; 2]; 2] {
    otel.exporter.reset();
    let change = Arc::new(change);
    let [waits, goes_on] = [(); 2].map(|()| Arc::new(Notify::new()));
    let (in_span, waiting, go_on) = (change.clone(), waits.clone(), goes_on.clone());
    let greeter = Scripted::new().say_hello(move |name| {
        let (in_span, waiting, go_on) = (in_span.clone(), waiting.clone(), go_on.clone());
        async move {
            look_up().await;
            if place == Place::InSpan {
                in_span();
            }
            waiting.notify_one();
            go_on.notified().await;
            info_span!("late").in_scope(|| {});
            Ok(reply(&name))
        }
    });
    world.run(async {
        let server = greeter.serve().await;
        let mut client = server.observed_client(SentryClientLayer::new()).await;
        let beside = async {
            waits.notified().await;
            if place == Place::Beside {
                change();
            }
            goes_on.notify_one();
        };
        let (answer, ()) = tokio::join!(client.say_hello(request("Ferris")), beside);
        answer.unwrap();
        drop(client);
        server.stop().await;
    });
    let first = take(world, otel);
    world.run(call());
    [first, take(world, otel)]
}

/// With what `wrap` makes of the layer of OpenTelemetry, and of what that is changed by.
fn in_both_orders<T: Send + Sync + 'static>(
    place: Place,
    wrap: impl Fn(OtelLayer) -> (Boxed, T),
    change: fn(&T),
    check: impl Fn([[Ids; 2]; 2]),
) {
    let otel = Otel::new(Sampler::AlwaysOn);
    let handles = RefCell::new(Vec::new());
    let wrap = |otel| {
        let (layer, handle) = wrap(otel);
        handles.borrow_mut().push(handle);
        layer
    };
    let worlds = worlds(&otel, |sentry| Box::new(sentry), wrap);
    for (world, handle) in worlds.into_iter().zip(handles.into_inner()) {
        check(call_twice(&world, &otel, place, move || change(&handle)));
    }
}

/// Fails where the test hangs.
fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}

/// All that Sentry has of a call.
#[track_caller]
fn assert_whole(sentry: &Ids, names: &[&str]) {
    assert_eq!(sentry.keys().collect::<Vec<_>>(), names);
    let (trace_id, client, parent) = &sentry[NAMES[0]];
    assert_eq!(*parent, None);
    let server = &sentry[NAMES[3]];
    let parents = [(3, client), (1, &server.1), (2, &sentry[NAMES[1]].1)];
    for (name, parent) in parents.map(|(name, parent)| (NAMES[name], parent)) {
        let (of, _, own) = &sentry[name];
        assert_eq!((of, own.as_ref()), (trace_id, Some(parent)), "{name}");
    }
    if let Some(late) = sentry.get(LATE) {
        assert_eq!((&late.0, late.2.as_ref()), (trace_id, Some(&server.1)));
    }
}

fn filtered(otel: OtelLayer, by: LevelFilter) -> (Boxed, reload::Handle<LevelFilter, Registry>) {
    let (filter, handle) = reload::Layer::new(by);
    (Box::new(otel.with_filter(filter)), handle)
}

#[test]
fn a_filter_that_lets_opentelemetry_in_has_what_begins_then() {
    for place in BOTH {
        watched(move || {
            in_both_orders(
                place,
                |otel| filtered(otel, LevelFilter::OFF),
                |handle| handle.reload(LevelFilter::INFO).unwrap(),
                |[[sentry, otel], [sentry_after, otel_after]]| {
                    assert_whole(&sentry, &ALL);
                    // Of the running call it has not seen the beginning.
                    assert_eq!(otel.keys().collect::<Vec<_>>(), [LATE]);
                    assert_eq!(otel[LATE].2, None);
                    assert_ne!(otel[LATE].0, sentry[LATE].0);
                    assert_whole(&sentry_after, &NAMES);
                    assert_eq!(sentry_after, otel_after);
                },
            );
        });
    }
}

#[test]
fn a_filter_that_shuts_opentelemetry_out_leaves_it_what_has_begun() {
    for place in BOTH {
        watched(move || {
            in_both_orders(
                place,
                |otel| filtered(otel, LevelFilter::INFO),
                |handle| handle.reload(LevelFilter::OFF).unwrap(),
                |[[mut sentry, otel], [sentry_after, otel_after]]| {
                    assert_whole(&sentry, &ALL);
                    sentry.remove(LATE);
                    assert_eq!(sentry, otel);
                    assert_whole(&sentry_after, &NAMES);
                    assert_eq!(otel_after, Ids::new());
                },
            );
        });
    }
}

/// A layer that is there or not, and another one that takes its place.
type Optional = (
    reload::Handle<Option<OtelLayer>, Registry>,
    std::sync::Mutex<Option<OtelLayer>>,
);

fn optional(now: Option<OtelLayer>, then: Option<OtelLayer>) -> (Boxed, Optional) {
    let (layer, handle) = reload::Layer::new(now);
    (Box::new(layer), (handle, std::sync::Mutex::new(then)))
}

fn exchange((handle, then): &Optional) {
    handle.reload(then.lock().unwrap().take()).unwrap();
}

#[test]
fn a_layer_that_is_added_has_spans_and_ids_of_its_own_from_then_on() {
    for place in BOTH {
        watched(move || {
            in_both_orders(
                place,
                |otel| optional(None, Some(otel)),
                exchange,
                |[[sentry, otel], [sentry_after, otel_after]]| {
                    assert_whole(&sentry, &ALL);
                    assert_eq!(otel.keys().collect::<Vec<_>>(), [LATE]);
                    assert_ne!(otel[LATE].0, sentry[LATE].0);
                    assert_whole(&sentry_after, &NAMES);
                    assert_eq!(otel_after.keys().collect::<Vec<_>>(), NAMES);
                    for name in NAMES {
                        // The request says which trace it is.
                        let is_same = sentry_after[name].0 == otel_after[name].0;
                        assert_eq!(is_same, !name.starts_with("Client"), "{name}");
                        assert_ne!(sentry_after[name].1, otel_after[name].1, "{name}");
                    }
                },
            );
        });
    }
}

/// Not in a span: the layer would leave that active on the thread, whoever else is
/// there.
#[test]
fn a_layer_that_is_removed_is_gone_and_sentry_stays() {
    watched(|| {
        in_both_orders(
            Place::Beside,
            |otel| optional(Some(otel), None),
            exchange,
            |[[sentry, otel], [sentry_after, otel_after]]| {
                assert_whole(&sentry, &ALL);
                // What has begun ends where tracing closes it.
                assert_eq!(otel.keys().collect::<Vec<_>>(), NAMES);
                assert_ne!(otel[NAMES[3]].1, sentry[NAMES[3]].1);
                assert_whole(&sentry_after, &NAMES);
                assert_eq!(otel_after, Ids::new());
            },
        );
    });
}
