//! Who is at the two ends of a call that a server received.

use http::header;
use http::request::Parts;
use http::uri::Authority;

/// The `host` header, which in HTTP/1.1 stands for the authority: grpc-web may come by that.
pub(crate) fn host(parts: &Parts) -> Option<Authority> {
    let host = match parts.uri.authority() {
        Some(_) => None,
        None => parts.headers.get(header::HOST),
    };
    Authority::try_from(host?.as_bytes()).ok()
}

/// Whether the call came by a Unix socket: there the caller makes up an authority.
#[cfg(all(unix, feature = "transport"))]
pub(crate) fn is_of_unix_socket(parts: &Parts) -> bool {
    use tonic::transport::server::UdsConnectInfo;

    parts.extensions.get::<UdsConnectInfo>().is_some()
}

#[cfg(not(all(unix, feature = "transport")))]
pub(crate) fn is_of_unix_socket(_: &Parts) -> bool {
    false
}

/// The address of the peer. Asks tonic, which knows where each of its transports puts it.
#[cfg(feature = "transport")]
pub(crate) fn remote_addr(parts: &mut Parts) -> Option<std::net::SocketAddr> {
    let extensions = std::mem::take(&mut parts.extensions);
    let request = tonic::Request::from_parts(tonic::metadata::MetadataMap::new(), extensions, ());
    let peer = request.remote_addr();
    (_, parts.extensions, ()) = request.into_parts();
    peer
}

#[cfg(not(feature = "transport"))]
pub(crate) fn remote_addr(_: &mut Parts) -> Option<std::net::SocketAddr> {
    None
}
