//! Facts of trace headers: what a request says of the trace it belongs to, and
//! what is said of it to others.

mod baggage;
mod id;
mod incoming;
mod outgoing;
#[cfg(test)]
mod properties;
mod sample;
mod sampling_context;
mod sentry_trace;
mod targets;
mod trace_format;
mod traceparent;
mod w3c_span;

pub(crate) use self::incoming::{IncomingTrace, org_id};
pub use self::outgoing::TraceHeaders;
pub(crate) use self::sample::{SampleRand, SampleRate};
pub(crate) use self::sampling_context::{SamplingContext, TraceHead};
pub(crate) use self::sentry_trace::SentryTrace;
pub(crate) use self::targets::PropagationTargets;
pub use self::trace_format::TraceFormat;
pub(crate) use self::trace_format::TraceFormats;
pub use self::w3c_span::W3cSpan;
