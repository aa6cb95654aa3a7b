//! What becomes of a panic in a watched call.

use crate::rpc::{self, Payload};

/// What a server does with a panic in a handler: in the call, or in the stream
/// of its replies.
///
/// Without any of this tonic's server resets the stream, and the caller sees
/// CANCELLED. See [`GrpcServerLayer::on_panic`](crate::GrpcServerLayer::on_panic).
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
    /// Runs `f`, catching its panic. Of what panicked nothing must be used again,
    /// but to drop it.
    pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Self> {
        rpc::caught(f).map_err(|payload| Self { payload })
    }

    /// What was said, where that was text.
    pub(crate) fn message(&self) -> Option<&str> {
        let text = self.payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| self.payload.downcast_ref::<&'static str>().copied())
    }

    pub(crate) fn resume(self) -> ! {
        std::panic::resume_unwind(self.payload)
    }

    /// Ends it here.
    pub(crate) fn discard(self) {
        rpc::discard(self.payload);
    }
}
