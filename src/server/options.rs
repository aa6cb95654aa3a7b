//! The options of a server layer, shared by all the services it makes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::call::CallOptions;
use crate::lifecycle::PanicPolicy;
use crate::propagation::{IncomingTrace, TraceFormats};
use crate::report::{CallerIdentity, Capture, ClaimTargets};
use crate::rpc;

const DEFAULT_OP: &str = "grpc.server";

type IdentifyFn = dyn Fn(&Parts) -> CallerIdentity + Send + Sync;
type TrustFn = dyn Fn(&Parts) -> bool + Send + Sync;

#[derive(Clone)]
pub(crate) struct ServerLayerOptions {
    pub(crate) call: Arc<CallOptions>,
    pub(crate) identify_caller: Option<Arc<IdentifyFn>>,
    pub(crate) claims: ClaimTargets,
    pub(crate) formats: TraceFormats,
    /// `None` where the traces of all callers are continued.
    pub(crate) trusts: Option<Arc<TrustFn>>,
    pub(crate) force_transaction: bool,
    pub(crate) server_timeout: Option<Duration>,
}

impl ServerLayerOptions {
    /// The trace that a request names, unless its caller is not trusted. A closure that panics
    /// trusts nobody.
    pub(crate) fn incoming(&self, parts: &Parts) -> Option<IncomingTrace> {
        let incoming = IncomingTrace::from_headers(&parts.headers, &self.formats)?;
        let is_trusted = match &self.trusts {
            Some(trusts) => rpc::contained(|| trusts(parts)).unwrap_or(false),
            None => true,
        };
        is_trusted.then_some(incoming)
    }
}

impl Default for ServerLayerOptions {
    fn default() -> Self {
        Self {
            call: Arc::new(CallOptions {
                panic_policy: PanicPolicy::ReturnInternal,
                ..CallOptions::new(DEFAULT_OP, Capture::server_default())
            }),
            identify_caller: None,
            claims: ClaimTargets::default(),
            formats: TraceFormats::default(),
            trusts: None,
            force_transaction: false,
            server_timeout: None,
        }
    }
}

impl fmt::Debug for ServerLayerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            call,
            identify_caller,
            claims,
            formats,
            trusts,
            force_transaction,
            server_timeout,
        } = self;
        f.debug_struct("ServerLayerOptions")
            .field("call", call)
            .field("identify_caller", &identify_caller.is_some())
            .field("claims", claims)
            .field("formats", formats)
            .field("trusts", &trusts.is_some())
            .field("force_transaction", force_transaction)
            .field("server_timeout", server_timeout)
            .finish()
    }
}
