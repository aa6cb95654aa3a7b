//! What OpenTelemetry has locked while it calls out.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData, SpanProcessor,
};
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentrySpanExt, SentryTracingLayer, TracePropagationInterceptor};

use crate::support::greeter::{Scripted, request};
use crate::support::otel::{Boxed, NAMES, Otel, OtelLayer, call, of_otel, of_sentry, worlds};
use crate::support::world::World;

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

fn chatty() -> Otel {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Chatty)
        .with_simple_exporter(exporter.clone())
        .build();
    Otel { provider, exporter }
}

/// Where the ids of a span are asked for while it is locked, this hangs.
#[test]
fn what_opentelemetry_traces_while_it_starts_a_span_locks_nothing() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let otel = chatty();
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

/// A processor that calls another service, as those may that ask whether a span is wanted.
#[derive(Debug)]
struct Calling;

impl SpanProcessor for Calling {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {
        let mut interceptor = TracePropagationInterceptor::new().propagate_traceparent(true);
        interceptor.call(Request::new(())).unwrap();
    }

    fn on_end(&self, _: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn what_opentelemetry_calls_while_it_starts_a_span_locks_nothing() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Calling)
            .with_simple_exporter(exporter.clone())
            .build();
        let otel = Otel { provider, exporter };
        for is_enabled in [true, false] {
            for has_layer in [true, false] {
                let layer = has_layer.then(SentryTracingLayer::new);
                let world = World::subscribed(registry().with(otel.layer()).with(layer));
                if !is_enabled {
                    world.hub.bind_client(None);
                }
                world.sync(|| info_span!("job").in_scope(|| ()));
            }
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}

/// An error that does whatever it likes while it is printed.
#[derive(Debug)]
struct Meddling;

impl fmt::Display for Meddling {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        tracing::error!("an error is printed");
        let span = Span::current();
        span.add_event("printed", vec![]);
        drop((span.context(), span.trace_headers()));
        panic!("this error is meant to panic");
    }
}

impl Error for Meddling {}

#[test]
fn an_error_is_printed_while_nothing_is_locked() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        for activates in [true, false] {
            let otel = chatty();
            let wrap =
                |otel: OtelLayer| -> Boxed { Box::new(otel.with_context_activation(activates)) };
            for world in worlds(&otel, |sentry| Box::new(sentry), wrap) {
                otel.exporter.reset();
                world.run(async {
                    let greeter = Scripted::new().say_hello(|_| async {
                        let mut status = Status::internal("sorry");
                        status.set_source(Arc::new(Meddling));
                        Err(status)
                    });
                    let server = greeter.serve().await;
                    let mut client = server.client().await;
                    let answer = client.say_hello(request("Ferris")).await.unwrap_err();
                    assert_eq!((answer.code(), answer.message()), (Code::Internal, "sorry"));
                    drop(client);
                    server.stop().await;
                });
                let spans = otel.spans();
                let server = spans.iter().find(|span| span.span_kind == SpanKind::Server);
                let mut events = server.unwrap().events.iter();
                let event = events.find(|event| event.name == "exception").unwrap();
                let [ty] = &event.attributes[..] else {
                    panic!("{event:?}")
                };
                assert_eq!(*ty, KeyValue::new("exception.type", "Meddling"));
            }
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}
