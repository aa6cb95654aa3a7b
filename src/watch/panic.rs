//! What becomes of a panic in a watched call.

use crate::rpc::{self, Payload};

/// What a server does with a panic in a handler: in the call, or in the stream
/// of its replies.
///
/// Without this layer tonic's server resets the stream, and the caller sees CANCELLED. See [`GrpcServerLayer::on_panic`](crate::GrpcServerLayer::on_panic).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnPanic {
    /// Catch it, report it, and answer INTERNAL with a message that says nothing of
    /// it: in the response head, or where that has been sent, in the trailers.
    #[default]
    Answer,
    /// Catch it, report it, and let it go on to whatever is around the layer.
    Resume,
    /// Neither catch nor report it: `sentry`'s panic integration does, where it is
    /// there. The span is INTERNAL all the same.
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
