//! Traces that come in and go out where both backends are there.

use http::HeaderMap;
use opentelemetry_sdk::trace::Sampler;
use tonic::Request;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryClientLayer, SentryTracingLayer};

use crate::support::greeter::{Scripted, request};
use crate::support::otel::{Ids, NAMES, Otel, of_otel, of_sentry, worlds};
use crate::support::world::World;

/// What a call with these headers is, in Sentry and in OpenTelemetry.
pub(crate) fn receive(world: &World, otel: &Otel, headers: &[(&'static str, &str)]) -> [Ids; 2] {
    otel.exporter.reset();
    world.run(async {
        let server = Scripted::new().serve().await;
        let mut client = server.client().await;
        let mut request = Request::new(request("Ferris"));
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        client.say_hello(request).await.unwrap();
        drop(client);
        server.stop().await;
    });
    [of_sentry(&world.received()), of_otel(&otel.spans())]
}

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
const SPAN: &str = "9cf635fa5b870b3a";
const SENTRY: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-0";
const W3C: &str = "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-01";

#[test]
fn both_go_on_from_the_span_that_a_request_names() {
    let otel = Otel::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        let sampled = &SENTRY.replace("-0", "-1");
        let both = [("sentry-trace", sampled.as_str()), ("traceparent", W3C)];
        for headers in [&both[..], &both[..1], &both[1..]] {
            let [sentry, otel] = receive(&world, &otel, headers);
            let (trace_id, _, parent) = &sentry[NAMES[3]];
            let parent = parent.as_deref();
            assert_eq!(
                (trace_id.as_str(), parent),
                (TRACE, Some(SPAN)),
                "{headers:?}"
            );
            assert_eq!(sentry, otel, "{headers:?}");
        }
        // Whether Sentry samples is none of OpenTelemetry's business.
        let unsampled = [("sentry-trace", SENTRY)];
        let [sentry, exported] = receive(&world, &otel, &unsampled);
        assert_eq!(sentry, Ids::new());
        assert_eq!(exported[NAMES[3]].0, TRACE);
        // Of two traces, each goes on with its own.
        let two = [("sentry-trace", sampled.as_str()), ("traceparent", OTHER)];
        let [sentry, exported] = receive(&world, &otel, &two);
        assert_eq!(sentry[NAMES[3]].0, TRACE);
        assert_eq!(exported[NAMES[3]].0, "1".repeat(32));
        assert_ne!(sentry[NAMES[3]].1, exported[NAMES[3]].1);
    }
}

#[test]
fn a_client_hands_on_what_opentelemetry_knows_of_its_span() {
    for (sampler, rate, flags) in [
        (Sampler::AlwaysOn, 1.0, "01"),
        (Sampler::AlwaysOn, 0.0, "01"),
        (Sampler::AlwaysOff, 1.0, "00"),
    ] {
        let otel = Otel::new(Sampler::ParentBased(Box::new(sampler)));
        let layers = registry()
            .with(otel.layer())
            .with(SentryTracingLayer::new());
        let world = World::subscribed_at(rate, layers);
        let headers = world.run(arrives());
        let sentry = headers["sentry-trace"].to_str().unwrap();
        let w3c = headers["traceparent"].to_str().unwrap();
        let ids = sentry.rsplit_once('-').unwrap().0;
        assert_eq!(w3c, format!("00-{ids}-{flags}"));
        if flags == "01" {
            let (trace_id, span_id, _) = &of_otel(&otel.spans())[NAMES[0]];
            assert_eq!(ids, format!("{trace_id}-{span_id}"));
        }
    }
}

/// What a server gets from a client that hands on `traceparent`.
async fn arrives() -> HeaderMap {
    let (server, arrivals) = Scripted::new().serve_unobserved().await;
    let layer = SentryClientLayer::new().propagate_traceparent(true);
    let mut client = server.observed_client(layer).await;
    client.say_hello(request("Ferris")).await.unwrap();
    drop(client);
    server.stop().await;
    arrivals.recv().unwrap()
}

#[test]
fn a_trace_of_opentelemetry_goes_on_where_sentry_is_not() {
    for (is_enabled, level) in [
        (false, Some(LevelFilter::INFO)),
        (false, None),
        (true, None),
        // The layer leaves the spans of calls out.
        (true, Some(LevelFilter::WARN)),
    ] {
        for (sampler, flags) in [(Sampler::AlwaysOn, "01"), (Sampler::AlwaysOff, "00")] {
            let otel = Otel::new(sampler);
            let layer = level.map(|level| SentryTracingLayer::new().span_level(level));
            let world = World::subscribed(registry().with(otel.layer()).with(layer));
            if !is_enabled {
                world.hub.bind_client(None);
            }
            let headers = world.run(arrives());
            // The trace of a scope goes out without a layer, too, and is another one.
            assert_eq!(headers.contains_key("sentry-trace"), is_enabled);
            let w3c = headers["traceparent"].to_str().unwrap();
            assert!(w3c.ends_with(flags), "{w3c}");
            if flags == "01" {
                let (trace_id, span_id, _) = &of_otel(&otel.spans())[NAMES[0]];
                assert_eq!(w3c, format!("00-{trace_id}-{span_id}-01"));
            }
        }
    }
}
