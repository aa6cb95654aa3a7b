//! OpenTelemetry in less usual company: what it does meanwhile, and what it is not told.

use std::cell::Cell;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData, SpanProcessor,
};
use sentry::TransactionContext;
use tonic::Request;
use tracing::{Dispatch, Instrument, Span, info, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, registry, reload};

use sentry_tonic::{
    SentryClientLayer, SentryServerLayer, SentrySpanExt, SentryTracingLayer, TraceFormat,
    W3cSpanContext,
};

use crate::otel_traces::receive;
use crate::support::greeter::{Scripted, reply, request};
use crate::support::observed::keys;
use crate::support::otel::{
    self, NAMES, Otel, all_of_otel, assert_same, call, of_otel, of_sentry, worlds,
};
use crate::support::world::World;

/// Fails where it hangs.
fn in_time(run: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        run();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}

/// A processor that does something where a span starts.
#[derive(Debug)]
struct OnStart(fn());

impl SpanProcessor for OnStart {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {
        self.0();
    }

    fn on_end(&self, _: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Where the ids of a span are asked for while it is locked, this hangs.
fn assert_same_beside(on_start: fn()) {
    in_time(move || {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(OnStart(on_start))
            .with_simple_exporter(exporter.clone())
            .build();
        let otel = Otel { provider, exporter };
        for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
            otel.exporter.reset();
            world.sync(|| info_span!("job").in_scope(|| info_span!("step").in_scope(|| {})));
            let (sentry, otel) = (of_sentry(&world.received()), all_of_otel(&otel.spans()));
            assert_eq!(sentry.len(), 2);
            for name in ["Internal job", "Internal step"] {
                assert_eq!(sentry[name], otel[name], "{name}");
            }
        }
    });
}

#[test]
fn spans_that_opentelemetry_opens_while_it_starts_one_lock_nothing() {
    thread_local! {
        static IS_IN: Cell<bool> = const { Cell::new(false) };
    }
    assert_same_beside(|| {
        // It has spans of its own started, too.
        if !IS_IN.replace(true) {
            info_span!("of a processor").in_scope(|| {
                drop(Span::current().trace_headers());
                info_span!("inner").in_scope(|| {});
            });
            IS_IN.set(false);
        }
    });
}

#[test]
fn headers_that_are_asked_for_while_opentelemetry_starts_a_span_lock_nothing() {
    assert_same_beside(|| drop(Span::current().trace_headers()));
}

/// Of a task that goes on after the call that it was spawned in.
#[test]
fn a_call_after_the_transaction_was_sent_names_its_span_to_opentelemetry() {
    for rate in [1.0, 0.0] {
        let otel = Otel::new(Sampler::AlwaysOn);
        let layers = registry()
            .with(otel.layer())
            .with(SentryTracingLayer::new());
        let world = World::subscribed_at(rate, layers);
        let headers = world.run(async {
            let (other, arrivals) = Scripted::new().serve_unobserved().await;
            let layer = SentryClientLayer::new().propagate_traceparent(true);
            let client = other.observed_client(layer).await;
            let (task, tasks) = mpsc::channel();
            let (go, gone) = tokio::sync::watch::channel(false);
            let greeter = Scripted::new().say_hello(move |name| {
                let (mut client, mut gone) = (client.clone(), gone.clone());
                let late = async move {
                    gone.wait_for(|gone| *gone).await.unwrap();
                    client.say_hello(request("Ferris")).await.unwrap();
                };
                task.send(tokio::spawn(late.in_current_span())).unwrap();
                async move { Ok(reply(&name)) }
            });
            let server = greeter.serve().await;
            let mut client = server.client().await;
            client.say_hello(request("Ferris")).await.unwrap();
            drop(client);
            server.stop().await;
            go.send(true).unwrap();
            tasks.recv().unwrap().await.unwrap();
            arrivals.recv().unwrap()
        });
        let spans = of_otel(&otel.spans());
        let (trace_id, span_id, _) = &spans[NAMES[0]];
        let w3c = headers["traceparent"].to_str().unwrap();
        assert_eq!(w3c, format!("00-{trace_id}-{span_id}-01"), "{rate}");
    }
}

/// A span that OpenTelemetry's filter leaves out.
#[test]
fn a_span_that_opentelemetry_does_not_see_names_the_one_around_it() {
    for rate in [1.0, 0.0] {
        let otel = Otel::new(Sampler::AlwaysOn);
        let hide = otel
            .layer()
            .with_filter(filter_fn(|of| of.name() != "hidden"));
        let layers = registry().with(hide).with(SentryTracingLayer::new());
        let world = World::subscribed_at(rate, layers);
        let headers = world.sync(|| {
            let _outer = info_span!("outer").entered();
            let _hidden = info_span!("hidden").entered();
            Span::current().trace_headers().unwrap()
        });
        let (trace_id, span_id, _) = &all_of_otel(&otel.spans())["Internal outer"];
        assert_eq!(
            headers.traceparent(),
            format!("00-{trace_id}-{span_id}-01"),
            "{rate}"
        );
        let received = of_sentry(&world.received());
        let named = headers.sentry_trace().split('-').nth(1).unwrap();
        if rate == 1.0 {
            assert_eq!(named, received["Internal hidden"].1);
        }
    }
}

const W3C: &str = "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01";

#[test]
fn a_tracestate_may_have_spaces_and_empty_members() {
    for (value, expected) in [
        ("a=1,b=2", "a=1,b=2"),
        ("a=1, b=2", "a=1,b=2"),
        ("a=1 \t, b=2,", "a=1,b=2"),
        ("a=1,,b=2", "a=1,b=2"),
        ("nonsense", ""),
    ] {
        let otel = Otel::new(Sampler::AlwaysOn);
        let [world, _] = worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel));
        receive(
            &world,
            &otel,
            &[("traceparent", W3C), ("tracestate", value)],
        );
        let spans = otel.spans();
        let span = spans
            .iter()
            .find(|span| span.name == "helloworld.Greeter/SayHello")
            .unwrap();
        assert_eq!(
            span.span_context.trace_state().header(),
            expected,
            "{value:?}"
        );
    }
}

#[test]
fn a_layer_in_an_option_has_the_same_ids_before_any_call() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &otel,
        |sentry| Box::new(Some(sentry)),
        |otel| Box::new(otel),
    ) {
        otel.exporter.reset();
        world.sync(|| info_span!("job").in_scope(|| info_span!("step").in_scope(|| {})));
        assert_eq!(of_sentry(&world.received()), all_of_otel(&otel.spans()));
    }
}

#[test]
fn a_subscriber_that_is_set_again_and_again_has_the_same_ids() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let mut world = World::new();
    let layers = registry().with(SentryTracingLayer::new());
    let subscriber = Arc::new(layers.with(otel.layer()));
    for _ in 0..2 {
        otel.exporter.reset();
        world.dispatch = Dispatch::new(Arc::clone(&subscriber));
        world.sync(|| info_span!("job").in_scope(|| {}));
        world.dispatch = Dispatch::none();
        assert_eq!(of_sentry(&world.received()), all_of_otel(&otel.spans()));
    }
}

/// What the application has put into the context around the call.
#[test]
fn what_is_in_the_context_of_opentelemetry_stays_there() {
    #[derive(Debug, PartialEq, Clone, Copy)]
    struct Tenant(u8);

    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        world.sync(|| {
            let context = Context::current().with_value(Tenant(7));
            let _attached = context.attach();
            let span = info_span!("job");
            span.continue_trace([("traceparent", W3C)]).unwrap();
            let _entered = span.entered();
            let context = Context::current();
            assert_eq!(context.get::<Tenant>(), Some(&Tenant(7)));
            let parent = context.span().span_context().trace_id().to_string();
            assert!(W3C.contains(&parent));
        });
    }
}

#[test]
fn an_opentelemetry_layer_that_cannot_be_asked_has_the_same_parents() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &otel,
        |sentry| Box::new(sentry),
        |otel| Box::new(reload::Layer::new(otel).0),
    ) {
        let [sentry, exported] = receive(&world, &otel, &[("traceparent", W3C)]);
        let (sentry, exported) = (&sentry[NAMES[3]], &exported[NAMES[3]]);
        assert_eq!((&sentry.0, &sentry.2), (&exported.0, &exported.2));
        let parent = sentry.2.as_deref().unwrap();
        assert_eq!(W3C, format!("00-{}-{parent}-01", sentry.0));
        assert_ne!(sentry.1, exported.1);
        // What is attached does not stay.
        let [_, exported] = receive(&world, &otel, &[]);
        assert_eq!(exported[NAMES[3]].2, None);
    }
}

#[test]
fn contexts_that_are_not_activated_change_nothing() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &otel,
        |sentry| Box::new(sentry),
        |otel| Box::new(otel.with_context_activation(false)),
    ) {
        otel.exporter.reset();
        world.run(call());
        assert_same(&world, &otel, "not activated");
    }
}

/// An event in it starts a span, at a time when OpenTelemetry must not be asked.
#[test]
fn a_span_that_an_event_starts_has_an_id_of_its_own_in_the_same_trace() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        otel.exporter.reset();
        let headers = world.sync(|| {
            let _outer = info_span!("outer").entered();
            let late = info_span!("late");
            info!(parent: &late, "before it is entered");
            late.in_scope(|| Span::current().trace_headers().unwrap())
        });
        let (sentry, otel) = (of_sentry(&world.received()), all_of_otel(&otel.spans()));
        let (outer, late) = (&otel["Internal outer"], &sentry["Internal late"]);
        assert_eq!((&late.0, late.2.as_ref()), (&outer.0, Some(&outer.1)));
        assert_ne!(late.1, otel["Internal late"].1);
        let (trace_id, span_id, _) = outer;
        assert_eq!(headers.traceparent(), format!("00-{trace_id}-{span_id}-01"));
        assert_eq!(headers.sentry_trace(), format!("{}-{}-1", late.0, late.1));
    }
}

#[test]
fn each_has_the_parent_that_its_own_header_names() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        let other = "09e04486820349518ac7b5d2adbf6ba5-1111111111111111-1";
        let headers = [("sentry-trace", other), ("traceparent", W3C)];
        let [sentry, otel] = receive(&world, &otel, &headers);
        let (sentry, otel) = (&sentry[NAMES[3]], &otel[NAMES[3]]);
        assert_eq!((&sentry.0, &sentry.1), (&otel.0, &otel.1));
        assert_eq!(sentry.2.as_deref(), Some("1111111111111111"));
        assert_eq!(otel.2.as_deref(), Some("9cf635fa5b870b3a"));
    }
}

/// As for a layer of another version.
#[test]
fn hooks_know_a_layer_that_nobody_else_knows() {
    fn parent(span: &Span, parent: &W3cSpanContext) {
        assert_eq!((parent.is_sampled(), parent.state()), (true, "a=b"));
        let trace_id = TraceId::from_bytes(parent.trace_id());
        let mut span_id = parent.span_id();
        // To tell it from what is told without a hook.
        span_id[0] = 0xff;
        let span_id = SpanId::from_bytes(span_id);
        let flags = TraceFlags::SAMPLED;
        let parent = SpanContext::new(trace_id, span_id, flags, true, Default::default());
        let context = Context::new().with_remote_span_context(parent);
        span.set_parent(context).unwrap();
    }
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &otel,
        |sentry| Box::new(sentry.otel_bridge(otel::ids, parent)),
        |otel| Box::new(otel),
    ) {
        let headers = [("traceparent", W3C), ("tracestate", "a=b")];
        let [sentry, exported] = receive(&world, &otel, &headers);
        let (sentry, exported) = (&sentry[NAMES[3]], &exported[NAMES[3]]);
        assert_eq!((&sentry.0, &sentry.1), (&exported.0, &exported.1));
        assert_eq!(exported.2.as_deref(), Some("fff635fa5b870b3a"));
        otel.exporter.reset();
        world.sync(|| {
            let job = info_span!("job");
            job.continue_trace(headers).unwrap();
            job.in_scope(|| {});
        });
        let exported = &all_of_otel(&otel.spans())["Internal job"];
        assert_eq!(exported.2.as_deref(), Some("fff635fa5b870b3a"));
    }
}

/// The call goes on without a parent there.
#[test]
fn a_hook_for_parents_may_panic() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &otel,
        |sentry| Box::new(sentry.otel_bridge(otel::ids, |_, _| panic!("no parent"))),
        |otel| Box::new(otel),
    ) {
        let [sentry, _] = receive(&world, &otel, &[("traceparent", W3C)]);
        let (trace_id, _, parent) = &sentry[NAMES[3]];
        let parent = parent.as_deref().unwrap();
        assert_eq!(W3C, format!("00-{trace_id}-{parent}-01"));
    }
}

#[test]
fn a_span_that_opentelemetry_has_started_continues_a_trace_in_sentry_alone() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        otel.exporter.reset();
        world.sync(|| {
            let job = info_span!("job");
            let step = info_span!(parent: &job, "step");
            job.continue_trace([("traceparent", W3C)]).unwrap();
            job.in_scope(|| step.in_scope(|| {}));
        });
        let (sentry, otel) = (of_sentry(&world.received()), all_of_otel(&otel.spans()));
        let (trace_id, job, parent) = &sentry["Internal job"];
        assert_eq!(
            W3C,
            format!("00-{trace_id}-{}-01", parent.as_ref().unwrap())
        );
        assert_eq!(sentry["Internal step"].2.as_ref(), Some(job));
        assert_ne!(&otel["Internal job"].0, trace_id);
        assert_eq!(
            otel["Internal step"].2.as_ref(),
            Some(&otel["Internal job"].1)
        );
    }
}

#[test]
fn a_call_takes_the_tracestate_of_its_server_along() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        let headers = world.run(async {
            let (other, arrivals) = Scripted::new().serve_unobserved().await;
            let layer = SentryClientLayer::new().propagate_traceparent(true);
            let client = other.observed_client(layer).await;
            let greeter = Scripted::new().say_hello(move |name| {
                let mut client = client.clone();
                async move {
                    let mut onwards = Request::new(request("Ferris"));
                    let state = "of=another".parse().unwrap();
                    onwards.metadata_mut().insert("tracestate", state);
                    client.say_hello(onwards).await.unwrap();
                    Ok(reply(&name))
                }
            });
            let server = greeter.serve().await;
            let mut client = server.client().await;
            let mut request = Request::new(request("Ferris"));
            let metadata = request.metadata_mut();
            metadata.insert("traceparent", W3C.parse().unwrap());
            metadata.append("tracestate", "a=1".parse().unwrap());
            metadata.append("tracestate", "b=2".parse().unwrap());
            client.say_hello(request).await.unwrap();
            drop(client);
            server.stop().await;
            other.stop().await;
            arrivals.recv().unwrap()
        });
        let states: Vec<_> = headers.get_all("tracestate").iter().collect();
        assert_eq!(states, ["a=1,b=2"]);
    }
}

#[test]
fn headers_of_a_trace_that_opentelemetry_does_not_share_name_its_own_spans() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let other = "11111111111111111111111111111111-2222222222222222-1";
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        otel.exporter.reset();
        let headers = world.sync(|| {
            let job = info_span!("job");
            let both = [("sentry-trace", other), ("traceparent", W3C)];
            job.continue_trace(both).unwrap();
            job.in_scope(|| Span::current().trace_headers().unwrap())
        });
        let (sentry, otel) = (of_sentry(&world.received()), all_of_otel(&otel.spans()));
        let (sentry, otel) = (&sentry["Internal job"], &otel["Internal job"]);
        assert_eq!(
            headers.sentry_trace(),
            format!("{}-{}-1", sentry.0, sentry.1)
        );
        assert_eq!(
            headers.traceparent(),
            format!("00-{}-{}-01", otel.0, otel.1)
        );
    }
}

#[test]
fn opentelemetry_is_told_of_the_headers_alone_that_are_read() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let [world, _] = worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel));
    let other = "11111111111111111111111111111111-2222222222222222-1";
    world.run(async {
        let layer = SentryServerLayer::new().incoming_trace_formats([TraceFormat::SentryTrace]);
        let server = Scripted::new().serve_with(layer).await;
        let mut client = server.client().await;
        let mut request = Request::new(request("Ferris"));
        for (name, value) in [("sentry-trace", other), ("traceparent", W3C)] {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        client.say_hello(request).await.unwrap();
        drop(client);
        server.stop().await;
    });
    let (sentry, otel) = (of_sentry(&world.received()), of_otel(&otel.spans()));
    assert_eq!(sentry[NAMES[3]].2.as_deref(), Some("2222222222222222"));
    assert_eq!(sentry, otel);
}

#[test]
fn a_traceparent_that_is_not_sampled_is_not_sampled_in_opentelemetry() {
    let otel = Otel::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        let unsampled = W3C.replace("-01", "-00");
        let [sentry, otel] = receive(&world, &otel, &[("traceparent", &unsampled)]);
        assert!(W3C.contains(&sentry[NAMES[3]].0));
        assert!(!otel.contains_key(NAMES[3]));
    }
}

/// One that continues the same trace as OpenTelemetry.
#[test]
fn spans_in_a_transaction_of_the_same_trace_have_the_same_ids() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &otel,
        |_| Box::new(SentryTracingLayer::new()),
        |otel| Box::new(otel),
    ) {
        otel.exporter.reset();
        world.sync(|| {
            let trace = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
            let headers = [("sentry-trace", trace)];
            let context = TransactionContext::continue_from_headers("own", "task", headers);
            let transaction = sentry::start_transaction(context);
            sentry::configure_scope(|scope| scope.set_span(Some(transaction.clone().into())));
            let remote = SpanContext::new(
                TraceId::from_hex(&W3C[3..35]).unwrap(),
                SpanId::from_hex(&W3C[36..52]).unwrap(),
                TraceFlags::SAMPLED,
                true,
                TraceState::default(),
            );
            let context = Context::current().with_remote_span_context(remote);
            let _attached = context.attach();
            info_span!("inner").in_scope(|| {});
            transaction.finish();
        });
        let (sentry, otel) = (of_sentry(&world.received()), all_of_otel(&otel.spans()));
        let (sentry, otel) = (&sentry["Internal inner"], &otel["Internal inner"]);
        assert_eq!((&sentry.0, &sentry.1), (&otel.0, &otel.1));
    }
}

#[test]
fn a_client_tells_opentelemetry_of_the_metadata_it_sends() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let [world, _] = worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel));
    world.run(async {
        let server = Scripted::new().serve().await;
        let layer = SentryClientLayer::new().request_metadata(keys(["x-tenant"]));
        let mut client = server.observed_client(layer).await;
        let mut request = Request::new(request("Ferris"));
        let tenant = "acme".parse().unwrap();
        request.metadata_mut().insert("x-tenant", tenant);
        client.say_hello(request).await.unwrap();
        drop(client);
        server.stop().await;
    });
    let spans = otel.spans();
    let client = |span: &&SpanData| span.span_kind == SpanKind::Client;
    let span = spans.iter().find(client).unwrap();
    let key = "rpc.grpc.request.metadata.x_tenant";
    let told = span.attributes.iter().find(|told| told.key.as_str() == key);
    assert_eq!(told.unwrap().value.to_string(), r#"["acme"]"#);
}
