//! Tower middleware for gRPC servers.

mod layer;
mod options;
mod service;

pub use self::layer::GrpcServerLayer;
pub use self::service::GrpcServerService;
