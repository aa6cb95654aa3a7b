//! The tracing span of an RPC.

use http::Uri;
use http::request::Parts;
use tracing::field::{self, Empty};
use tracing::{Span, info_span};

use crate::call::address;
use crate::call::options::CallOptions;
use crate::fields;
use crate::rpc::{self, MethodPath};

/// Of a DNS name; a caller may write more.
const MAX_HOST_LEN: usize = 253;

/// A span with the fields of an RPC; late ones are empty. Each side has a name
/// of its own, by which filters know it.
macro_rules! rpc_span {
    ($name:expr, $kind:expr, $path:expr, $is_known:expr, $authority:expr, $conventions:expr) => {{
        let (legacy, stable) = ($conventions.has_legacy(), $conventions.has_stable());
        info_span!(
            target: fields::TARGET,
            $name,
            // https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/#span-name
            { fields::OTEL_NAME } = if $is_known { $path.qualified() } else { "grpc" },
            { fields::OTEL_KIND } = $kind,
            { fields::RPC_SYSTEM } = legacy.then_some("grpc"),
            { fields::RPC_SYSTEM_NAME } = stable.then_some("grpc"),
            { fields::RPC_SERVICE } = (legacy && $is_known).then(|| $path.service()),
            { fields::RPC_METHOD } = match ($is_known, stable) {
                (false, _) => fields::UNKNOWN_METHOD,
                (true, true) => $path.qualified(),
                (true, false) => $path.method(),
            },
            { fields::RPC_METHOD_ORIGINAL } = (!$is_known).then(|| $path.full()),
            { fields::SERVER_ADDRESS } = $authority.map(|a| rpc::clip(a.host(), MAX_HOST_LEN)),
            { fields::SERVER_PORT } = $authority.and_then(|a| a.port_u16()).map(i64::from),
            { fields::NETWORK_PEER_ADDRESS } = Empty,
            { fields::NETWORK_PEER_PORT } = Empty,
            { fields::RPC_GRPC_STATUS_CODE } = Empty,
            { fields::RPC_STATUS_CODE } = Empty,
            { fields::RPC_RESPONSE_STATUS_CODE } = Empty,
            { fields::RPC_REQUEST_MESSAGE_COUNT } = Empty,
            { fields::RPC_RESPONSE_MESSAGE_COUNT } = Empty,
            { fields::ERROR_TYPE } = Empty,
            { fields::OTEL_STATUS_CODE } = Empty,
            { fields::OTEL_STATUS_DESCRIPTION } = Empty,
        )
    }};
}

/// That of an RPC that a server received.
pub(crate) fn of_server(path: &MethodPath, parts: &mut Parts, options: &CallOptions) -> Span {
    let conventions = options.conventions;
    let is_known = options.knows(path);
    let host = address::host(parts);
    let authority = match address::is_of_unix_socket(parts) {
        true => None,
        false => parts.uri.authority().or(host.as_ref()),
    };
    let span = rpc_span!(
        fields::SERVER_SPAN,
        "server",
        path,
        is_known,
        authority,
        conventions
    );
    if !span.is_disabled()
        && let Some(peer) = address::remote_addr(parts)
    {
        span.record(fields::NETWORK_PEER_ADDRESS, field::display(peer.ip()));
        span.record(fields::NETWORK_PEER_PORT, i64::from(peer.port()));
    }
    span
}

/// That of an RPC that a client makes.
pub(crate) fn of_client(path: &MethodPath, server: Option<&Uri>, options: &CallOptions) -> Span {
    let conventions = options.conventions;
    let authority = server.and_then(Uri::authority);
    rpc_span!(
        fields::CLIENT_SPAN,
        "client",
        path,
        true,
        authority,
        conventions
    )
}
