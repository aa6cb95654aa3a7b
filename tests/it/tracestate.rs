//! What other vendors say of a trace, which goes on with it.

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry_sdk::trace::Sampler;
use sentry::Hub;
use tonic::Request;
use tracing::{Span, info_span};
use tracing_subscriber::reload;

use sentry_tonic::{SemanticConventions, SentryClientLayer, SentrySpanExt};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::otel::{self, Otel, worlds};
use crate::support::otlp::{in_both_orders, serve};
use crate::support::world::World;

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
const W3C: (&str, &str) = (
    "traceparent",
    "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01",
);
const STATE: (&str, &str) = ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7");
const SENTRY: (&str, &str) = (
    "sentry-trace",
    "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1",
);
const OTHER: (&str, &str) = (
    "sentry-trace",
    "11111111111111111111111111111111-2222222222222222-1",
);

type Headers = [(&'static str, &'static str)];

fn with(headers: &Headers) -> Request<crate::support::helloworld::HelloRequest> {
    let mut request = Request::new(request("Ferris"));
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

/// What a handler's call has, whose own call has `headers`: trace and state.
fn handed_on(
    world: &World,
    layer: SentryClientLayer,
    headers: &Headers,
) -> (String, Option<String>) {
    let headers = world.run(async {
        let (behind, arrivals) = Scripted::new().serve_unobserved().await;
        let client = behind.observed_client(layer).await;
        let server = Scripted::new()
            .say_hello(move |name| {
                let mut client = client.clone();
                async move {
                    client.say_hello(request(&name)).await?;
                    Ok(reply(&name))
                }
            })
            .serve()
            .await;
        let mut client = server.client().await;
        client.say_hello(with(headers)).await.unwrap();
        drop(client);
        server.stop().await;
        behind.stop().await;
        arrivals.recv().unwrap()
    });
    let own = headers.get("traceparent").or(headers.get("sentry-trace"));
    let trace = own.unwrap().to_str().unwrap();
    let trace = trace.trim_start_matches("00-").split('-').next();
    (trace.unwrap().to_owned(), state(&headers))
}

fn state(headers: &HeaderMap) -> Option<String> {
    let mut states = headers.get_all("tracestate").iter();
    let state = states
        .next()
        .map(|state| state.to_str().unwrap().to_owned());
    assert_eq!(states.next(), None);
    state
}

fn w3c() -> SentryClientLayer {
    SentryClientLayer::new().propagate_traceparent(true)
}

#[test]
fn a_trace_goes_on_with_its_state() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let beside = worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel));
    let off = Otel::new(Sampler::AlwaysOff);
    let unsampled = worlds(&off, |sentry| Box::new(sentry), |otel| Box::new(otel));
    let apart = worlds(
        &otel,
        |sentry| Box::new(sentry),
        |otel| Box::new(reload::Layer::new(otel).0),
    );
    // As for a layer of another version.
    let hooked = worlds(
        &otel,
        |sentry| Box::new(sentry.otel_bridge(otel::ids, otel::set_parent)),
        |otel| Box::new(otel),
    );
    let alone = [World::new(), World::sampled(0.0)];
    for world in [beside, unsampled, apart, hooked, alone].as_flattened() {
        for headers in [&[W3C, STATE][..], &[SENTRY, W3C, STATE]] {
            let expected = (TRACE.to_owned(), Some(STATE.1.to_owned()));
            assert_eq!(handed_on(world, w3c(), headers), expected, "{headers:?}");
        }
        let halves = [W3C, ("tracestate", "congo=1"), ("tracestate", "rojo=2")];
        let expected = (TRACE.to_owned(), Some("congo=1,rojo=2".to_owned()));
        assert_eq!(handed_on(world, w3c(), &halves), expected);
        // It says nothing without the header that it belongs to.
        for headers in [
            &[SENTRY, STATE][..],
            &[SENTRY, ("traceparent", "00-x"), STATE],
            &[W3C],
        ] {
            let expected = (TRACE.to_owned(), None);
            assert_eq!(handed_on(world, w3c(), headers), expected, "{headers:?}");
        }
        let (_, state) = handed_on(world, SentryClientLayer::new(), &[W3C, STATE]);
        assert_eq!(state, None);
    }
}

#[test]
fn the_state_of_another_trace_is_not_mixed_in() {
    let headers = [OTHER, W3C, STATE];
    let expected = ("1".repeat(32), None);
    assert_eq!(handed_on(&World::new(), w3c(), &headers), expected);
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        let expected = (TRACE.to_owned(), Some(STATE.1.to_owned()));
        assert_eq!(handed_on(&world, w3c(), &headers), expected);
    }
}

#[test]
fn what_goes_on_after_its_call_has_the_state_too() {
    let world = World::new();
    let hub = world.run(async {
        let (hub, hubs) = std::sync::mpsc::channel();
        let greeter = Scripted::new().say_hello(move |name| {
            hub.send(Arc::new(Hub::new_from_top(Hub::current())))
                .unwrap();
            async move { Ok(reply(&name)) }
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        client.say_hello(with(&[W3C, STATE])).await.unwrap();
        drop(client);
        server.stop().await;
        hubs.recv().unwrap()
    });
    let mut headers = HeaderMap::new();
    world.sync(|| {
        Hub::run(hub, || {
            info_span!("late").in_scope(|| {
                let own = Span::current().trace_headers().unwrap();
                own.inject_traceparent(&mut headers);
            });
        });
    });
    assert_eq!(state(&headers).as_deref(), Some(STATE.1));
    assert!(headers["traceparent"].to_str().unwrap().contains(TRACE));
}

#[test]
fn a_collector_gets_the_state_that_came_in() {
    let calls = async || {
        let (server, mut client) = serve(Scripted::new(), SemanticConventions::Legacy).await;
        // It goes past the client's own trace.
        let mut unobserved = server.client().await;
        unobserved.say_hello(with(&[W3C, STATE])).await.unwrap();
        client.say_hello(request("Ferris")).await.unwrap();
        drop((client, unobserved));
        server.stop().await;
    };
    in_both_orders(calls, |_, spans, ()| {
        let mut states: Vec<_> = spans.iter().map(|span| span.trace_state.as_str()).collect();
        states.sort_unstable();
        assert_eq!(states, ["", "", STATE.1]);
    });
}
