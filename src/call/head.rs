//! What is known of a call as it begins.

use std::net::SocketAddr;

use http::Uri;
use http::request::Parts;
use http::uri::Authority;

use crate::call::address;
use crate::call::options::CallOptions;
use crate::fields;
use crate::report::SemanticConventions;
use crate::rpc::{self, MethodPath, RpcSide};

/// The longest DNS name; a caller may write more.
const MAX_HOST_LEN: usize = 253;

/// The side, the method and the addresses of a call.
#[derive(Debug, Clone)]
pub(crate) struct CallHead {
    pub(crate) side: RpcSide,
    pub(crate) path: MethodPath,
    /// Whether the method exists, as far as is known.
    is_known: bool,
    pub(crate) server: Option<Authority>,
    pub(crate) peer: Option<SocketAddr>,
}

/// The names of a method, as the semantic conventions in use have them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MethodNames<'a> {
    pub(crate) system: Option<&'static str>,
    pub(crate) system_name: Option<&'static str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) method: &'a str,
    pub(crate) original: Option<&'a str>,
}

impl CallHead {
    /// For a call that a server received.
    pub(crate) fn of_server(path: &MethodPath, parts: &Parts, options: &CallOptions) -> Self {
        let server = match address::is_of_unix_socket(parts) {
            true => None,
            false => parts.uri.authority().cloned(),
        };
        Self {
            side: RpcSide::Server,
            path: path.clone(),
            is_known: options.knows(path),
            server: server.or_else(|| address::host(parts)),
            peer: None,
        }
    }

    /// For a call that a client makes.
    pub(crate) fn of_client(path: &MethodPath, server: Option<&Uri>) -> Self {
        Self {
            side: RpcSide::Client,
            path: path.clone(),
            is_known: true,
            server: server.and_then(Uri::authority).cloned(),
            peer: None,
        }
    }

    /// The name of its span in OpenTelemetry: see
    /// <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/#span-name>.
    pub(crate) fn otel_name(&self) -> &str {
        match self.is_known {
            true => self.path.qualified(),
            false => "grpc",
        }
    }

    pub(crate) fn names(&self, conventions: SemanticConventions) -> MethodNames<'_> {
        let (legacy, stable) = (conventions.has_legacy(), conventions.has_stable());
        MethodNames {
            system: legacy.then_some("grpc"),
            system_name: stable.then_some("grpc"),
            service: (legacy && self.is_known).then(|| self.path.service()),
            method: match (self.is_known, stable) {
                (false, _) => fields::UNKNOWN_METHOD,
                (true, true) => self.path.qualified(),
                (true, false) => self.path.method(),
            },
            original: (!self.is_known).then(|| self.path.full()),
        }
    }

    /// The path, for Sentry; `_OTHER` for a method that does not exist.
    pub(crate) fn known_path(&self) -> &str {
        match self.is_known {
            true => self.path.full(),
            false => fields::UNKNOWN_METHOD,
        }
    }

    /// The service and the method, for Sentry.
    pub(crate) fn known_as(&self) -> (&str, &str) {
        match self.is_known {
            true => (self.path.service(), self.path.method()),
            false => ("", fields::UNKNOWN_METHOD),
        }
    }

    pub(crate) fn server_address(&self) -> Option<&str> {
        let server = self.server.as_ref()?;
        Some(rpc::clip(server.host(), MAX_HOST_LEN))
    }

    pub(crate) fn server_port(&self) -> Option<i64> {
        self.server.as_ref()?.port_u16().map(i64::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_as_long_as_a_name_can_be() {
        let path = MethodPath::new(&Uri::from_static("/a.B/C"));
        for (len, expected) in [(253, 253), (254, 253)] {
            let server = format!("http://{}:80", "h".repeat(len)).parse().unwrap();
            let head = CallHead::of_client(&path, Some(&server));
            assert_eq!(head.server_address().unwrap().len(), expected);
            assert_eq!(head.server_port(), Some(80));
        }
    }
}
