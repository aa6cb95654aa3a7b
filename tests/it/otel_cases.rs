//! Which spans have the ids that they have in OpenTelemetry, and which have others.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::Sampler;
use tonic::Request;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Instrument, Span, debug_span, dispatcher, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, registry};

use sentry_tonic::{SentryClientLayer, SentrySpanExt, SentryTracingLayer, W3cSpanContext};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::otel::{
    self, Boxed, Ids, NAMES, Otel, OtelLayer, all_of_otel, assert_same, call, look_up, of_otel,
    of_sentry, worlds,
};
use crate::support::world::World;

type WrapSentry = fn(SentryTracingLayer) -> Boxed;
type WrapOtel = fn(OtelLayer) -> Boxed;

fn plain_sentry(sentry: SentryTracingLayer) -> Boxed {
    Box::new(sentry)
}

fn plain_otel(otel: OtelLayer) -> Boxed {
    Box::new(otel)
}

/// Runs in both orders of layers, that with Sentry's inside first; returns what Sentry
/// and what OpenTelemetry then know.
fn traced(sentry: WrapSentry, otel: WrapOtel, run: impl Fn(&World)) -> [[Ids; 2]; 2] {
    let exported = Otel::new(Sampler::AlwaysOn);
    worlds(&exported, sentry, otel).map(|world| {
        exported.exporter.reset();
        run(&world);
        [of_sentry(&world.received()), all_of_otel(&exported.spans())]
    })
}

#[track_caller]
fn assert_apart(sentry: &Ids, otel: &Ids, name: &str) {
    assert_ne!(sentry[name].0, otel[name].0, "the trace of {name}");
    assert_ne!(sentry[name].1, otel[name].1, "the id of {name}");
}

#[test]
fn a_hook_tells_the_ids_of_any_layer() {
    let exported = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &exported,
        |sentry| Box::new(sentry.otel_bridge(otel::ids, otel::set_parent)),
        plain_otel,
    ) {
        exported.exporter.reset();
        world.run(call());
        assert_same(&world, &exported, "by a hook");
    }
}

#[test]
fn a_layer_that_no_hook_knows_has_ids_of_its_own() {
    let hooks: [WrapSentry; 3] = [
        |sentry| Box::new(sentry.otel_bridge(|_, _| None, otel::set_parent)),
        |sentry| {
            Box::new(sentry.otel_bridge(
                |_, _| Some(W3cSpanContext::new([0; 16], [0; 8], true)),
                otel::set_parent,
            ))
        },
        |sentry| {
            Box::new(sentry.otel_bridge(
                |_, _| panic!("this hook is meant to panic"),
                otel::set_parent,
            ))
        },
    ];
    for hook in hooks {
        for [sentry, otel] in traced(hook, plain_otel, |world| world.run(call())) {
            assert_eq!(sentry.keys().collect::<Vec<_>>(), NAMES);
            assert_ne!(sentry[NAMES[0]].0, otel[NAMES[0]].0);
            for name in NAMES {
                assert_ne!(sentry[name].1, otel[name].1, "{name}");
            }
            let client = &sentry[NAMES[0]];
            let server = &sentry[NAMES[3]];
            assert_eq!((&server.0, server.2.as_ref()), (&client.0, Some(&client.1)));
        }
    }
}

#[test]
fn spans_that_were_never_entered_have_the_same_ids_where_sentry_is_inside() {
    let run = |world: &World| {
        world.sync(|| {
            drop(info_span!("alone"));
            let _entered = info_span!("outer").entered();
            drop(info_span!("inner"));
            let around = info_span!("around");
            info_span!(parent: &around, "entered").in_scope(|| {});
        });
    };
    let [sentry_inside, otel_inside] = traced(plain_sentry, plain_otel, run);
    let [sentry, otel] = sentry_inside;
    assert_eq!(sentry.len(), 5);
    assert_eq!(sentry, otel);
    let [mut sentry, mut otel] = otel_inside;
    assert_eq!(sentry.len(), 5);
    assert_apart(&sentry, &otel, "Internal alone");
    let (inner, theirs) = (&sentry["Internal inner"], &otel["Internal inner"]);
    assert_ne!(inner.1, theirs.1);
    assert_eq!((&inner.0, &inner.2), (&theirs.0, &theirs.2));
    for name in ["Internal alone", "Internal inner"] {
        sentry.remove(name);
        otel.remove(name);
    }
    assert_eq!(sentry, otel);
}

#[test]
fn spans_that_one_of_the_two_leaves_out_change_no_other_ids() {
    let run = |world: &World| {
        world.sync(|| {
            let _outer = info_span!("outer").entered();
            {
                let _hidden = info_span!("hidden").entered();
                info_span!("in hidden").in_scope(|| {});
            }
            let _quiet = debug_span!("quiet").entered();
            info_span!("in quiet").in_scope(|| {});
        });
    };
    let hide: WrapOtel = |otel| Box::new(otel.with_filter(filter_fn(|of| of.name() != "hidden")));
    for [sentry, otel] in traced(plain_sentry, hide, run) {
        assert_eq!(sentry.len(), 4);
        assert_eq!(sentry["Internal outer"], otel["Internal outer"]);
        let (trace_id, outer, _) = &sentry["Internal outer"];
        let hidden = &sentry["Internal hidden"];
        assert_eq!((&hidden.0, hidden.2.as_ref()), (trace_id, Some(outer)));
        assert!(!otel.contains_key("Internal hidden"));
        for (name, in_sentry, in_otel) in [
            ("Internal in hidden", &hidden.1, outer),
            ("Internal in quiet", outer, &otel["Internal quiet"].1),
        ] {
            let (sentry, otel) = (&sentry[name], &otel[name]);
            assert_eq!((&sentry.0, &sentry.1), (&otel.0, &otel.1), "{name}");
            assert_eq!(sentry.2.as_ref(), Some(in_sentry));
            assert_eq!(otel.2.as_ref(), Some(in_otel));
        }
    }
}

#[test]
fn a_trace_that_begins_where_opentelemetry_sees_nothing_is_sentrys_alone() {
    let run = |world: &World| {
        world.sync(|| {
            let _hidden = info_span!("hidden").entered();
            info_span!("inner").in_scope(|| {});
        });
    };
    let hide: WrapOtel = |otel| Box::new(otel.with_filter(filter_fn(|of| of.name() != "hidden")));
    for [sentry, otel] in traced(plain_sentry, hide, run) {
        assert_apart(&sentry, &otel, "Internal inner");
        let (hidden, inner) = (&sentry["Internal hidden"], &sentry["Internal inner"]);
        assert_eq!((&inner.0, inner.2.as_ref()), (&hidden.0, Some(&hidden.1)));
    }
}

#[test]
fn spans_in_a_transaction_of_the_application_have_ids_of_sentrys() {
    let run = |world: &World| {
        world.sync(|| {
            let transaction =
                sentry::start_transaction(sentry::TransactionContext::new("own", "task"));
            sentry::configure_scope(|scope| scope.set_span(Some(transaction.clone().into())));
            info_span!("inner").in_scope(|| {});
            transaction.finish();
        });
    };
    let sentry: WrapSentry = |_| Box::new(SentryTracingLayer::new());
    for [sentry, otel] in traced(sentry, plain_otel, run) {
        assert_apart(&sentry, &otel, "Internal inner");
        let (own, inner) = (&sentry["Internal own"], &sentry["Internal inner"]);
        assert_eq!((&inner.0, inner.2.as_ref()), (&own.0, Some(&own.1)));
    }
}

#[test]
fn spans_on_other_threads_have_the_same_ids() {
    let run = |world: &World| {
        world.sync(|| {
            let outer = info_span!("outer");
            let _entered = outer.enter();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    dispatcher::with_default(&world.dispatch, || {
                        let _again = outer.enter();
                        info_span!("inner").in_scope(|| {});
                    });
                });
            });
        });
    };
    for [sentry, otel] in traced(plain_sentry, plain_otel, run) {
        assert_eq!(sentry.len(), 2);
        assert_eq!(sentry, otel);
    }
    let exported = Otel::new(Sampler::AlwaysOn);
    for world in worlds(&exported, plain_sentry, plain_otel) {
        exported.exporter.reset();
        world.run_threads(2, async {
            let greeter = Scripted::new().say_hello(|name| async move {
                let task = tokio::spawn(look_up().instrument(Span::current()));
                task.await.unwrap();
                Ok(reply(&name))
            });
            let server = greeter.serve().await;
            let mut client = server.observed_client(SentryClientLayer::new()).await;
            client.say_hello(request("Ferris")).await.unwrap();
            drop(client);
            server.stop().await;
        });
        assert_same(&world, &exported, "spawned");
    }
}

const W3C: &str = "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01";
const SENTRY: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";

#[test]
fn a_span_that_continues_a_trace_by_hand_does_so_in_both() {
    let run = |world: &World| {
        world.sync(|| {
            let job = info_span!("job");
            job.continue_trace([("sentry-trace", SENTRY)]).unwrap();
            job.in_scope(|| info_span!("step").in_scope(|| {}));
        });
    };
    for [sentry, otel] in traced(plain_sentry, plain_otel, run) {
        assert_eq!(sentry, otel);
        let (trace_id, _, parent) = &sentry["Internal job"];
        assert_eq!(SENTRY, format!("{trace_id}-{}-1", parent.as_ref().unwrap()));
    }
}

/// By a field, of which OpenTelemetry knows nothing, and by OpenTelemetry's own means.
#[test]
fn a_span_that_is_told_of_its_parent_for_one_of_the_two_has_it_there_alone() {
    let run = |world: &World| {
        world.sync(|| {
            info_span!("by field", sentry.trace = SENTRY).in_scope(|| {});
            let ids = TraceId::from_hex("7").unwrap();
            let remote = SpanContext::new(
                ids,
                SpanId::from_hex("8").unwrap(),
                TraceFlags::SAMPLED,
                true,
                TraceState::default(),
            );
            let span = info_span!("by context");
            let context = opentelemetry::Context::new().with_remote_span_context(remote);
            span.set_parent(context).unwrap();
            span.in_scope(|| {});
        });
    };
    for [sentry, otel] in traced(plain_sentry, plain_otel, run) {
        assert_apart(&sentry, &otel, "Internal by field");
        assert!(SENTRY.starts_with(&sentry["Internal by field"].0));
        let (sentry, otel) = (&sentry["Internal by context"], &otel["Internal by context"]);
        assert_eq!((&sentry.0, &sentry.1), (&otel.0, &otel.1));
        assert_eq!(otel.2.as_deref(), Some("0000000000000008"));
        assert_eq!(sentry.2, None);
    }
}

/// Of another organization.
#[test]
fn a_trace_that_sentry_must_not_continue_is_not_continued_by_way_of_opentelemetry() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for (organization, is_continued) in [("42", true), ("43", false)] {
        let options = |options: sentry::ClientOptions| {
            let options = options.traces_sample_rate(1.0);
            options.dsn("https://public@o42.ingest.sentry.io/1")
        };
        let layers = registry()
            .with(otel.layer())
            .with(SentryTracingLayer::new());
        let world = World::of(options, layers);
        world.run(async {
            let server = Scripted::new().serve().await;
            let mut client = server.client().await;
            let mut request = Request::new(request("Ferris"));
            let baggage = format!("sentry-org_id={organization}");
            for (name, value) in [("sentry-trace", SENTRY), ("baggage", &baggage)] {
                request.metadata_mut().insert(name, value.parse().unwrap());
            }
            client.say_hello(request).await.unwrap();
            drop(client);
            server.stop().await;
        });
        let sentry = of_sentry(&world.received());
        let (trace_id, _, parent) = &sentry[NAMES[3]];
        assert_eq!(
            SENTRY.starts_with(trace_id.as_str()),
            is_continued,
            "{organization}"
        );
        assert_eq!(parent.is_some(), is_continued);
    }
}

/// Without Sentry's layer.
#[test]
fn opentelemetry_alone_has_its_parents_too() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let dispatch = Dispatch::new(registry().with(otel.layer()).with(LevelFilter::INFO));
    dispatcher::with_default(&dispatch, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let server = Scripted::new().serve().await;
            let mut client = server.client().await;
            let mut request = Request::new(request("Ferris"));
            request
                .metadata_mut()
                .insert("traceparent", W3C.parse().unwrap());
            client.say_hello(request).await.unwrap();
            drop(client);
            server.stop().await;
        });
    });
    let (trace_id, _, parent) = &of_otel(&otel.spans())[NAMES[3]];
    let parent = parent.as_ref().unwrap();
    assert_eq!(W3C, format!("00-{trace_id}-{parent}-01"));
}
