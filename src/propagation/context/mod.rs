//! The dynamic sampling context of a trace, and the `baggage` header that it travels in.

mod baggage;
mod envelope_context;
mod members;
#[cfg(test)]
mod properties;
mod received_context;
mod sampling_context;

pub(crate) use self::baggage::{BAGGAGE, Baggage};
pub(crate) use self::received_context::ReceivedContext;
pub(crate) use self::sampling_context::{SamplingContext, TraceHead};
