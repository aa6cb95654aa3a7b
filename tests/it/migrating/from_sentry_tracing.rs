//! From sentry-tracing alone, by its layers or by the one that they came from.

use http::Uri;
use sentry_tracing::{BreadcrumbLayer, ErrorLayer, SpanLayer};
use serde_json::json;
use tonic::transport::Channel;
use tracing::{Level, Subscriber, error, info_span};
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, registry};

use sentry_tonic::SentryTracingLayer;

use crate::migrating::calls;
use crate::migrating::stack::{OURS, Ours, Stack, Upstream, serve, upstream};
use crate::migrating::told::{missing, names, table};
use crate::support::greeter::{Running, Scripted};
use crate::support::world::World;

/// With the filters that its documentation asks for.
pub(crate) fn sentry_tracing<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let is_breadcrumb =
        |metadata: &tracing::Metadata<'_>| matches!(*metadata.level(), Level::WARN | Level::INFO);
    SpanLayer::new()
        .with_filter(LevelFilter::INFO)
        .and_then(BreadcrumbLayer::new().with_filter(filter_fn(is_breadcrumb)))
        .and_then(ErrorLayer::new().with_filter(LevelFilter::ERROR))
}

/// No middleware.
#[derive(Debug, Clone, Copy)]
struct Bare;

impl Stack for Bare {
    async fn serve(&self, greeter: Scripted) -> Running {
        serve!(greeter, tower::layer::util::Identity::new())
    }

    fn upstream(&self, channel: Channel, _: Uri) -> Upstream {
        upstream!(channel)
    }
}

#[test]
fn calls_under_either() {
    let before = table(&Bare, || calls::world(registry().with(sentry_tracing())));
    assert_eq!(before, include_str!("from_sentry_tracing.txt"));
    let alone = table(&Bare, || {
        calls::world(registry().with(SentryTracingLayer::new()))
    });
    assert_eq!(alone, include_str!("from_sentry_tracing_layer_alone.txt"));
    assert_eq!(missing(&before, &alone), [""; 0]);
    let ours = Ours::default();
    let after = table(&ours, || {
        calls::world(registry().with(SentryTracingLayer::new()))
    });
    assert_eq!(after, OURS);
    assert_eq!(missing(&before, &after), [""; 0]);
}

#[test]
#[expect(deprecated, reason = "it is what is migrated from")]
fn the_layer_of_before_tells_the_same() {
    let split = table(&Bare, || calls::world(registry().with(sentry_tracing())));
    let combined = table(&Bare, || {
        calls::world(registry().with(sentry_tracing::layer()))
    });
    assert_eq!(combined, split);
}

/// Tells of an error what its spans have, as its documentation asks for it.
fn with_spans<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let is_told = LevelFilter::ERROR.or(filter_fn(|metadata| metadata.is_span()));
    ErrorLayer::new()
        .enable_span_attributes()
        .with_filter(is_told)
}

/// A field of a span is data of that span, and not of events in it.
#[test]
fn span_attributes_on_events_are_of_span_layers() {
    let fields = |world: &World| {
        let told = || {
            let span = info_span!(target: "greeter", "export", table = "names");
            span.in_scope(|| error!("the store is down"));
        };
        world.sync(told);
        let received = world.received();
        let fields = received.only_event().contexts.get("Rust Tracing Fields");
        serde_json::to_value(fields).unwrap()
    };
    let spans = SpanLayer::new();
    let before = fields(&calls::world(registry().with(spans).with(with_spans())));
    let names = json!({"type": "unknown", "export:table": "names"});
    assert_eq!(before, names);
    let ours = SentryTracingLayer::new().capture_errors(false);
    let after = fields(&calls::world(registry().with(ours).with(with_spans())));
    assert_eq!(after, json!(null));
}

/// Where the old layer was forgotten, each call is two transactions.
#[test]
fn what_is_left_of_it_shows() {
    let both = registry().with(SentryTracingLayer::new());
    let world = calls::world(both.with(sentry_tracing()));
    calls::make(&world, &Ours::default(), "ok");
    assert_eq!(
        names(&world),
        ["/helloworld.Greeter/SayHello", "grpc.server"]
    );
}
