//! Tower middleware for gRPC clients.

mod layer;
mod options;
mod service;

pub use self::layer::GrpcClientLayer;
pub use self::service::GrpcClientService;
