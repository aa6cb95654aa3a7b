//! Trace headers: reading those of a request, and making those for other services. Knows
//! nothing of spans.

mod context;
mod id;
mod incoming;
mod outgoing;
mod random_id;
mod sample;
mod sentry_trace;
mod targets;
mod trace_format;
mod traceparent;
mod w3c_span_context;

pub(crate) use self::context::{SamplingContext, TraceHead};
pub(crate) use self::id::{span_id_hex, trace_id_hex};
pub(crate) use self::incoming::{IncomingTrace, org_id};
pub use self::outgoing::TraceHeaders;
pub(crate) use self::random_id::{new_span_id, new_trace_id};
pub(crate) use self::sample::{SampleRand, SampleRate};
pub(crate) use self::sentry_trace::SentryTrace;
pub(crate) use self::targets::PropagationTargets;
pub use self::trace_format::TraceFormat;
pub(crate) use self::trace_format::TraceFormats;
pub use self::w3c_span_context::W3cSpanContext;
