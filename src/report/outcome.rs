//! The end of an RPC, as the closures of an application see it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::Code;

use crate::rpc::{MethodPath, Outcome, RpcSide, code_name};

/// How an RPC ended.
///
/// Given to closures that choose what is reported, such as
/// [`SentryServerLayer::capture_if`](crate::SentryServerLayer::capture_if).
#[derive(Clone, Copy)]
pub struct RpcOutcome<'a> {
    pub(crate) side: RpcSide,
    pub(crate) path: &'a MethodPath,
    pub(crate) outcome: &'a Outcome,
    pub(crate) duration: Duration,
    pub(crate) cause: Option<&'a (dyn Error + 'static)>,
    pub(crate) is_panic: bool,
}

impl<'a> RpcOutcome<'a> {
    /// Which side of the call this is.
    #[must_use]
    pub fn side(&self) -> RpcSide {
        self.side
    }

    /// `helloworld.Greeter`; empty where the path of the request names none.
    #[must_use]
    pub fn service(&self) -> &'a str {
        self.path.service()
    }

    /// `SayHello`.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.path.method()
    }

    /// The status code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.outcome.code
    }

    /// The message of the status, at most 1024 bytes of it; `None` where it is
    /// empty or the call succeeded.
    #[must_use]
    pub fn message(&self) -> Option<&'a str> {
        self.outcome.message.as_deref()
    }

    /// From the call to the end of its response.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// What caused the failure: the source of the status, or the error of the transport.
    ///
    /// A status has the source that [`with_source`](crate::StatusExt::with_source) gave it. One
    /// that [`Status::set_source`](tonic::Status::set_source) gave it is here only if the handler
    /// returns the status: tonic drops it in a stream.
    #[must_use]
    pub fn source(&self) -> Option<&'a (dyn Error + 'static)> {
        self.cause
    }

    /// Whether the call panicked, and the panic was caught.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.is_panic
    }

    pub(crate) fn code_name(&self) -> &'static str {
        code_name(self.outcome.code)
    }

    /// To the microsecond: further digits would not be kept exactly.
    pub(crate) fn milliseconds(&self) -> f64 {
        self.duration.as_micros() as f64 / 1000.0
    }

    pub(crate) fn full_method(&self) -> &'a str {
        self.path.full()
    }
}

impl fmt::Debug for RpcOutcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcOutcome")
            .field("side", &self.side)
            .field("service", &self.service())
            .field("method", &self.method())
            .field("code", &self.code())
            .field("message", &self.message())
            .field("duration", &self.duration)
            .field("is_panic", &self.is_panic)
            .finish_non_exhaustive()
    }
}
