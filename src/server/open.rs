//! How a call that a server receives begins.

use http::HeaderMap;
use http::request::Parts;
use tracing::debug;

use crate::call::{self, RpcCall};
use crate::fields;
use crate::propagation::IncomingTrace;
use crate::rpc::{self, ContentType, MethodPath, RpcSide};
use crate::server::options::GrpcServerOptions;
use crate::span_ext::{OtelParent, RpcStart};
use crate::watch::Deadline;

/// Who enters the span of a call to run it.
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
                 GrpcServerLayer belongs inside GrpcWebLayer"
            );
            false
        }
        ContentType::Other => false,
    }
}

impl GrpcServerOptions {
    /// Opens the call that `parts` ask for; `None` where nobody wants it.
    pub(crate) fn open(&self, parts: &mut Parts, runner: Runner) -> Option<(RpcCall, Deadline)> {
        let path = MethodPath::new(&parts.uri);
        if self.call.ignored.matches(&path, parts) {
            let ignored = RpcCall::ignore(RpcSide::Server, &path, &self.call);
            return Some((ignored, Deadline::new(RpcSide::Server, None, None)));
        }
        let incoming = IncomingTrace::from_headers(&parts.headers, &self.formats);
        let parent = incoming.as_ref().map(OtelParent::of);
        let mut open = || RpcCall::open_server(&path, parts, &self.call);
        let mut rpc = match &parent {
            Some(parent) => parent.attached(open),
            None => open(),
        }?;
        if let Some(parent) = parent {
            parent.tell(rpc.span());
        }
        #[cfg(feature = "opentelemetry")]
        rpc.tell_otel(&parts.headers);
        rpc.announce(|sends_pii| RpcStart {
            incoming,
            force_transaction: self.force_transaction,
            is_run_by_others: runner != Runner::Middleware,
            ..self.start(&path, parts, sends_pii)
        });
        let timeout = rpc::grpc_timeout(&parts.headers);
        let deadline = Deadline::new(RpcSide::Server, timeout, self.server_timeout);
        Some((rpc, deadline))
    }

    /// What the Sentry layer is told of a call beside its trace.
    fn start(&self, path: &MethodPath, parts: &mut Parts, sends_pii: bool) -> RpcStart {
        let mut start = self.call.start(path, parts, sends_pii);
        let facts = &mut start.facts;
        facts.is_session = true;
        if sends_pii
            && let Some(context) = &mut facts.context
            && let Some(peer) = call::remote_addr(parts)
        {
            context.insert("peer_address".to_owned(), peer.ip().to_string().into());
        }
        // Who makes it is not known where the closure panics.
        let caller = self.caller.as_ref();
        let caller = caller.and_then(|f| rpc::contained(|| f(parts)));
        if let Some(caller) = caller {
            let told = caller.told_by(&self.claims);
            facts.user = told.user;
            facts.tags.extend(told.tags);
        }
        start
    }
}
