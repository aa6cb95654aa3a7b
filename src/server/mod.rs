//! Tower middleware for gRPC servers.

mod layer;
mod open;
mod options;
mod service;
#[cfg(feature = "tower-http")]
mod trace_hooks;

pub use self::layer::GrpcServerLayer;
pub use self::service::GrpcServerService;
#[cfg(feature = "tower-http")]
pub use self::trace_hooks::{GrpcMakeSpan, GrpcTraceHooks};
