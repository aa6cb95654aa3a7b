//! `google.rpc` details of failures, from one end of a connection to the other.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use sentry::protocol::{Context, Event, Value};
use serde_json::json;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, QuotaViolation, StatusExt};

use crate::support::greeter::Scripted;
use crate::support::observed::{KINDS, Kind, failing, on_both_sides};
use crate::support::received::{Data, Received, map, with_prefixes};
use crate::support::world::{RATES, World};

/// All that Sentry knows of.
fn details() -> ErrorDetails {
    let metadata = [("user", "Ferris"), ("api_key", "hidden")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut quota = QuotaViolation::new("project:1", "too much");
    quota.quota_dimensions = HashMap::from([("region".to_owned(), "eu".to_owned())]);
    let mut details = ErrorDetails::new();
    details
        .set_error_info("REASON", "example.com", metadata)
        .set_retry_info(Some(Duration::from_millis(1500)))
        .set_debug_info(["main".to_owned()], "detail")
        .set_quota_failure([quota])
        .set_precondition_failure([PreconditionViolation::new("TOS", "user/1", "accept")])
        .set_bad_request([FieldViolation::new("email", "is none")])
        .set_resource_info("database", "db/1", "owner@b.example", "is gone")
        .set_request_info("id", "data")
        .set_localized_message("de", "Fehler");
    details
}

fn refusal() -> Status {
    Status::with_error_details(Code::InvalidArgument, "refused", details())
}

/// Lists have their violations as JSON.
fn parsed(value: &Value) -> Value {
    match value {
        Value::Array(texts) => texts.iter().map(parsed).collect(),
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        value => value.clone(),
    }
}

fn expected(pii: bool) -> Data {
    let public = [
        ("error_info.reason", json!("REASON")),
        ("error_info.domain", json!("example.com")),
        ("retry_info.retry_delay_ms", json!(1500)),
        (
            "bad_request.field_violations",
            json!([{"field": "email", "description": "is none", "reason": ""}]),
        ),
        ("resource_info.resource_type", json!("database")),
        ("resource_info.description", json!("is gone")),
    ];
    let personal = [
        ("error_info.metadata.user", json!("Ferris")),
        ("error_info.metadata.api_key", json!("[Filtered]")),
        ("resource_info.resource_name", json!("db/1")),
        ("resource_info.owner", json!("owner@b.example")),
        ("debug_info.detail", json!("detail")),
        ("debug_info.stack_entries", json!(["main"])),
        (
            "precondition_failure.violations",
            json!([{"type": "TOS", "subject": "user/1", "description": "accept"}]),
        ),
        (
            "quota_failure.violations",
            json!([{
                "subject": "project:1",
                "description": "too much",
                "api_service": "",
                "quota_metric": "",
                "quota_id": "",
                "quota_dimensions": {"region": "eu"},
                "quota_value": 0,
            }]),
        ),
    ];
    map(public
        .into_iter()
        .chain(personal.into_iter().filter(|_| pii)))
}

/// Of the only transaction, without what they all begin with.
#[track_caller]
fn attributes(received: &Received) -> Data {
    let data = with_prefixes(&received.only_tx().data, &["grpc.error."]);
    let data = data.iter().map(|(name, value)| {
        let name = name.strip_prefix("grpc.error.").unwrap();
        (name.to_owned(), parsed(value))
    });
    data.collect()
}

fn context(event: &Event<'_>) -> Option<Data> {
    let Context::Other(context) = event.contexts.get("grpc.error")? else {
        panic!("{:?}", event.contexts)
    };
    let context = context.iter();
    Some(
        context
            .map(|(name, value)| (name.clone(), parsed(value)))
            .collect(),
    )
}

macro_rules! sides {
    () => {
        on_both_sides!(|layer| layer.capture_codes([Code::InvalidArgument, Code::Internal]))
    };
}

#[test]
fn details_are_told_from_end_to_end() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for (pii, side) in [false, true]
            .into_iter()
            .flat_map(|p| sides!().map(|s| (p, s)))
        {
            let case = format!("{kind:?} {rate:?} {pii} {side:?}");
            let world = World::with_pii(rate, pii);
            let call = side.call(failing(refusal), kind, MetadataMap::new());
            let status = world.run(call).unwrap_err();
            // The caller has them too.
            assert_eq!(
                status
                    .get_details_bad_request()
                    .unwrap()
                    .field_violations
                    .len(),
                1
            );
            let received = world.received();
            assert_eq!(
                context(received.only_event()),
                Some(expected(pii)),
                "{case}"
            );
            if rate == Some(1.0) {
                assert_eq!(attributes(&received), expected(pii), "{case}");
            } else {
                assert_eq!(received.statuses(), [], "{case}");
            }
        }
    }
}

#[test]
fn a_stream_that_fails_before_its_head_has_them_too() {
    for side in sides!() {
        let world = World::new();
        let greeter = Scripted::new().say_hello_stream(|_| async { Err(refusal()) });
        let call = side.call(greeter, Kind::Stream, MetadataMap::new());
        world.run(call).unwrap_err();
        let received = world.received();
        assert_eq!(attributes(&received), expected(false));
        assert_eq!(context(received.only_event()), Some(expected(false)));
    }
}

#[test]
fn without_details_nothing_is_told_of_them() {
    for (kind, pii) in KINDS.into_iter().flat_map(|k| [(k, false), (k, true)]) {
        let ends: [fn() -> Status; 3] = [
            || Status::internal("failed"),
            || Status::with_error_details(Code::Internal, "failed", ErrorDetails::new()),
            || {
                let details = ErrorDetails::with_help_link("more", "https://example.com");
                Status::with_error_details(Code::Internal, "failed", details)
            },
        ];
        for (side, end) in sides!()
            .into_iter()
            .flat_map(|s| ends.map(|e| (s.clone(), e)))
        {
            let world = World::with_pii(Some(1.0), pii);
            let call = side.call(failing(end), kind, MetadataMap::new());
            world.run(call).unwrap_err();
            let received = world.received();
            assert_eq!(attributes(&received), Data::new());
            assert_eq!(context(received.only_event()), None);
        }
    }
}

#[test]
fn what_is_only_personal_is_no_empty_context() {
    for (kind, pii) in KINDS.into_iter().flat_map(|k| [(k, false), (k, true)]) {
        for side in sides!() {
            let world = World::with_pii(Some(1.0), pii);
            let greeter = failing(|| {
                let details = ErrorDetails::with_debug_info(["main".to_owned()], "detail");
                Status::with_error_details(Code::Internal, "failed", details)
            });
            let call = side.call(greeter, kind, MetadataMap::new());
            world.run(call).unwrap_err();
            let received = world.received();
            let told = map([
                ("debug_info.detail", json!("detail")),
                ("debug_info.stack_entries", json!(["main"])),
            ]);
            assert_eq!(context(received.only_event()), pii.then_some(told));
        }
    }
}

/// Of bytes that are no details, or none that are whole.
fn torn() -> Vec<Bytes> {
    let whole = refusal().details().to_vec();
    let cut = [1, whole.len() / 3, whole.len() / 2, whole.len() - 1];
    let cut = cut.map(|len| Bytes::from(whole[..len].to_vec()));
    let nonsense = [&[0xff_u8; 64][..], b"\x1a\x7f", b"\x12\x01\xff", b"text"];
    cut.into_iter()
        .chain(nonsense.map(Bytes::from_static))
        .collect()
}

#[test]
fn details_that_are_malformed_harm_nothing() {
    for (kind, pii) in KINDS.into_iter().flat_map(|k| [(k, false), (k, true)]) {
        for (side, details) in sides!()
            .into_iter()
            .flat_map(|s| torn().into_iter().map(move |d| (s.clone(), d)))
        {
            let world = World::with_pii(Some(1.0), pii);
            let sent = details.clone();
            let greeter =
                failing(move || Status::with_details(Code::Internal, "failed", sent.clone()));
            let call = side.call(greeter, kind, MetadataMap::new());
            let status = world.run(call).unwrap_err();
            assert_eq!((status.message(), status.details()), ("failed", &*details));
            let received = world.received();
            // What can be read of them, or nothing.
            let all = expected(pii);
            let told = attributes(&received);
            assert!(
                told.iter()
                    .all(|(name, value)| all.get(name) == Some(value)),
                "{told:?}"
            );
            let event = received.only_event();
            assert_eq!(event.exception.values[0].value.as_deref(), Some("failed"));
            assert_eq!(context(event), (!told.is_empty()).then_some(told));
        }
    }
}

/// A value that is no base64, as no server of tonic would send it by itself.
fn no_base64() -> Status {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_static("!not base64!");
    headers.insert("grpc-status-details-bin", value);
    let metadata = MetadataMap::from_headers(headers);
    Status::with_metadata(Code::Internal, "failed", metadata)
}

#[test]
fn a_header_that_is_no_base64_harms_nothing() {
    for (kind, rate) in KINDS.into_iter().flat_map(|k| RATES.map(|r| (k, r))) {
        for side in sides!() {
            let world = World::with_pii(rate, true);
            let call = async |mut client| {
                // tonic's own client panics over it.
                let call = async move { kind.call(&mut client, MetadataMap::new()).await };
                tokio::spawn(call).await.unwrap_err()
            };
            let panicked = world.run(side.run(failing(no_base64), call));
            assert!(panicked.is_panic());
            let received = world.received();
            let event = received.only_event();
            assert_eq!(event.exception.values[0].value.as_deref(), Some("failed"));
            assert_eq!(context(event), None);
            assert_eq!(received.transactions.len(), usize::from(rate == Some(1.0)));
        }
    }
}

#[test]
fn hostile_details_are_bounded() {
    for side in sides!() {
        let world = World::with_pii(Some(1.0), true);
        let greeter = failing(|| {
            let entries = (0..60).map(|i| (format!("key-{i:03}"), "é".repeat(20)));
            let long = "é".repeat(600);
            let entries: HashMap<_, _> = entries.collect();
            let mut details = ErrorDetails::with_error_info(long, "d", entries);
            let fields = (0..60).map(|_| FieldViolation::new("field", "is none"));
            details.set_bad_request(fields.collect::<Vec<_>>());
            Status::with_error_details(Code::Internal, "failed", details)
        });
        let call = side.call(greeter, Kind::Unary, MetadataMap::new());
        world.run(call).unwrap_err();
        let received = world.received();
        let told = attributes(&received);
        assert_eq!(told["error_info.reason"], json!("é".repeat(512)));
        assert_eq!(
            told["bad_request.field_violations"]
                .as_array()
                .unwrap()
                .len(),
            32
        );
        assert_eq!(told.len(), 3 + 32);
        assert_eq!(context(received.only_event()), Some(told));
    }
}
