//! Which requests carry trace headers.

use http::Uri;
use http::uri::Authority;

/// Parts of the URLs that trace headers go to.
///
/// See <https://develop.sentry.dev/sdk/foundations/trace-propagation/#tracepropagationtargets>.
#[derive(Debug, Clone, Default)]
pub(crate) struct PropagationTargets {
    /// `None` for all.
    parts: Option<Vec<String>>,
}

impl PropagationTargets {
    pub(crate) fn new(parts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            parts: Some(parts.into_iter().map(Into::into).collect()),
        }
    }

    /// Whether a call of `path` carries trace headers. If the server is not known, only the path
    /// can match.
    pub(crate) fn include(&self, server: Option<&Uri>, path: &str) -> bool {
        let Some(parts) = &self.parts else {
            return true;
        };
        let host = server.and_then(Uri::authority).map(Authority::as_str);
        let scheme = server.and_then(Uri::scheme_str).unwrap_or("http");
        let url = match host {
            Some(host) => format!("{scheme}://{host}{path}"),
            None => path.to_owned(),
        };
        parts.iter().any(|part| url.contains(part.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn match_host_and_method() {
        let server: Uri = "https://payments.internal:443".parse().unwrap();
        let path = "/pay.v1.Payments/Charge";
        for (parts, with_server, without) in [
            (&["payments.internal"][..], true, false),
            (&["payments.internal:443/pay.v1."], true, false),
            (&["https://payments"], true, false),
            (&["pay.v1.Payments/"], true, true),
            (&["/pay.v1.Payments/Charge"], true, true),
            (&["other", "Charge"], true, true),
            (&["other"], false, false),
            (&[""], true, true),
            (&[], false, false),
        ] {
            let targets = PropagationTargets::new(parts.iter().copied());
            assert_eq!(
                targets.include(Some(&server), path),
                with_server,
                "{parts:?}"
            );
            assert_eq!(targets.include(None, path), without, "{parts:?}");
        }
        assert!(PropagationTargets::default().include(None, path));
        let without_scheme: Uri = "payments:1".parse().unwrap();
        let targets = PropagationTargets::new(["http://payments:1/pay"]);
        assert!(targets.include(Some(&without_scheme), path));
    }
}
