//! The tracing span of an RPC.

use tracing::field::{self, Empty};
use tracing::{Span, info_span};

use crate::call::head::CallHead;
use crate::fields;
use crate::report::SemanticConventions;
use crate::rpc::RpcSide;
use crate::span_ext;

/// Opens a span with the fields of an RPC; those that are recorded later are empty. A macro, as
/// tracing takes only constants as names.
macro_rules! rpc_span {
    ($name:expr, $kind:expr, $head:expr, $conventions:expr) => {{
        let names = $head.names($conventions);
        info_span!(
            target: fields::TARGET,
            $name,
            // First, as fields are looked up by name, in this order, when they are recorded.
            { fields::RPC_GRPC_STATUS_CODE } = Empty,
            { fields::RPC_STATUS_CODE } = Empty,
            { fields::RPC_RESPONSE_STATUS_CODE } = Empty,
            { fields::RPC_REQUEST_MESSAGE_COUNT } = Empty,
            { fields::RPC_RESPONSE_MESSAGE_COUNT } = Empty,
            { fields::ERROR_TYPE } = Empty,
            { fields::OTEL_STATUS_CODE } = Empty,
            { fields::OTEL_STATUS_DESCRIPTION } = Empty,
            { fields::OTEL_NAME } = $head.otel_name(),
            { fields::OTEL_KIND } = $kind,
            { fields::RPC_SYSTEM } = names.system,
            { fields::RPC_SYSTEM_NAME } = names.system_name,
            { fields::RPC_SERVICE } = names.service,
            { fields::RPC_METHOD } = names.method,
            { fields::RPC_METHOD_ORIGINAL } = names.original,
            { fields::SERVER_ADDRESS } = $head.server_address(),
            { fields::SERVER_PORT } = $head.server_port(),
            { fields::NETWORK_PEER_ADDRESS } = Empty,
            { fields::NETWORK_PEER_PORT } = Empty,
        )
    }};
}

pub(crate) fn open(head: &CallHead, conventions: SemanticConventions) -> Span {
    if span_ext::is_thread_gone() {
        return Span::none();
    }
    match head.side {
        RpcSide::Server => rpc_span!(fields::SERVER_SPAN, "server", head, conventions),
        RpcSide::Client => rpc_span!(fields::CLIENT_SPAN, "client", head, conventions),
    }
}

/// Records the address of the peer, which is asked for only where the span is wanted.
pub(crate) fn record_peer(span: &Span, head: &CallHead) {
    if let Some(peer) = &head.peer {
        tracing::record_all!(
            span,
            { fields::NETWORK_PEER_ADDRESS } = field::display(peer.ip()),
            { fields::NETWORK_PEER_PORT } = i64::from(peer.port()),
        );
    }
}
