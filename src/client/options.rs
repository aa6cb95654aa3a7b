//! The options of a client layer, shared by all the services it makes.

use std::sync::Arc;

use http::Uri;

use crate::call::CallOptions;
use crate::propagation::PropagationTargets;
use crate::report::Capture;

const DEFAULT_OP: &str = "grpc.client";

#[derive(Debug, Clone)]
pub(crate) struct ClientLayerOptions {
    pub(crate) call: Arc<CallOptions>,
    pub(crate) endpoint: Option<Uri>,
    pub(crate) only_if_parent: bool,
    pub(crate) traceparent: bool,
    pub(crate) targets: PropagationTargets,
}

impl Default for ClientLayerOptions {
    fn default() -> Self {
        Self {
            call: Arc::new(CallOptions {
                breadcrumbs: true,
                ..CallOptions::new(DEFAULT_OP, Capture::client_default())
            }),
            endpoint: None,
            only_if_parent: false,
            traceparent: false,
            targets: PropagationTargets::default(),
        }
    }
}
