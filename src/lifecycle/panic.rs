//! What becomes of a panic in a watched call.

use crate::rpc::{self, Payload};

/// What a server does with a panic in a handler: in the call, or in the stream
/// of its replies.
///
/// Without this layer tonic's server resets the stream, and the caller sees CANCELLED. See
/// [`SentryServerLayer::panic_policy`](crate::SentryServerLayer::panic_policy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PanicPolicy {
    /// Catches the panic, reports it, and returns INTERNAL with a message that does not describe
    /// the panic: in the response head, or in the trailers if the head has been sent.
    #[default]
    ReturnInternal,
    /// Catches the panic, reports it, and resumes unwinding into whatever is around the layer.
    ResumeUnwind,
    /// Neither catches nor reports the panic. The panic integration of `sentry` reports it, where
    /// it is installed. The span is INTERNAL all the same.
    Ignore,
}

/// A panic that was caught, on its way to be reported.
#[derive(Debug)]
pub(crate) struct CaughtPanic {
    payload: Payload,
}

impl CaughtPanic {
    /// Runs `f`, and catches its panic. What panicked must not be used again, only dropped.
    pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Self> {
        rpc::caught(f).map_err(|payload| Self { payload })
    }

    /// The message, if the payload is text.
    pub(crate) fn message(&self) -> Option<&str> {
        let text = self.payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| self.payload.downcast_ref::<&'static str>().copied())
    }

    pub(crate) fn resume(self) -> ! {
        std::panic::resume_unwind(self.payload)
    }

    /// Drops the payload.
    pub(crate) fn discard(self) {
        rpc::discard(self.payload);
    }
}
