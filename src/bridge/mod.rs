//! The tracing layer: spans become transactions and spans of Sentry, events
//! become breadcrumbs and errors.
//!
//! A [`SpanCell`](span_cell::SpanCell) lives behind each tracing span. It
//! starts lazily, so that a trace can be handed to it first, and belongs to a
//! [`LocalRoot`](local_root::LocalRoot): the part of a trace that this process
//! reports as one transaction. All spans of a root that are entered in it share
//! one hub; a task that runs beside it has a fork. They all share one trail, and the
//! [`RootTrace`](root_trace::RootTrace) in it, which goes out by two ways: to other
//! services in headers, and to Sentry with the transaction, by the
//! [`Collector`](collector::Collector). A root that goes on for long is
//! [cut](cut) into [`Parts`](parts::Parts), each a transaction of its own, where the
//! application wants that.

mod again;
mod attributes;
mod begun;
mod breadcrumb;
mod call_facts;
mod collector;
mod cut;
mod draft;
mod due;
mod duration;
mod hub_slot;
mod hubs;
mod late;
mod layer;
mod local_root;
#[cfg(all(test, sentry_tonic_loom))]
mod loom_models;
mod losses;
mod options;
mod origin;
mod otel_ids;
mod outbox;
mod parcel;
mod part_clock;
mod parts;
mod place;
mod recording;
mod repeats;
mod root_trace;
mod sampling;
mod sessions;
mod span_cell;
mod span_end;
mod span_facts;
mod span_hub;
mod span_sink;
mod span_state;
mod thread_stack;
mod told;
mod trace_transport;
mod trail;
mod trail_events;
mod trails;
mod visitor;

pub use self::layer::SentryGrpcLayer;
pub use self::trace_transport::TraceTransport;
pub(crate) use self::trace_transport::is_installed as is_trace_transport_installed;
