//! An OpenTelemetry SDK beside Sentry, in one subscriber, and what both know.

use std::collections::BTreeMap;
use std::str::FromStr;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData, Tracer,
};
use sentry::protocol::Transaction;
use tracing::span::Id;
use tracing::{Dispatch, Span, info_span, instrument};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, registry};

use sentry_tonic::{SentryClientLayer, SentryTracingLayer, W3cSpanContext};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::received::{Received, trace};
use crate::support::world::World;

/// The ids of a span, for [`SentryTracingLayer::otel_bridge`], as of a layer of another version.
pub(crate) fn ids(id: &Id, dispatch: &Dispatch) -> Option<W3cSpanContext> {
    let context = tracing_opentelemetry::get_otel_context(id, dispatch)?;
    let span = context.span().span_context().clone();
    let (trace_id, span_id) = (span.trace_id().to_bytes(), span.span_id().to_bytes());
    let ids = W3cSpanContext::new(trace_id, span_id, span.is_sampled());
    Some(ids.with_state(span.trace_state().header()))
}

/// Sets the remote parent of a span, for [`SentryTracingLayer::otel_bridge`].
pub(crate) fn set_parent(span: &Span, parent: &W3cSpanContext) {
    let parent = SpanContext::new(
        TraceId::from_bytes(parent.trace_id()),
        SpanId::from_bytes(parent.span_id()),
        TraceFlags::default().with_sampled(parent.is_sampled()),
        true,
        TraceState::from_str(parent.state()).unwrap_or_default(),
    );
    let context = Context::new().with_remote_span_context(parent);
    span.set_parent(context).unwrap();
}

/// An OpenTelemetry SDK of a test's own.
pub(crate) struct Otel {
    pub(crate) provider: SdkTracerProvider,
    pub(crate) exporter: InMemorySpanExporter,
}

impl Otel {
    pub(crate) fn new(sampler: Sampler) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(sampler)
            .build();
        Self { provider, exporter }
    }

    pub(crate) fn layer<S>(&self) -> OpenTelemetryLayer<S, Tracer>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("test"))
    }

    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }
}

/// A span by its ids: its own and its parent's.
pub(crate) type Ids = BTreeMap<String, (String, String, Option<String>)>;

pub(crate) fn all_of_otel(spans: &[SpanData]) -> Ids {
    let ids = spans.iter().map(|span| {
        let parent = Some(span.parent_span_id).filter(|id| *id != SpanId::INVALID);
        let context = &span.span_context;
        let ids = (
            context.trace_id().to_string(),
            context.span_id().to_string(),
            parent.map(|id| id.to_string()),
        );
        (format!("{:?} {}", span.span_kind, span.name), ids)
    });
    ids.collect()
}

pub(crate) fn of_otel(spans: &[SpanData]) -> Ids {
    let mut ids = all_of_otel(spans);
    // tonic's own dependencies trace every frame.
    ids.retain(|name, _| NAMES.contains(&name.as_str()));
    ids
}

/// Under the names that they have in OpenTelemetry.
pub(crate) fn of_sentry(received: &Received) -> Ids {
    let own = |transaction: &Transaction<'_>| {
        let trace = trace(transaction);
        let op = trace.op.clone().unwrap();
        let name = transaction.name.clone().unwrap();
        let parent = trace.parent_span_id.map(|id| id.to_string());
        let ids = (
            trace.trace_id.to_string(),
            trace.span_id.to_string(),
            parent,
        );
        (named(&op, &name), ids)
    };
    let mut ids: Ids = received.transactions.iter().map(own).collect();
    for transaction in &received.transactions {
        ids.extend(transaction.spans.iter().map(|span| {
            let op = span.op.as_deref().unwrap();
            let name = span.description.as_deref().unwrap();
            let parent = span.parent_span_id.map(|id| id.to_string());
            let ids = (span.trace_id.to_string(), span.span_id.to_string(), parent);
            (named(op, name), ids)
        }));
    }
    ids
}

fn named(op: &str, name: &str) -> String {
    let kind = match op {
        "grpc.server" => SpanKind::Server,
        "grpc.client" => SpanKind::Client,
        _ => SpanKind::Internal,
    };
    format!("{kind:?} {}", name.trim_start_matches('/'))
}

#[instrument]
pub(crate) async fn look_up() -> &'static str {
    info_span!("query").in_scope(|| "nobody")
}

/// A call whose handler has spans of its own, from a client in one too.
pub(crate) async fn call() {
    let greeter = Scripted::new().say_hello(|name| async move {
        look_up().await;
        Ok(reply(&name))
    });
    let server = greeter.serve().await;
    let mut client = server.observed_client(SentryClientLayer::new()).await;
    client.say_hello(request("Ferris")).await.unwrap();
    drop(client);
    server.stop().await;
}

pub(crate) const NAMES: [&str; 4] = [
    "Client helloworld.Greeter/SayHello",
    "Internal look_up",
    "Internal query",
    "Server helloworld.Greeter/SayHello",
];

#[track_caller]
pub(crate) fn assert_same(world: &World, otel: &Otel, case: &str) {
    let (sentry, otel) = (of_sentry(&world.received()), of_otel(&otel.spans()));
    assert_eq!(sentry.keys().collect::<Vec<_>>(), NAMES, "{case}");
    assert_eq!(sentry, otel, "{case}");
}

pub(crate) type OtelLayer = OpenTelemetryLayer<Registry, Tracer>;

pub(crate) type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// Both layers in a subscriber, in one order and in the other.
pub(crate) fn worlds(
    otel: &Otel,
    wrap_sentry: impl Fn(SentryTracingLayer) -> Boxed,
    wrap_otel: impl Fn(OtelLayer) -> Boxed,
) -> [World; 2] {
    [false, true].map(|otel_first| {
        let sentry = wrap_sentry(SentryTracingLayer::new());
        let otel = wrap_otel(otel.layer());
        let layers = if otel_first {
            vec![otel, sentry]
        } else {
            vec![sentry, otel]
        };
        let mut layers = layers.into_iter();
        let first = layers.next().unwrap().and_then(layers.next().unwrap());
        World::subscribed(registry().with(first))
    })
}
