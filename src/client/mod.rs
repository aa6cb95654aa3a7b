//! Tower middleware for gRPC clients.

#[cfg(feature = "transport")]
mod channel;
mod layer;
mod options;
mod service;

#[cfg(feature = "transport")]
pub use self::channel::{SentryChannel, channel, connect};
pub use self::layer::SentryClientLayer;
pub use self::service::SentryClientService;
