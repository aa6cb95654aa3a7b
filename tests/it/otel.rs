//! Sentry and OpenTelemetry in one subscriber: the same spans, the same ids.

use opentelemetry_sdk::trace::Sampler;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, reload};

use sentry_tonic::SentryTracingLayer;

use crate::support::otel::{
    Boxed, NAMES, Otel, OtelLayer, assert_same, call, of_otel, of_sentry, worlds,
};

#[test]
fn both_know_the_same_spans_by_the_same_ids() {
    type WrapSentry = fn(SentryTracingLayer) -> Boxed;
    type WrapOtel = fn(OtelLayer) -> Boxed;
    let cases: [(&str, WrapSentry, WrapOtel); 5] = [
        ("plain", |sentry| Box::new(sentry), |otel| Box::new(otel)),
        (
            "filtered",
            |sentry| Box::new(sentry.with_filter(LevelFilter::INFO)),
            |otel| Box::new(otel.with_filter(LevelFilter::INFO)),
        ),
        (
            "optional",
            |sentry| Box::new(Some(sentry)),
            |otel| Box::new(Some(otel)),
        ),
        (
            "several",
            |sentry| Box::new(vec![sentry]),
            |otel| Box::new(vec![otel]),
        ),
        (
            "reloaded",
            |sentry| Box::new(reload::Layer::new(sentry).0),
            |otel| Box::new(otel),
        ),
    ];
    for (case, sentry, otel) in cases {
        let exported = Otel::new(Sampler::AlwaysOn);
        for world in worlds(&exported, sentry, otel) {
            exported.exporter.reset();
            world.run(call());
            assert_same(&world, &exported, case);
        }
    }
}

#[test]
fn what_opentelemetry_does_not_sample_has_its_ids_too() {
    let otel = Otel::new(Sampler::AlwaysOff);
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        world.run(call());
        let sentry = of_sentry(&world.received());
        assert_eq!(sentry.keys().collect::<Vec<_>>(), NAMES);
        let [client, _, _, server] = NAMES.map(|name| sentry[name].clone());
        assert_eq!(
            (&server.0, server.2.as_deref()),
            (&client.0, Some(client.1.as_str()))
        );
        assert_eq!(otel.spans().len(), 0);
    }
}

#[test]
fn an_opentelemetry_layer_that_cannot_be_asked_has_ids_of_its_own() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &otel,
        |sentry| Box::new(sentry),
        |otel| Box::new(reload::Layer::new(otel).0),
    ) {
        otel.exporter.reset();
        world.run(call());
        let (sentry, otel) = (of_sentry(&world.received()), of_otel(&otel.spans()));
        assert_eq!(sentry.keys().collect::<Vec<_>>(), NAMES);
        assert_eq!(otel.keys().collect::<Vec<_>>(), NAMES);
        assert_ne!(sentry[NAMES[0]].0, otel[NAMES[0]].0);
    }
}
