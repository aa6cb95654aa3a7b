//! Opens calls that a server receives.

use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use tracing::debug;

use crate::call::RpcCall;
use crate::fields;
use crate::lifecycle::Deadline;
use crate::rpc::{self, ContentType, MethodPath, RpcSide};
use crate::server::options::ServerLayerOptions;
use crate::span_ext::{OtelParent, RpcFacts};

/// What runs a call, and so enters its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    Middleware,
    #[cfg(feature = "tower-http")]
    TraceLayer,
}

pub(crate) fn is_call(request: &HeaderMap) -> bool {
    match rpc::content_type(request) {
        ContentType::Grpc => true,
        ContentType::GrpcWeb => {
            debug!(
                target: fields::TARGET,
                "a grpc-web call passes through unobserved: \
                 SentryServerLayer belongs inside GrpcWebLayer"
            );
            false
        }
        ContentType::Other => false,
    }
}

impl ServerLayerOptions {
    /// Opens the call that `parts` ask for.
    pub(crate) fn open(&self, parts: &mut Parts, runner: Runner) -> (RpcCall, Deadline) {
        let path = MethodPath::new(&parts.uri);
        if self.call.ignored.matches(&path, parts) {
            let ignored = RpcCall::ignore(&path, parts, &self.call);
            return (ignored, Deadline::new(RpcSide::Server, None, None));
        }
        // OpenTelemetry's layer takes the parent as the span opens. Without it, headers are read
        // only where the span is recorded.
        let is_early = cfg!(feature = "opentelemetry");
        let early = is_early.then(|| self.incoming(parts)).flatten();
        let parent = early.as_ref().map(OtelParent::of);
        let mut open = || RpcCall::open_server(&path, parts, &self.call);
        let mut rpc = match &parent {
            Some(parent) => parent.attached(open),
            None => open(),
        };
        let late = rpc.sink().filter(|_| !is_early);
        let late = late.and_then(|_| self.incoming(parts));
        if let Some(parent) = parent.or_else(|| late.as_ref().map(OtelParent::of)) {
            parent.tell(rpc.span());
        }
        let incoming = early.or(late);
        #[cfg(feature = "opentelemetry")]
        rpc.tell_otel(&parts.headers);
        rpc.announce(parts, |start| {
            start.incoming = incoming.map(Arc::new);
            start.force_transaction = self.force_transaction;
            start.is_run_by_others = runner != Runner::Middleware;
            self.complete(&mut start.facts, parts);
        });
        let timeout = rpc::grpc_timeout(&parts.headers);
        let deadline = Deadline::new(RpcSide::Server, timeout, self.server_timeout);
        (rpc, deadline)
    }

    /// Adds what the options of a server say of a call.
    fn complete(&self, facts: &mut RpcFacts, parts: &Parts) {
        facts.is_session = true;
        // A closure that panics names no caller.
        let identify = self.identify_caller.as_ref();
        let caller = identify.and_then(|f| rpc::contained(|| f(parts)));
        if let Some(caller) = caller {
            let known = caller.into_facts(&self.claims);
            facts.user = known.user.map(Box::new);
            facts.tags.extend(known.tags);
        }
    }
}
