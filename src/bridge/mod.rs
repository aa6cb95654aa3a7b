//! The tracing layer: spans become transactions and spans of Sentry, events
//! become breadcrumbs and errors.
//!
//! A [`SpanCell`](span_cell::SpanCell) stands for each tracing span. It starts lazily, so
//! that the trace it continues can be set first, and belongs to a
//! [`LocalRoot`](local_root::LocalRoot): the part of a trace that this process
//! reports as one transaction. All spans of a root that are entered in it share
//! one hub; a task that runs beside it has a fork.
//!
//! All spans and forks of a root share one [`Trail`](trail::Trail): the breadcrumbs and the
//! facts that go onto each event captured in it. The [`RootTrace`](root_trace::RootTrace) in
//! the trail goes out in two ways: to other services in headers, and to Sentry with the
//! transaction, by the [`Collector`](collector::Collector). Where the application asks for it,
//! a long root is [cut](cut) into [`Parts`](parts::Parts), each a transaction of its own.

mod attributes;
mod begun;
mod breadcrumb;
mod call_facts;
mod carried_span;
mod collector;
mod cut;
mod draft;
mod due;
mod duration;
mod event_place;
mod hub_slot;
mod hubs;
mod layer;
mod local_root;
#[cfg(all(test, sentry_tonic_loom))]
mod loom_models;
mod options;
mod origin;
mod otel_ids;
mod part_clock;
mod parts;
mod recording;
mod repeats;
mod root_trace;
mod sampling;
mod sent_events;
mod sessions;
mod span_cell;
mod span_end;
mod span_facts;
mod span_hub;
mod span_sink;
mod span_state;
mod thread_stack;
mod trail;
mod trail_events;
mod trails;
mod visitor;

pub use self::layer::SentryTracingLayer;
