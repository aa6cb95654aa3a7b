//! From tonic-tracing-opentelemetry: Sentry beside OpenTelemetry, with its middleware or ours.

use http::Uri;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::Sampler;
use tonic::transport::Channel;
use tonic_tracing_opentelemetry::middleware::{client, server};
use tower::Layer;
use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryClientLayer, SentryTracingLayer};

use crate::migrating::calls::{self, CALLS};
use crate::migrating::stack::{OURS, Ours, Stack, Upstream, serve, upstream};
use crate::migrating::told::{lines, missing, row};
use crate::migrating::told_otel;
use crate::support::greeter::{Running, Scripted};
use crate::support::otel::Otel;

#[derive(Debug, Clone, Copy)]
struct TonicOtel;

impl Stack for TonicOtel {
    async fn serve(&self, greeter: Scripted) -> Running {
        serve!(greeter, server::OtelGrpcLayer::default())
    }

    fn upstream(&self, channel: Channel, _: Uri) -> Upstream {
        upstream!(client::OtelGrpcLayer.layer(channel))
    }
}

/// What OpenTelemetry is told, and what Sentry is, of each of the calls.
fn tables<T>(stack: &impl Stack, subscriber: impl Fn(&Otel) -> T) -> [String; 2]
where
    T: Subscriber + Send + Sync + 'static,
{
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let mut tables = [String::new(), String::new()];
    for name in CALLS {
        let otel = Otel::new(Sampler::AlwaysOn);
        let world = calls::world(subscriber(&otel));
        let ended = calls::make(&world, stack, name);
        tables[0] += &row(name, &ended, &told_otel::lines(&otel.spans(), &ended));
        tables[1] += &row(name, &ended, &lines(&world.received(), &ended));
    }
    tables
}

#[test]
fn calls_behind_each() {
    let [before, _] = tables(&TonicOtel, |otel| {
        registry().with(LevelFilter::INFO).with(otel.layer())
    });
    assert_eq!(before, include_str!("from_tonic_tracing_opentelemetry.txt"));
    let both = |otel: &Otel| {
        let registry = registry().with(LevelFilter::INFO);
        registry.with(SentryTracingLayer::new()).with(otel.layer())
    };
    let [kept, kept_in_sentry] = tables(&TonicOtel, both);
    assert_eq!(kept, before);
    let expected = include_str!("from_tonic_tracing_opentelemetry_kept.txt");
    assert_eq!(kept_in_sentry, expected);
    // With what others than us need to go on with a trace.
    let ours = Ours {
        client: SentryClientLayer::new().propagate_traceparent(true),
        ..Ours::default()
    };
    let [after, in_sentry] = tables(&ours, both);
    let expected = include_str!("from_tonic_tracing_opentelemetry_after.txt");
    assert_eq!(after, expected);
    assert_eq!(in_sentry, OURS);
    assert_eq!(missing(&before, &after), [""; 0]);
}
