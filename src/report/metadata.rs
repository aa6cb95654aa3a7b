//! Metadata of a call, as far as it may be sent.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sentry_core::protocol::{Map, Value};

use crate::report::conventions::SemanticConventions;
use crate::report::scrub::{DenyList, FILTERED};
use crate::rpc;

/// Further keys are left out: a peer chooses how many there are.
const MAX_KEYS: usize = 64;
const MAX_VALUES: usize = 16;
const MAX_VALUE_LEN: usize = 1024;

/// Which metadata is captured.
#[derive(Debug, Clone)]
pub(crate) struct MetadataOptions {
    /// Keys that are captured with and without `send_default_pii`.
    pub(crate) request: Arc<[HeaderName]>,
    pub(crate) response: Arc<[HeaderName]>,
    pub(crate) denied: DenyList,
}

impl Default for MetadataOptions {
    fn default() -> Self {
        Self {
            request: Arc::default(),
            response: Arc::default(),
            denied: DenyList::of_metadata(),
        }
    }
}

/// Where metadata was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetadataPlace {
    Request,
    Header,
    Trailer,
}

impl MetadataPlace {
    /// Its name in Sentry's and in the legacy conventions.
    fn message(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Header | Self::Trailer => "response",
        }
    }

    fn stable_prefix(self) -> &'static str {
        match self {
            Self::Request => "rpc.request.header",
            Self::Header => "rpc.response.header",
            Self::Trailer => "rpc.response.trailer",
        }
    }
}

/// Metadata that was captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    place: MetadataPlace,
    key: HeaderName,
    values: Vec<String>,
    /// Asked for by its key, and not only by `send_default_pii`.
    is_allowed: bool,
}

impl Metadata {
    /// Adds what may be sent of `headers`: the `allowed` keys; with `sends_pii` all others, too,
    /// except those of the protocol.
    pub(crate) fn add(
        &mut self,
        place: MetadataPlace,
        headers: &HeaderMap,
        allowed: &[HeaderName],
        denied: &DenyList,
        sends_pii: bool,
    ) {
        for key in allowed {
            self.add_key(place, headers, key, denied, true);
        }
        if sends_pii {
            let others = headers.keys().filter(|key| !allowed.contains(key));
            for key in others.filter(|key| !is_of_protocol(key)) {
                self.add_key(place, headers, key, denied, false);
            }
        }
    }

    fn add_key(
        &mut self,
        place: MetadataPlace,
        headers: &HeaderMap,
        key: &HeaderName,
        denied: &DenyList,
        is_allowed: bool,
    ) {
        let is_secret = denied.denies(key.as_str());
        let values = headers.get_all(key).iter();
        let mut values = values
            .map(|value| printed(key, value, is_secret))
            .peekable();
        if values.peek().is_none() {
            return;
        }
        let known = self
            .0
            .iter()
            .position(|e| e.key == *key && e.place == place);
        let index = match known {
            Some(index) => index,
            None if self.0.len() < MAX_KEYS => {
                self.0.push(Entry {
                    place,
                    key: key.clone(),
                    values: Vec::new(),
                    is_allowed,
                });
                self.0.len() - 1
            }
            None => return,
        };
        if let Some(entry) = self.0.get_mut(index) {
            let left = MAX_VALUES.saturating_sub(entry.values.len());
            entry.values.extend(values.take(left));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As attributes of a span.
    pub(crate) fn attributes(
        &self,
        conventions: SemanticConventions,
        sends_pii: bool,
    ) -> Vec<(String, Value)> {
        let mut attributes: Map<String, Vec<&str>> = Map::new();
        for Entry {
            place,
            key,
            values,
            is_allowed,
        } in &self.0
        {
            let message = place.message();
            let legacy = || {
                let key = key.as_str().replace('-', "_");
                format!("rpc.grpc.{message}.metadata.{key}")
            };
            let stable = || format!("{}.{key}", place.stable_prefix());
            let of_sentry = || format!("rpc.{message}.metadata.{key}");
            let names = [
                (*is_allowed && conventions.has_legacy()).then(legacy),
                (*is_allowed && conventions.has_stable()).then(stable),
                sends_pii.then(of_sentry),
            ];
            for name in names.into_iter().flatten() {
                let values = values.iter().map(String::as_str);
                attributes.entry(name).or_default().extend(values);
            }
        }
        let attributes = attributes.into_iter();
        attributes
            .map(|(name, values)| (name, values.into()))
            .collect()
    }

    /// As a part of an event's context.
    pub(crate) fn to_value(&self) -> Value {
        let mut keys: Map<&str, Vec<&str>> = Map::new();
        for entry in &self.0 {
            let values = entry.values.iter().map(String::as_str);
            keys.entry(entry.key.as_str()).or_default().extend(values);
        }
        let keys = keys.into_iter();
        keys.map(|(key, values)| (key.to_owned(), Value::from(values)))
            .collect()
    }
}

/// Whether a header belongs to HTTP/2, gRPC or this crate.
fn is_of_protocol(key: &HeaderName) -> bool {
    let name = key.as_str();
    matches!(name, "te" | "content-type") || name.starts_with("grpc-") || key == rpc::STATUS_SOURCE
}

/// A value as it is sent.
fn printed(key: &HeaderName, value: &HeaderValue, is_secret: bool) -> String {
    if is_secret || value.is_sensitive() {
        return FILTERED.to_owned();
    }
    if key.as_str().ends_with("-bin") {
        return format!("[{} bytes in base64]", value.len());
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    rpc::clip(&text, MAX_VALUE_LEN).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(place: MetadataPlace, headers: &[(&str, &str)], allowed: &[&str], pii: bool) -> Metadata {
        let mut map = HeaderMap::new();
        for (key, value) in headers {
            let key = HeaderName::try_from(*key).unwrap();
            map.append(key, HeaderValue::from_str(value).unwrap());
        }
        let mut metadata = Metadata::default();
        let allowed: Vec<_> = allowed.iter().map(|key| key.parse().unwrap()).collect();
        metadata.add(place, &map, &allowed, &DenyList::of_metadata(), pii);
        metadata
    }

    fn names(metadata: &Metadata, conventions: SemanticConventions, pii: bool) -> Vec<String> {
        let attributes = metadata.attributes(conventions, pii).into_iter();
        attributes.map(|(name, _)| name).collect()
    }

    const HEADERS: [(&str, &str); 8] = [
        ("x-tenant", "acme"),
        ("x-tenant", "other"),
        ("authorization", "Bearer s3cret"),
        ("x-api-key", "s3cret"),
        ("trace-bin", "AAECAw"),
        ("te", "trailers"),
        ("grpc-timeout", "1S"),
        ("user-agent", "grpc-go"),
    ];

    #[test]
    fn what_is_not_allowed_is_not_told() {
        let request = MetadataPlace::Request;
        assert!(of(request, &HEADERS, &[], false).is_empty());
        let allowed = ["X-Tenant", "authorization", "trace-bin"];
        let some = of(request, &HEADERS, &allowed, false);
        let expected = json!({
            "x-tenant": ["acme", "other"],
            "authorization": ["[Filtered]"],
            "trace-bin": ["[6 bytes in base64]"],
        });
        assert_eq!(some.to_value(), expected);
        assert_eq!(
            some.attributes(SemanticConventions::Legacy, false),
            [
                ("authorization", json!(["[Filtered]"])),
                ("trace_bin", json!(["[6 bytes in base64]"])),
                ("x_tenant", json!(["acme", "other"])),
            ]
            .map(|(key, values)| (format!("rpc.grpc.request.metadata.{key}"), values))
        );
    }

    #[test]
    fn personal_data_includes_all_but_secrets() {
        let all = of(MetadataPlace::Trailer, &HEADERS, &["x-tenant"], true);
        let expected = json!({
            "x-tenant": ["acme", "other"],
            "authorization": ["[Filtered]"],
            "x-api-key": ["[Filtered]"],
            "trace-bin": ["[6 bytes in base64]"],
            "user-agent": ["grpc-go"],
        });
        assert_eq!(all.to_value(), expected);
        assert_eq!(
            names(&all, SemanticConventions::Legacy, true),
            [
                "rpc.grpc.response.metadata.x_tenant",
                "rpc.response.metadata.authorization",
                "rpc.response.metadata.trace-bin",
                "rpc.response.metadata.user-agent",
                "rpc.response.metadata.x-api-key",
                "rpc.response.metadata.x-tenant",
            ]
        );
    }

    #[test]
    #[expect(deprecated, reason = "so are the legacy conventions")]
    fn names_are_those_of_the_conventions() {
        use opentelemetry_semantic_conventions::attribute as theirs;

        // `rpc.request.header` and its like are newer than what the crate knows.
        for (place, own, legacy) in [
            (
                MetadataPlace::Request,
                theirs::RPC_REQUEST_METADATA,
                theirs::RPC_GRPC_REQUEST_METADATA,
            ),
            (
                MetadataPlace::Trailer,
                theirs::RPC_RESPONSE_METADATA,
                theirs::RPC_GRPC_RESPONSE_METADATA,
            ),
        ] {
            let all = of(place, &[("x-a", "1"), ("x-b", "2")], &["x-a"], true);
            let expected = [
                format!("{legacy}.x_a"),
                format!("{own}.x-a"),
                format!("{own}.x-b"),
            ];
            assert_eq!(names(&all, SemanticConventions::Legacy, true), expected);
        }
    }

    #[test]
    fn each_generation_has_its_names() {
        let mut metadata = of(MetadataPlace::Request, &HEADERS, &["x-tenant"], false);
        for (place, value) in [
            (MetadataPlace::Header, "in the head"),
            (MetadataPlace::Trailer, "in the trailers"),
        ] {
            let other = of(place, &[("x-tenant", value)], &["x-tenant"], false);
            metadata.0.extend(other.0);
        }
        let legacy = [
            "rpc.grpc.request.metadata.x_tenant",
            "rpc.grpc.response.metadata.x_tenant",
        ];
        let stable = [
            "rpc.request.header.x-tenant",
            "rpc.response.header.x-tenant",
            "rpc.response.trailer.x-tenant",
        ];
        let both = [&legacy[..], &stable[..]].concat();
        assert_eq!(names(&metadata, SemanticConventions::Legacy, false), legacy);
        assert_eq!(names(&metadata, SemanticConventions::Stable, false), stable);
        assert_eq!(names(&metadata, SemanticConventions::Both, false), both);
        let attributes = metadata.attributes(SemanticConventions::Legacy, false);
        assert_eq!(attributes[1].1, json!(["in the head", "in the trailers"]));
    }

    #[test]
    fn what_a_peer_sends_is_bounded() {
        let mut map = HeaderMap::new();
        for i in 0..1000 {
            let key = HeaderName::try_from(format!("x-{i}")).unwrap();
            map.append(key, HeaderValue::from_static("v"));
        }
        for _ in 0..1000 {
            map.append("x-0", HeaderValue::from_str(&"v".repeat(2000)).unwrap());
        }
        let mut metadata = Metadata::default();
        let keys = [HeaderName::from_static("x-0")];
        metadata.add(
            MetadataPlace::Request,
            &map,
            &keys,
            &DenyList::of_metadata(),
            true,
        );
        assert_eq!(metadata.0.len(), MAX_KEYS);
        assert_eq!(metadata.0[0].values.len(), MAX_VALUES);
        assert_eq!(metadata.0[0].values[1].len(), MAX_VALUE_LEN);
    }

    #[test]
    fn sensitive_values_and_own_terms_are_filtered() {
        let mut map = HeaderMap::new();
        let mut value = HeaderValue::from_static("hidden");
        value.set_sensitive(true);
        map.append("x-a", value);
        map.append("x-ssn", HeaderValue::from_static("hidden"));
        let mut denied = DenyList::of_metadata();
        denied.add(["SSN".to_owned(), String::new()]);
        let mut metadata = Metadata::default();
        let keys = ["x-a", "x-ssn"].map(HeaderName::from_static);
        metadata.add(MetadataPlace::Request, &map, &keys, &denied, false);
        let expected = json!({"x-a": ["[Filtered]"], "x-ssn": ["[Filtered]"]});
        assert_eq!(metadata.to_value(), expected);
    }
}
