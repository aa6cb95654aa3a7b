//! What is never sent, whatever the options say.

use std::borrow::Cow;
use std::sync::Arc;

use sentry_core::protocol::{Context, Event, Value};

/// Replaces a secret, as in all of Sentry's SDKs.
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

/// What the metadata and the details of a printed status begin with, also where the text was
/// quoted once more. tonic's `Display` prints the source of a status with `Debug`: a status
/// inside another one shows everything.
const STATUS_MARKS: [&str; 3] = ["MetadataMap {", "details: b\"", "details: b\\\""];

/// The metadata of a status whose only entry is this crate's own. It says nothing of the call, and
/// the source of the status follows it.
const OWN_METADATA: [&str; 2] = [
    r#"MetadataMap { headers: {"x-sentry-tonic-source": Sensitive} }"#,
    r#"MetadataMap { headers: {\"x-sentry-tonic-source\": Sensitive} }"#,
];

/// What is left of a text without the metadata and the details of a status; `None`
/// where it has none.
pub(crate) fn without_metadata(text: &str) -> Option<String> {
    // Searching for a text is slow, and most texts have neither character.
    if !text.bytes().any(|byte| matches!(byte, b'{' | b'"')) {
        return None;
    }
    let is_own = |from: &str| OWN_METADATA.iter().any(|own| from.starts_with(own));
    let start_of = |mark: &&str| {
        let starts = text.match_indices(mark).map(|(start, _)| start);
        starts
            .into_iter()
            .find(|start| text.get(*start..).is_some_and(|from| !is_own(from)))
    };
    let starts = STATUS_MARKS.iter().filter_map(start_of);
    let before = text.get(..starts.min()?)?;
    Some(format!("{before}{FILTERED}"))
}

/// The text without the metadata and the details of a status.
pub(crate) fn scrubbed(text: &str) -> Cow<'_, str> {
    without_metadata(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Takes metadata and details of statuses out of what an event says.
pub(crate) fn scrub(event: &mut Event<'_>) {
    let exceptions = event.exception.iter_mut();
    let values = exceptions.filter_map(|exception| exception.value.as_mut());
    for text in event.message.iter_mut().chain(values) {
        scrub_text(text);
    }
    for context in event.contexts.values_mut() {
        if let Context::Other(fields) = context {
            for value in fields.values_mut() {
                if let Value::String(text) = value {
                    scrub_text(text);
                }
            }
        }
    }
}

fn scrub_text(text: &mut String) {
    if let Some(left) = without_metadata(text) {
        *text = left;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataMap;
    use tonic::{Code, Status};

    #[test]
    fn what_a_printed_status_tells_is_taken_out() {
        let mut metadata = MetadataMap::new();
        metadata.insert("a", "hidden".parse().unwrap());
        let with_both =
            Status::with_details_and_metadata(Code::Aborted, "m", "hidden".into(), metadata);
        let with_details = Status::with_details(Code::Aborted, "m", "hidden".into());
        let with_metadata = Status::with_metadata(Code::Aborted, "m", with_both.metadata().clone());
        for status in [with_both, with_details, with_metadata] {
            let printed = format!("{status:?}");
            let quoted = format!("{printed:?}");
            let mut outer = Status::internal("outer");
            outer.set_source(Arc::new(status.clone()));
            for text in [
                printed,
                quoted,
                format!("{status:#?}"),
                outer.to_string(),
                format!("{outer:?}"),
            ] {
                assert!(text.contains("hidden") || text.contains("104"), "{text}");
                let left = without_metadata(&text).unwrap();
                assert!(!left.contains("hidden"), "{left}");
                assert!(left.ends_with(FILTERED), "{left}");
            }
        }
        assert_eq!(without_metadata(&Status::aborted("m").to_string()), None);
    }
}
