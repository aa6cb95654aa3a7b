//! What a watched RPC reports to.

use std::error::Error;
use std::time::Duration;

use http::HeaderMap;

use crate::lifecycle::panic::PanicPolicy;
use crate::lifecycle::request_progress::RequestProgress;
use crate::rpc::{Outcome, RpcSide};

/// What is done around and at the end of an observed RPC.
///
/// Implemented by this crate alone.
pub trait Observer: Watch {
    /// Asked before every poll.
    #[doc(hidden)]
    fn panic_policy(&self) -> PanicPolicy;

    /// On which end the RPC is observed.
    #[doc(hidden)]
    fn side(&self) -> RpcSide;

    /// Called with the response head, and with the trailers, before the end.
    #[doc(hidden)]
    fn see_response(&mut self, headers: &HeaderMap);

    /// Called exactly once, outside of any entered scope.
    #[doc(hidden)]
    fn end(self, finished: Finished<'_>);
}

/// Something to enter while a part of an RPC is polled.
///
/// Implemented by this crate alone.
pub trait Watch {
    /// Leaves the scope when it is dropped.
    #[doc(hidden)]
    type Entered<'a>
    where
        Self: 'a;

    /// Called before every poll of the future and of both bodies.
    #[doc(hidden)]
    fn enter(&self) -> Self::Entered<'_>;

    /// How far the request has come: the same for all that watch an RPC.
    #[doc(hidden)]
    fn progress(&self) -> &RequestProgress;
}

/// An RPC that has ended.
#[derive(Debug)]
pub struct Finished<'a> {
    pub(crate) outcome: Outcome,
    /// What it failed with, where that is more than the outcome says.
    pub(crate) cause: Option<&'a (dyn Error + 'static)>,
    /// What it panicked with, where the panic was caught.
    pub(crate) panic: Option<&'a str>,
    /// From the call to the end.
    pub(crate) duration: Duration,
    /// `None` where they could not be counted.
    pub(crate) response_messages: Option<u32>,
}
