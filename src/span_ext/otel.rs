//! What is set on a span in OpenTelemetry, and its fields cannot carry.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Array, Context, KeyValue, StringValue};
use sentry_core::protocol::Value;
use tracing::span::Id;
use tracing::{Dispatch, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::propagation::{IncomingTrace, W3cSpanContext};
use crate::span_ext::sink::sink;
use crate::span_ext::thread_guard::guarded;

/// The current context, with the remote span that `traceparent` names, or else `sentry-trace`.
/// `None` where the ids are not valid.
pub(crate) fn remote_context(trace: &IncomingTrace) -> Option<Context> {
    let parent = trace.otel_parent();
    let (trace_id, span_id) = (parent.trace_id(), parent.span_id());
    let parent = SpanContext::new(
        TraceId::from_bytes(trace_id),
        SpanId::from_bytes(span_id),
        TraceFlags::default().with_sampled(parent.is_sampled()),
        true,
        // One that cannot be read is dropped, as W3C says.
        parent.state().parse::<TraceState>().unwrap_or_default(),
    );
    // Everything else in the context stays, such as baggage that the application has set.
    let current = Context::current();
    parent
        .is_valid()
        .then(|| current.with_remote_span_context(parent))
}

/// The ids that tracing-opentelemetry gave a span.
pub(crate) fn otel_span(id: &Id, dispatch: &Dispatch) -> Option<W3cSpanContext> {
    active_span(&tracing_opentelemetry::get_otel_context(id, dispatch)?)
}

fn active_span(context: &Context) -> Option<W3cSpanContext> {
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        let ids = W3cSpanContext::new(
            span.trace_id().to_bytes(),
            span.span_id().to_bytes(),
            span.is_sampled(),
        );
        ids.with_state(span.trace_state().header())
    })
}

/// The ids of a span that OpenTelemetry alone knows: there is no layer of ours, or no client.
pub(crate) fn otel_span_alone(span: &Span) -> Option<W3cSpanContext> {
    if sink(span).is_some() {
        return None;
    }
    let ids = || match Span::current().id() {
        // OpenTelemetry may have it locked: it calls samplers and processors, which may come
        // here, while it starts the span that is being entered.
        Some(current) if span.id().as_ref() == Some(&current) => active_span(&Context::current()),
        _ => span.with_subscriber(|(id, dispatch)| otel_span(id, dispatch))?,
    };
    guarded(ids).flatten()
}

/// Does nothing where there is no OpenTelemetry layer, or where it has started the span.
pub(crate) fn set_parent(span: &Span, context: Context) {
    guarded(|| span.set_parent(context).ok());
}

/// Sets attributes that are lists of texts, which fields of tracing cannot be.
pub(crate) fn set_attributes(span: &Span, attributes: Vec<(String, Value)>) {
    for (name, value) in attributes {
        let Value::Array(texts) = value else { continue };
        let texts = texts.iter().filter_map(Value::as_str);
        let texts = texts.map(|text| StringValue::from(text.to_owned()));
        let texts = Array::String(texts.collect());
        guarded(|| span.set_attribute(name, opentelemetry::Value::Array(texts)));
    }
}

/// Adds an event. `attributes` is called only where OpenTelemetry records the span.
pub(crate) fn add_event(
    span: &Span,
    name: &'static str,
    attributes: impl FnOnce() -> Option<Vec<(&'static str, String)>>,
) {
    guarded(|| {
        let context = span.context();
        let span = context.span();
        if span.is_recording()
            && let Some(attributes) = attributes()
        {
            let attributes = attributes.into_iter();
            let attributes = attributes.map(|(name, text)| KeyValue::new(name, text));
            span.add_event(name, attributes.collect());
        }
    });
}
