//! What is never told, whatever else is asked for.

use std::sync::Arc;

/// What stands in the place of a secret, as with all of Sentry's SDKs.
pub(crate) const FILTERED: &str = "[Filtered]";

// https://develop.sentry.dev/sdk/expected-features/data-handling/#sensitive-data
const METADATA_TERMS: [&str; 18] = [
    "auth",
    "bearer",
    "cookie",
    "credential",
    "csrf",
    "identity",
    "jwt",
    "key",
    "passwd",
    "password",
    "pwd",
    "saml",
    "secret",
    "session",
    "sid",
    "sso",
    "token",
    "xsrf",
];

/// Whether a name in lower case is that of a secret, by the default terms.
#[cfg(feature = "error-details")]
pub(crate) fn is_secret(name: &str) -> bool {
    METADATA_TERMS.iter().any(|term| name.contains(term))
}

/// Names that are those of secrets: the ones that contain one of its terms, in any
/// case.
#[derive(Debug, Clone)]
pub(crate) struct DenyList(Arc<[String]>);

impl DenyList {
    pub(crate) fn of_metadata() -> Self {
        Self(METADATA_TERMS.map(str::to_owned).into())
    }

    pub(crate) fn add(&mut self, terms: impl IntoIterator<Item = String>) {
        // An empty one would match everything.
        let terms = terms.into_iter().filter(|term| !term.is_empty());
        let terms = terms.map(|term| term.to_ascii_lowercase());
        self.0 = self.0.iter().cloned().chain(terms).collect();
    }

    /// `name` is in lower case.
    pub(crate) fn denies(&self, name: &str) -> bool {
        self.0.iter().any(|term| name.contains(term.as_str()))
    }
}
