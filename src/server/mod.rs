//! Tower middleware for gRPC servers.

mod layer;
mod open;
mod options;
mod service;
#[cfg(feature = "tower-http")]
mod trace_callbacks;

pub use self::layer::SentryServerLayer;
pub use self::service::SentryServerService;
#[cfg(feature = "tower-http")]
pub use self::trace_callbacks::{SentryMakeSpan, SentryTraceCallbacks};
