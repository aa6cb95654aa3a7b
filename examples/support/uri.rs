//! URIs that are given to the examples.

use tonic::codegen::http::Uri;

/// The URI of a server; `None` for what is none.
pub(crate) fn parse_uri(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    let has_port = uri.authority()?.as_str().len() > host.len();
    let is_port = uri.port_u16().is_some_and(|port| port > 0);
    let is_server = uri.scheme_str() == Some("http") && (is_port || !has_port);
    is_server.then_some(uri)
}
