//! The method that a request names.

use http::Uri;
use http::uri::PathAndQuery;

use crate::rpc::text::clip;

/// Sentry cuts names of transactions to this length.
const MAX_LEN: usize = 200;

/// The path of a request, split as gRPC splits it:
/// `/helloworld.Greeter/SayHello`.
///
/// A path that does not have this form still has a name. What is longer than
/// 200 bytes is cut: a peer writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MethodPath {
    path: Option<PathAndQuery>,
    /// The last slash in [`qualified`](Self::qualified): the method's own name follows.
    slash: Option<usize>,
}

impl MethodPath {
    pub(crate) fn new(uri: &Uri) -> Self {
        let path = uri.path_and_query().map(|whole| {
            // A long path is copied, as breadcrumbs would keep all of it in memory.
            let is_long = whole.as_str().len() > MAX_LEN;
            let cut = is_long.then(|| clip(whole.path(), MAX_LEN).try_into().ok());
            cut.flatten().unwrap_or_else(|| whole.clone())
        });
        let mut path = Self { path, slash: None };
        path.slash = path.qualified().rfind('/');
        path
    }

    /// With the leading slash, `/helloworld.Greeter/SayHello`.
    pub(crate) fn full(&self) -> &str {
        clip(self.path.as_ref().map_or("/", PathAndQuery::path), MAX_LEN)
    }

    /// Without the leading slash, `helloworld.Greeter/SayHello`.
    pub(crate) fn qualified(&self) -> &str {
        let full = self.full();
        full.strip_prefix('/').unwrap_or(full)
    }

    /// `helloworld.Greeter`; empty where the path names no service.
    pub(crate) fn service(&self) -> &str {
        self.split().0
    }

    /// `SayHello`.
    pub(crate) fn method(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        let qualified = self.qualified();
        let split = |slash| {
            let (service, method) = qualified.split_at_checked(slash)?;
            Some((service, method.get(1..)?))
        };
        self.slash.and_then(split).unwrap_or(("", qualified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> (String, String, String, String) {
        let path = MethodPath::new(&path.parse().unwrap());
        (
            path.full().to_owned(),
            path.qualified().to_owned(),
            path.service().to_owned(),
            path.method().to_owned(),
        )
    }

    #[test]
    fn splits_as_grpc_does() {
        let cases = [
            (
                "http://h:1/helloworld.Greeter/SayHello",
                (
                    "/helloworld.Greeter/SayHello",
                    "helloworld.Greeter",
                    "SayHello",
                ),
            ),
            (
                "/Greeter/SayHello?x=1",
                ("/Greeter/SayHello", "Greeter", "SayHello"),
            ),
            (
                "/api/v1.Greeter/Say",
                ("/api/v1.Greeter/Say", "api/v1.Greeter", "Say"),
            ),
            ("/only", ("/only", "", "only")),
            ("/", ("/", "", "")),
            ("//", ("//", "", "")),
            ("http://host", ("/", "", "")),
        ];
        for (uri, (full, service, method)) in cases {
            let (a, _, b, c) = parts(uri);
            assert_eq!(
                (a.as_str(), b.as_str(), c.as_str()),
                (full, service, method),
                "{uri}"
            );
        }
    }

    #[test]
    fn has_no_path_in_authority_form() {
        let path = MethodPath::new(&"example.com:1".parse::<Uri>().unwrap());
        assert_eq!((path.full(), path.qualified()), ("/", ""));
    }

    #[test]
    fn cuts_a_hostile_path() {
        let (full, qualified, _, _) = parts(&format!("/{}", "a".repeat(5_000)));
        assert_eq!((full.len(), qualified.len()), (200, 199));
    }
}
