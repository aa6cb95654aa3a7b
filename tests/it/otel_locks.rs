//! What OpenTelemetry has locked while it calls out.

use std::sync::mpsc;
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData, SpanProcessor,
};
use tracing::{Span, info_span};

use sentry_tonic::SentrySpanExt;

use crate::support::otel::{NAMES, Otel, call, of_otel, of_sentry, worlds};

/// A processor that traces, as OpenTelemetry's own do.
#[derive(Debug)]
struct Chatty;

impl SpanProcessor for Chatty {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {
        tracing::error!("a span starts");
    }

    fn on_end(&self, _: SpanData) {
        tracing::warn!("a span ends");
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Where the ids of a span are asked for while it is locked, this hangs.
#[test]
fn what_opentelemetry_traces_while_it_starts_a_span_locks_nothing() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Chatty)
            .with_simple_exporter(exporter.clone())
            .build();
        let otel = Otel { provider, exporter };
        for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
            otel.exporter.reset();
            world.run(call());
            let (sentry, otel) = (of_sentry(&world.received()), of_otel(&otel.spans()));
            for name in NAMES {
                assert_eq!(sentry[name].0, otel[name].0, "{name}");
            }
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn events_and_headers_of_spans_that_were_never_entered_lock_nothing() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let otel = Otel::new(Sampler::AlwaysOn);
        for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
            world.sync(|| {
                let span = info_span!("job");
                tracing::error!(parent: &span, "of a span that was not entered");
                let inner = info_span!(parent: &span, "inner");
                let headers = inner.trace_headers().unwrap();
                inner.in_scope(|| drop(Span::current().trace_headers()));
                drop((span, inner, headers));
                drop(info_span!("never entered"));
            });
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}
