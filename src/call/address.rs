//! Who is at the two ends of a call that a server received.

use http::header;
use http::request::Parts;
use http::uri::Authority;

/// What stands for the authority in HTTP/1.1, as grpc-web may come.
pub(crate) fn host(parts: &Parts) -> Option<Authority> {
    let host = match parts.uri.authority() {
        Some(_) => None,
        None => parts.headers.get(header::HOST),
    };
    Authority::try_from(host?.as_bytes()).ok()
}

/// Whoever calls by one makes an authority up.
#[cfg(all(unix, feature = "transport"))]
pub(crate) fn is_of_unix_socket(parts: &Parts) -> bool {
    use tonic::transport::server::UdsConnectInfo;

    parts.extensions.get::<UdsConnectInfo>().is_some()
}

#[cfg(not(all(unix, feature = "transport")))]
pub(crate) fn is_of_unix_socket(_: &Parts) -> bool {
    false
}

/// That of who is at the other end of the connection. Asks tonic, which knows where each of its transports puts the address.
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
