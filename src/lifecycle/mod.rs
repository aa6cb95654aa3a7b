//! How one RPC ends, exactly once: the mechanism, which knows neither Sentry
//! nor tracing.
//!
//! A [`CallGuard`](guard::CallGuard) holds the [`Observer`] of a call. The
//! [`ResponseFuture`] of the response owns it until there is a response head,
//! then the [`ResponseBody`] does. Whoever sees the end takes the observer out
//! of the guard; a guard that is dropped with its observer is an RPC that was
//! dropped.

mod body;
mod deadline;
mod future;
mod guard;
mod observer;
mod panic;
mod request_body;
mod request_progress;

pub(crate) use self::body::ResponseBody;
pub(crate) use self::deadline::Deadline;
pub(crate) use self::future::ResponseFuture;
pub(crate) use self::guard::CallGuard;
pub(crate) use self::observer::Finished;
pub(crate) use self::observer::{Observer, Watch};
pub use self::panic::PanicPolicy;
pub(crate) use self::request_body::RequestBody;
pub(crate) use self::request_progress::RequestProgress;
