//! Facts of trace headers: what an incoming request says of the trace it
//! belongs to.

mod incoming;
mod sentry_trace;

pub(crate) use self::incoming::IncomingTrace;
