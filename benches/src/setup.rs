//! What a process of a contestant sets up once: Sentry or OpenTelemetry, and a subscriber.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor,
};
use sentry::{ClientInitGuard, ClientOptions, Envelope, Transport};
use sentry_tonic::{SentryTracingLayer, TraceTransport};
use sentry_tracing::{BreadcrumbLayer, ErrorLayer, SpanLayer};
use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use crate::contestant::{Contestant, Sampling};

const DSN: &str = "https://key@o1.ingest.invalid/1";
/// For all that is measured, in the queue of a transport.
const ROOM: usize = 10_000;

/// Keeps Sentry and OpenTelemetry running.
#[must_use]
pub struct Running {
    _sentry: Option<ClientInitGuard>,
    _otel: Option<SdkTracerProvider>,
}

/// A layer that wants all and does nothing.
struct NoOp;

impl<S: Subscriber> Layer<S> for NoOp {}

/// Takes envelopes and drops them, where the real one hands them to a thread.
pub struct Nowhere;

impl Transport for Nowhere {
    fn send_envelope(&self, envelope: Envelope) {
        drop(envelope);
    }
}

/// Takes spans and drops them, where the real one hands them to a thread.
#[derive(Debug)]
struct DropSpans;

impl SpanProcessor for DropSpans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        drop(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// For the whole process: a subscriber of one thread would be looked up in other ways.
pub fn set_up(contestant: Contestant, sampling: Sampling) -> Running {
    let is_on_sentry = contestant.is_on_sentry() && sampling != Sampling::NoClient;
    let sentry = is_on_sentry.then(|| init_sentry(contestant, sampling));
    let otel = contestant.is_on_otel().then(|| otel_provider(sampling));
    let tracer = otel.as_ref().map(|provider| provider.tracer("benches"));
    if contestant != Contestant::Bare {
        subscribe(contestant, tracer);
    }
    Running {
        _sentry: sentry,
        _otel: otel,
    }
}

fn init_sentry(contestant: Contestant, sampling: Sampling) -> ClientInitGuard {
    let rate = match sampling {
        Sampling::On => 1.0,
        Sampling::Off | Sampling::NoClient => 0.0,
    };
    let options = ClientOptions::new()
        .dsn(DSN)
        .release("benches@1.0.0")
        .environment("production")
        .traces_sample_rate(rate);
    let nowhere = Arc::new(Nowhere);
    sentry::init(match contestant {
        // Its thread may get little time: what has no room would cost less, or more.
        Contestant::OursWithTraceTransport => options
            .transport_channel_capacity(ROOM)
            .transport(TraceTransport::new(nowhere)),
        _ => options.transport(nowhere),
    })
}

fn otel_provider(sampling: Sampling) -> SdkTracerProvider {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let root = match sampling {
        Sampling::On => Sampler::AlwaysOn,
        Sampling::Off | Sampling::NoClient => Sampler::AlwaysOff,
    };
    SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(root)))
        .with_span_processor(DropSpans)
        .build()
}

fn subscribe(contestant: Contestant, tracer: Option<SdkTracer>) {
    // Each is a subscriber type of its own, as in an application: boxed layers would cost more.
    let registry = registry().with(LevelFilter::INFO);
    match contestant {
        Contestant::Bare => {}
        Contestant::PlainSpan => registry.with(NoOp).init(),
        Contestant::PlainSpanFiltered => registry.with(NoOp.with_filter(LevelFilter::INFO)).init(),
        Contestant::Ours | Contestant::OursWithTraceTransport => {
            registry.with(SentryTracingLayer::new()).init();
        }
        Contestant::OursFiltered => {
            let layer = SentryTracingLayer::new().with_filter(LevelFilter::INFO);
            registry.with(layer).init();
        }
        Contestant::OursWithOtel => registry
            .with(SentryTracingLayer::new())
            .with(otel_layer(tracer))
            .init(),
        Contestant::SentryTower | Contestant::TowerHttp => registry.with(sentry_tracing()).init(),
        Contestant::MiddlewareWithOtel | Contestant::TonicOtel => {
            registry.with(otel_layer(tracer)).init()
        }
    }
}

fn otel_layer<S>(tracer: Option<SdkTracer>) -> Option<impl Layer<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracer.map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer))
}

/// With the filters that its documentation asks for: without, all events are errors.
fn sentry_tracing<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    SpanLayer::new()
        .with_filter(LevelFilter::INFO)
        .and_then(ErrorLayer::new().with_filter(LevelFilter::ERROR))
        .and_then(BreadcrumbLayer::new().with_filter(LevelFilter::INFO))
}
