//! A collector of OpenTelemetry's that receives what calls are told to it.

use std::collections::BTreeMap;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use opentelemetry_semantic_conventions::attribute::{EXCEPTION_MESSAGE, EXCEPTION_TYPE};
use tokio::runtime::Runtime;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::registry::LookupSpan;

use sentry_tonic::{SemanticConventions, SentryClientLayer, SentryServerLayer, SentryTracingLayer};

use crate::support::collector::Collector;
use crate::support::greeter::{ObservedClient, Running, Scripted};
use crate::support::world::World;

/// An exporter and the collector that it exports to.
#[derive(Debug)]
struct Otlp {
    collector: Collector,
    provider: SdkTracerProvider,
    /// Of the exporter's connection.
    _runtime: Runtime,
}

impl Otlp {
    fn new() -> Self {
        let collector = Collector::start().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let entered = runtime.enter();
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(collector.endpoint())
            .build()
            .unwrap();
        drop(entered);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .build();
        Self {
            collector,
            provider,
            _runtime: runtime,
        }
    }

    fn layer<S>(&self) -> OpenTelemetryLayer<S, Tracer>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("test"))
    }

    /// All that it was sent.
    fn end(self) -> Vec<Span> {
        self.provider.shutdown().unwrap();
        self.collector.spans()
    }
}

/// Runs calls with both layers in a subscriber, in one order and in the other.
pub(crate) fn in_both_orders<T>(calls: impl AsyncFn() -> T, check: impl Fn(&World, Vec<Span>, T)) {
    for otel_first in [false, true] {
        let otlp = Otlp::new();
        let sentry = SentryTracingLayer::new();
        let world = if otel_first {
            let both = registry().with(otlp.layer()).with(sentry);
            World::subscribed(both.with(LevelFilter::INFO))
        } else {
            let both = registry().with(sentry).with(otlp.layer());
            World::subscribed(both.with(LevelFilter::INFO))
        };
        let result = world.run(calls());
        check(&world, otlp.end(), result);
    }
}

/// A server and a client of it, both observed.
pub(crate) async fn serve(
    greeter: Scripted,
    conventions: SemanticConventions,
) -> (Running, ObservedClient) {
    let layer = SentryServerLayer::new().semantic_conventions(conventions);
    let server = greeter.serve_with(layer).await;
    let layer = SentryClientLayer::new().semantic_conventions(conventions);
    let client = server.observed_client(layer).await;
    (server, client)
}

/// Of a span: name, status, its message, attributes.
pub(crate) type Told = (String, StatusCode, String, BTreeMap<String, Value>);

pub(crate) fn told(span: &Span) -> Told {
    // What tracing-opentelemetry knows of any span.
    let is_own = |key: &str| {
        !["code.", "thread."].iter().any(|own| key.starts_with(own))
            && !["target", "busy_ns", "idle_ns", "level"].contains(&key)
    };
    let mut attributes = BTreeMap::new();
    for attribute in span.attributes.iter().filter(|own| is_own(&own.key)) {
        let value = attribute.value.clone().unwrap().value.unwrap();
        let before = attributes.insert(attribute.key.clone(), value);
        assert_eq!(before, None, "{} is there twice", attribute.key);
    }
    let status = span.status.clone().unwrap_or_default();
    (span.name.clone(), status.code(), status.message, attributes)
}

/// The events of a span: their names, and what they say.
pub(crate) fn events(span: &Span) -> Vec<(String, BTreeMap<String, String>)> {
    let events = span.events.iter().map(|event| {
        let time = event.time_unix_nano;
        assert!(span.start_time_unix_nano <= time && time <= span.end_time_unix_nano);
        let attributes = event.attributes.iter().map(|attribute| {
            let value = attribute.value.clone().unwrap().value;
            let Some(Value::StringValue(text)) = value else {
                panic!("{value:?}")
            };
            (attribute.key.clone(), text)
        });
        (event.name.clone(), attributes.collect())
    });
    events.collect()
}

/// That of an exception, as the semantic conventions have it.
pub(crate) fn exception(ty: &str, message: Option<&str>) -> (String, BTreeMap<String, String>) {
    let message = message.map(|message| (EXCEPTION_MESSAGE, message));
    let attributes = [(EXCEPTION_TYPE, ty)].into_iter().chain(message);
    let attributes = attributes.map(|(name, text)| (name.to_owned(), text.to_owned()));
    ("exception".to_owned(), attributes.collect())
}

/// The one span of a side of a call.
pub(crate) fn only(spans: &[Span], kind: SpanKind) -> &Span {
    let mut of_kind = spans.iter().filter(|span| span.kind() == kind);
    let span = of_kind.next().unwrap();
    assert!(of_kind.next().is_none(), "{spans:?}");
    span
}
