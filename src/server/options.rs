//! What a server layer can be told, shared by all the services it makes.

use std::time::Duration;

use crate::call::CallOptions;
use crate::report::Capture;

const DEFAULT_OP: &str = "grpc.server";

#[derive(Debug, Clone)]
pub(crate) struct GrpcServerOptions {
    pub(crate) call: CallOptions,
    pub(crate) force_transaction: bool,
    pub(crate) server_timeout: Option<Duration>,
}

impl Default for GrpcServerOptions {
    fn default() -> Self {
        Self {
            call: CallOptions::new(DEFAULT_OP, Capture::server_default(), false),
            force_transaction: false,
            server_timeout: None,
        }
    }
}
