//! The `google.rpc` details of a failed call as attributes and as a context.
//!
//! A peer wrote them: everything is bounded, and what may be about a person or is a
//! secret is kept back.

use std::collections::{BTreeMap, HashMap};

use sentry_core::protocol::{Map, Value};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, QuotaViolation};

use crate::report::scrub::{FILTERED, is_secret};
use crate::rpc::clip;

/// What the names of the attributes begin with:
/// <https://getsentry.github.io/sentry-conventions/attributes/grpc/>
const PREFIX: &str = "grpc.error.";

const MAX_TEXT_LEN: usize = 1024;
const MAX_KEY_LEN: usize = 64;
const MAX_ENTRIES: usize = 32;

/// All dimensions of a quota violation have to fit into one text.
const MAX_DIMENSIONS: usize = 8;

/// Their name among the contexts of an event.
pub(crate) const CONTEXT: &str = "grpc.error";

/// The attributes of `details`, with those that Sentry's conventions leave to
/// `send_default_pii` if it `sends_pii`. What is empty has none.
pub(crate) fn attributes(details: &ErrorDetails, sends_pii: bool) -> Vec<(String, Value)> {
    let mut found = Attributes(vec![]);
    if let Some(info) = details.error_info() {
        found.text("error_info.reason", &info.reason);
        found.text("error_info.domain", &info.domain);
        if sends_pii {
            for (key, value) in bounded(&info.metadata, MAX_ENTRIES, MAX_KEY_LEN) {
                found.text(&format!("error_info.metadata.{key}"), value);
            }
        }
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        found.push("retry_info.retry_delay_ms", milliseconds.into());
    }
    if let Some(info) = details.bad_request() {
        let violations = info.field_violations.iter().map(field_violation);
        found.list("bad_request.field_violations", violations);
    }
    if let Some(info) = details.resource_info() {
        found.text("resource_info.resource_type", &info.resource_type);
        found.text("resource_info.description", &info.description);
        if sends_pii {
            found.text("resource_info.resource_name", &info.resource_name);
            found.text("resource_info.owner", &info.owner);
        }
    }
    if sends_pii {
        if let Some(info) = details.precondition_failure() {
            let violations = info.violations.iter().map(precondition_violation);
            found.list("precondition_failure.violations", violations);
        }
        if let Some(info) = details.quota_failure() {
            let violations = info.violations.iter().map(quota_violation);
            found.list("quota_failure.violations", violations);
        }
        if let Some(info) = details.debug_info() {
            found.text("debug_info.detail", &info.detail);
            let entries = info.stack_entries.iter();
            found.list(
                "debug_info.stack_entries",
                entries.map(|entry| clip(entry, MAX_TEXT_LEN).to_owned()),
            );
        }
    }
    found.0
}

/// The same as the context of an event: without the prefix of the names.
pub(crate) fn context(attributes: &[(String, Value)]) -> Map<String, Value> {
    attributes
        .iter()
        .filter_map(|(name, value)| {
            let name = name.strip_prefix(PREFIX)?;
            Some((name.to_owned(), value.clone()))
        })
        .collect()
}

struct Attributes(Vec<(String, Value)>);

impl Attributes {
    fn push(&mut self, name: &str, value: Value) {
        self.0.push((format!("{PREFIX}{name}"), value));
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.push(name, clip(text, MAX_TEXT_LEN).into());
        }
    }

    fn list(&mut self, name: &str, texts: impl Iterator<Item = String>) {
        let texts: Vec<String> = texts.take(MAX_ENTRIES).collect();
        if !texts.is_empty() {
            self.push(name, texts.into());
        }
    }
}

fn field_violation(violation: &FieldViolation) -> String {
    json(|max| {
        let mut object = vec![
            ("field", clip(&violation.field, max).into()),
            ("description", clip(&violation.description, max).into()),
            ("reason", clip(&violation.reason, max).into()),
        ];
        if let Some(localized) = &violation.localized_message {
            let message = [
                ("locale", clip(&localized.locale, max)),
                ("message", clip(&localized.message, max)),
            ];
            object.push(("localized_message", message.into_iter().collect()));
        }
        object
    })
}

fn precondition_violation(violation: &PreconditionViolation) -> String {
    json(|max| {
        vec![
            ("type", clip(&violation.r#type, max).into()),
            ("subject", clip(&violation.subject, max).into()),
            ("description", clip(&violation.description, max).into()),
        ]
    })
}

fn quota_violation(violation: &QuotaViolation) -> String {
    json(|max| {
        let dimensions = &violation.quota_dimensions;
        let dimensions = bounded(dimensions, MAX_DIMENSIONS, max.min(MAX_KEY_LEN))
            .into_iter()
            .map(|(key, value)| (key, clip(value, max)))
            .collect();
        let mut object = vec![
            ("subject", clip(&violation.subject, max).into()),
            ("description", clip(&violation.description, max).into()),
            ("api_service", clip(&violation.api_service, max).into()),
            ("quota_metric", clip(&violation.quota_metric, max).into()),
            ("quota_id", clip(&violation.quota_id, max).into()),
            ("quota_dimensions", dimensions),
            ("quota_value", violation.quota_value.into()),
        ];
        // The name is misspelt in tonic-types.
        if let Some(value) = violation.futura_quota_value {
            object.push(("future_quota_value", value.into()));
        }
        object
    })
}

/// The JSON of `object`, which is given the length that its texts may have. Cut at its end, it
/// would not be JSON any more: instead its texts are made shorter until all of it fits.
fn json(object: impl Fn(usize) -> Vec<(&'static str, Value)>) -> String {
    let shorter = |&max: &usize| (max > 0).then_some(max / 2);
    std::iter::successors(Some(MAX_TEXT_LEN), shorter)
        .map(|max| object(max).into_iter().collect::<Value>().to_string())
        .find(|json| json.len() <= MAX_TEXT_LEN)
        .unwrap_or_default()
}

/// The first `max` of `entries` in the order of their keys, so that they are the same each time.
/// Whether a key names a secret is decided before it is cut.
fn bounded(
    entries: &HashMap<String, String>,
    max: usize,
    max_key_len: usize,
) -> BTreeMap<&str, &str> {
    let mut entries: Vec<_> = entries.iter().filter(|(key, _)| !key.is_empty()).collect();
    entries.sort_unstable();
    let mut bounded = BTreeMap::new();
    for (key, value) in entries.into_iter().take(max) {
        let value = if is_secret(&key.to_ascii_lowercase()) {
            FILTERED
        } else {
            value
        };
        bounded.entry(clip(key, max_key_len)).or_insert(value);
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::error_details;
    use http::{HeaderMap, HeaderValue};
    use prost::Message;
    use std::time::Duration;
    use tonic::metadata::{Binary, MetadataValue};
    use tonic::{Code, Status};
    use tonic_types::{LocalizedMessage, StatusExt, pb as google_rpc};

    const PUBLIC: [&str; 6] = [
        "grpc.error.bad_request.field_violations",
        "grpc.error.error_info.domain",
        "grpc.error.error_info.reason",
        "grpc.error.resource_info.description",
        "grpc.error.resource_info.resource_type",
        "grpc.error.retry_info.retry_delay_ms",
    ];

    fn read(details: &ErrorDetails, sends_pii: bool) -> Map<String, Value> {
        let attributes = attributes(details, sends_pii);
        let count = attributes.len();
        let map: Map<_, _> = attributes.into_iter().collect();
        assert_eq!(map.len(), count, "a name stands there twice");
        map
    }

    fn text_of<'a>(attributes: &'a Map<String, Value>, name: &str) -> &'a str {
        attributes[&format!("{PREFIX}{name}")].as_str().unwrap()
    }

    fn list_of<'a>(attributes: &'a Map<String, Value>, name: &str) -> Vec<&'a str> {
        let list = attributes[&format!("{PREFIX}{name}")].as_array().unwrap();
        list.iter().map(|text| text.as_str().unwrap()).collect()
    }

    fn objects_of(attributes: &Map<String, Value>, name: &str) -> Vec<Value> {
        list_of(attributes, name)
            .into_iter()
            .map(|json| serde_json::from_str(json).unwrap())
            .collect()
    }

    fn all() -> ErrorDetails {
        let metadata = [("user_id", "123"), ("Api-Key", "abc")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut field = FieldViolation::new("email", "must be \"valid\"");
        field.reason = "FIELD_INVALID".to_owned();
        field.localized_message = Some(LocalizedMessage::new("de", "ungültig"));
        let mut quota = QuotaViolation::new("clientip:127.0.0.1", "too much");
        quota.api_service = "example.com".to_owned();
        quota.quota_metric = "example.com/reads".to_owned();
        quota.quota_id = "Reads".to_owned();
        quota.quota_dimensions = HashMap::from([("region".to_owned(), "eu".to_owned())]);
        quota.quota_value = 1000;
        quota.futura_quota_value = Some(i64::MAX);
        let mut details = ErrorDetails::new();
        details
            .set_error_info("REASON", "example.com", metadata)
            .set_retry_info(Some(Duration::from_micros(1_500_999)))
            .set_debug_info(["main".to_owned(), "start".to_owned()], "detail")
            .set_quota_failure([quota, QuotaViolation::default()])
            .set_precondition_failure([PreconditionViolation::new("TOS", "user/1", "accept")])
            .set_bad_request([field, FieldViolation::new("name", "is none")])
            .set_resource_info("database", "db/1", "user@example.com", "is gone")
            .set_request_info("id", "data")
            .set_localized_message("de", "Fehler")
            .add_help_link("more", "https://example.com");
        details
    }

    fn headers(raw: &[u8]) -> HeaderMap {
        let value = MetadataValue::<Binary>::from_bytes(raw);
        with_value(value.as_encoded_bytes()).unwrap()
    }

    fn with_value(value: &[u8]) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(value).ok()?;
        headers.insert("grpc-status-details-bin", value);
        Some(headers)
    }

    fn assert_bounded(attributes: &[(String, Value)]) {
        assert!(attributes.len() <= 13 + MAX_ENTRIES);
        for (name, value) in attributes {
            assert!(name.len() <= PREFIX.len() + "error_info.metadata.".len() + MAX_KEY_LEN);
            let texts = match value {
                Value::Array(texts) => texts.iter().collect(),
                Value::Number(_) => continue,
                text => vec![text],
            };
            assert!((1..=MAX_ENTRIES).contains(&texts.len()), "{name}");
            for text in texts {
                assert!(text.as_str().unwrap().len() <= MAX_TEXT_LEN, "{name}");
            }
        }
    }

    #[test]
    fn says_what_is_public() {
        let got = read(&all(), false);
        assert_eq!(got.keys().collect::<Vec<_>>(), PUBLIC);
        assert_eq!(text_of(&got, "error_info.reason"), "REASON");
        assert_eq!(text_of(&got, "error_info.domain"), "example.com");
        assert_eq!(text_of(&got, "resource_info.resource_type"), "database");
        assert_eq!(text_of(&got, "resource_info.description"), "is gone");
        assert_eq!(got[PUBLIC[5]], Value::from(1500));
        assert_eq!(
            objects_of(&got, "bad_request.field_violations"),
            [
                serde_json::json!({
                    "field": "email",
                    "description": "must be \"valid\"",
                    "reason": "FIELD_INVALID",
                    "localized_message": {"locale": "de", "message": "ungültig"},
                }),
                serde_json::json!({"field": "name", "description": "is none", "reason": ""}),
            ]
        );
    }

    #[test]
    fn says_the_rest_with_pii() {
        let got = read(&all(), true);
        assert_eq!(got.len(), PUBLIC.len() + 8);
        assert!(PUBLIC.iter().all(|name| got.contains_key(*name)));
        assert_eq!(text_of(&got, "error_info.metadata.user_id"), "123");
        assert_eq!(text_of(&got, "error_info.metadata.Api-Key"), FILTERED);
        assert_eq!(text_of(&got, "resource_info.resource_name"), "db/1");
        assert_eq!(text_of(&got, "resource_info.owner"), "user@example.com");
        assert_eq!(text_of(&got, "debug_info.detail"), "detail");
        assert_eq!(list_of(&got, "debug_info.stack_entries"), ["main", "start"]);
        assert_eq!(
            objects_of(&got, "precondition_failure.violations"),
            [serde_json::json!({"type": "TOS", "subject": "user/1", "description": "accept"})]
        );
        assert_eq!(
            objects_of(&got, "quota_failure.violations"),
            [
                serde_json::json!({
                    "subject": "clientip:127.0.0.1",
                    "description": "too much",
                    "api_service": "example.com",
                    "quota_metric": "example.com/reads",
                    "quota_id": "Reads",
                    "quota_dimensions": {"region": "eu"},
                    "quota_value": 1000,
                    "future_quota_value": i64::MAX,
                }),
                serde_json::json!({
                    "subject": "",
                    "description": "",
                    "api_service": "",
                    "quota_metric": "",
                    "quota_id": "",
                    "quota_dimensions": {},
                    "quota_value": 0,
                }),
            ]
        );
    }

    #[test]
    fn says_nothing_of_what_is_empty() {
        let mut details = ErrorDetails::new();
        assert_eq!(attributes(&details, true), []);
        details
            .set_error_info("", "", [])
            .set_retry_info(None)
            .set_debug_info([], "")
            .set_quota_failure([])
            .set_precondition_failure([])
            .set_bad_request([])
            .set_resource_info("", "", "", "");
        assert_eq!(attributes(&details, true), []);
        details.set_retry_info(Some(Duration::ZERO));
        assert_eq!(read(&details, false)[PUBLIC[5]], Value::from(0));
    }

    #[test]
    fn the_context_is_the_attributes_without_their_prefix() {
        let attributes = attributes(&all(), true);
        let context = context(&attributes);
        assert_eq!(context.len(), attributes.len());
        for (name, value) in &attributes {
            assert_eq!(&context[&name[PREFIX.len()..]], value);
        }
        let foreign = [("rpc.system".to_owned(), Value::from("grpc"))];
        assert_eq!(super::context(&foreign), Map::new());
    }

    #[test]
    fn keeps_secrets() {
        let keys = [
            "Authorization",
            "set-cookie",
            "accessToken",
            "x-api-key",
            "API_KEY",
            "client_secret",
            "PASSWORD",
            "passwd",
            "credentials",
            "session_id",
        ];
        let long = format!("{}token", "a".repeat(MAX_KEY_LEN));
        for key in keys.into_iter().chain([&*long]) {
            let map = HashMap::from([(key.to_owned(), "hidden".to_owned())]);
            let mut quota = QuotaViolation::new("", "");
            quota.quota_dimensions = map.clone();
            let mut details = ErrorDetails::with_error_info("", "", map);
            details.set_quota_failure([quota]);
            let got = read(&details, true);
            assert_eq!(got.len(), 2);
            for value in got.values() {
                let text = value.to_string();
                assert!(text.contains(FILTERED) && !text.contains("hidden"), "{key}");
            }
        }
    }

    #[test]
    fn huge_texts_are_clipped_and_stay_json() {
        // None of these takes as many bytes in JSON as it has.
        for huge in ["a", "é", "\"", "\\", "\u{1}", "🦀"].map(|c| c.repeat(20_000)) {
            let mut field = FieldViolation::new(&huge, &huge);
            field.reason = huge.clone();
            field.localized_message = Some(LocalizedMessage::new(&huge, &huge));
            let mut quota = QuotaViolation::new(&huge, &huge);
            quota.api_service = huge.clone();
            quota.quota_dimensions = (0..20)
                .map(|i| (format!("{i}{huge}"), huge.clone()))
                .collect();
            quota.quota_value = i64::MIN;
            quota.futura_quota_value = Some(i64::MIN);
            let mut details = ErrorDetails::new();
            details
                .set_error_info(&huge, &huge, [(huge.clone(), huge.clone())])
                .set_retry_info(Some(Duration::MAX))
                .set_debug_info([huge.clone()], &huge)
                .set_quota_failure([quota])
                .set_precondition_failure([PreconditionViolation::new(&huge, &huge, &huge)])
                .set_bad_request([field])
                .set_resource_info(&huge, &huge, &huge, &huge);
            assert_bounded(&attributes(&details, true));
            let got = read(&details, true);
            assert_eq!(got.len(), 14 - 1);
            let reason = text_of(&got, "error_info.reason");
            assert!(reason.len() > MAX_TEXT_LEN - 4 && huge.starts_with(reason));
            for name in [
                "bad_request.field_violations",
                "precondition_failure.violations",
                "quota_failure.violations",
            ] {
                let [object] = &objects_of(&got, name)[..] else {
                    panic!("{name}");
                };
                assert!(
                    !object["description"].as_str().unwrap().is_empty(),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn of_many_entries_the_first_are_told() {
        const MANY: usize = 10_000;
        let metadata: HashMap<_, _> = (0..MANY)
            .map(|i| (format!("{i:05}"), i.to_string()))
            .collect();
        let violations = |i: usize| FieldViolation::new(i.to_string(), "");
        let mut details = ErrorDetails::new();
        details
            .set_error_info("", "", metadata)
            .set_debug_info(vec!["entry".to_owned(); MANY], "")
            .set_quota_failure(vec![QuotaViolation::new("", ""); MANY])
            .set_precondition_failure(vec![PreconditionViolation::new("", "", ""); MANY])
            .set_bad_request((0..MANY).map(violations).collect::<Vec<_>>());
        assert_bounded(&attributes(&details, true));
        let got = read(&details, true);
        assert_eq!(got.len(), 4 + MAX_ENTRIES);
        assert_eq!(text_of(&got, "error_info.metadata.00031"), "31");
        let fields = objects_of(&got, "bad_request.field_violations");
        assert_eq!(fields.len(), MAX_ENTRIES);
        assert_eq!(fields[31]["field"], "31");
    }

    #[test]
    fn keys_that_are_the_same_when_clipped_are_one() {
        let key = "k".repeat(MAX_KEY_LEN - 1);
        let metadata = ["é1", "é2", "a", ""].map(|end| (format!("{key}{end}"), String::from("v")));
        let details = ErrorDetails::with_error_info("", "", metadata);
        assert_eq!(read(&details, true).len(), 2);
        let unnamed = [(String::new(), "value".to_owned())];
        let details = ErrorDetails::with_error_info("", "", unnamed);
        assert_eq!(attributes(&details, true), []);
    }

    /// Marsaglia's xorshift, so that each run is the same.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap() % bound
        }

        /// One time in two leaves `bytes` as they are.
        fn mutate(&mut self, bytes: &mut Vec<u8>) {
            for _ in 0..self.below(2) * (1 + self.below(3)) {
                let at = self.below(bytes.len() + 1);
                let byte = [0, 1, 0x7f, 0x80, 0xff, b'=', self.below(256) as u8][self.below(7)];
                match self.below(9) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, byte),
                    2 => bytes.extend_from_within(at..),
                    3 => bytes.splice(at..at, [byte; 9]).for_each(drop),
                    _ => {
                        if let Some(old) = bytes.get_mut(at) {
                            *old = byte;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn never_panics_and_stays_bounded() {
        let status = Status::with_error_details(Code::Internal, "", all());
        let seed = google_rpc::Status::decode(status.details()).unwrap();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut told = 0;
        for _ in 0..6_000 {
            let mut status = seed.clone();
            for detail in &mut status.details {
                random.mutate(&mut detail.value);
            }
            let mut raw = status.encode_to_vec();
            random.mutate(&mut raw);
            let raw = headers(&raw);
            let mut value = raw["grpc-status-details-bin"].as_bytes().to_vec();
            random.mutate(&mut value);
            for headers in [Some(raw), with_value(&value)].into_iter().flatten() {
                let Some(details) = error_details(&headers) else {
                    continue;
                };
                let attributes = attributes(&details, true);
                assert_bounded(&attributes);
                context(&attributes);
                told += usize::from(!attributes.is_empty());
            }
        }
        assert!(told > 1000, "{told} of the mutations could be read");
    }
}
