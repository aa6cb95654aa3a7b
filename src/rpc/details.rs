//! The `google.rpc` details of a failed call, from a response head or from trailers.
//!
//! `tonic_types::StatusExt` is not used: it drops all details if one is malformed, and
//! panics on some negative delays where overflows are checked (prost-types 0.14.4).

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderName;
use prost::Message;
use tonic::metadata::MetadataMap;
pub(crate) use tonic_types::ErrorDetails;
use tonic_types::{BadRequest, PreconditionFailure, QuotaFailure, pb as google_rpc};

const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Servers rarely take or send this much in all their headers.
const MAX_ENCODED_LEN: usize = 64 * 1024;

/// The details in `headers`; `None` where there are none that can be read. Of two of
/// one kind the last one counts, and what is malformed is as good as not there.
///
/// The code and message beside the details are those of `grpc-status` and
/// `grpc-message`, or should be.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<ErrorDetails> {
    let status = google_rpc::Status::decode(decoded(headers)?).ok()?;
    let mut details = ErrorDetails::new();
    for detail in &status.details {
        // Whoever made it up, the name after the host is what says the type.
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let _ = add(&mut details, name, &detail.value);
    }
    Some(details)
}

/// The bytes of the header: tonic knows which base64 gRPC allows.
fn decoded(headers: &HeaderMap) -> Option<Bytes> {
    let value = headers
        .get(GRPC_STATUS_DETAILS)
        .filter(|value| value.len() <= MAX_ENCODED_LEN)?;
    let only = HeaderMap::from_iter([(GRPC_STATUS_DETAILS, value.clone())]);
    MetadataMap::from_headers(only)
        .get_bin(GRPC_STATUS_DETAILS.as_str())?
        .to_bytes()
        .ok()
}

/// Adds the detail of type `name` in `value`, unless it is malformed or tells
/// nothing of which Sentry knows.
fn add(details: &mut ErrorDetails, name: &str, value: &[u8]) -> Option<()> {
    match name {
        "google.rpc.ErrorInfo" => {
            let info = google_rpc::ErrorInfo::decode(value).ok()?;
            details.set_error_info(info.reason, info.domain, info.metadata);
        }
        "google.rpc.RetryInfo" => {
            let delay = google_rpc::RetryInfo::decode(value).ok()?.retry_delay?;
            let seconds = Duration::from_secs(delay.seconds.try_into().ok()?);
            let nanos = Duration::from_nanos(delay.nanos.try_into().ok()?);
            details.set_retry_info(seconds.checked_add(nanos));
        }
        "google.rpc.DebugInfo" => {
            let info = google_rpc::DebugInfo::decode(value).ok()?;
            details.set_debug_info(info.stack_entries, info.detail);
        }
        "google.rpc.QuotaFailure" => {
            let failure: QuotaFailure = google_rpc::QuotaFailure::decode(value).ok()?.into();
            details.set_quota_failure(failure.violations);
        }
        "google.rpc.PreconditionFailure" => {
            let failure: PreconditionFailure =
                google_rpc::PreconditionFailure::decode(value).ok()?.into();
            details.set_precondition_failure(failure.violations);
        }
        "google.rpc.BadRequest" => {
            let request: BadRequest = google_rpc::BadRequest::decode(value).ok()?.into();
            details.set_bad_request(request.field_violations);
        }
        "google.rpc.ResourceInfo" => {
            let info = google_rpc::ResourceInfo::decode(value).ok()?;
            details.set_resource_info(
                info.resource_type,
                info.resource_name,
                info.owner,
                info.description,
            );
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use prost_types::Any;
    use tonic::metadata::{Binary, MetadataValue};
    use tonic::{Code, Status};
    use tonic_types::{FieldViolation, PreconditionViolation, QuotaViolation, StatusExt};

    fn headers(value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(GRPC_STATUS_DETAILS, HeaderValue::from_bytes(value).unwrap())])
    }

    fn base64(raw: &[u8]) -> Vec<u8> {
        MetadataValue::<Binary>::from_bytes(raw)
            .as_encoded_bytes()
            .to_vec()
    }

    fn read_raw(raw: &[u8]) -> Option<ErrorDetails> {
        from_headers(&headers(&base64(raw)))
    }

    fn read_any(details: &[(&str, Vec<u8>)]) -> ErrorDetails {
        let details = details
            .iter()
            .map(|(type_url, value)| Any {
                type_url: (*type_url).to_owned(),
                value: value.clone(),
            })
            .collect();
        let status = google_rpc::Status {
            code: 99,
            message: "not the one of grpc-message".to_owned(),
            details,
        };
        read_raw(&status.encode_to_vec()).unwrap()
    }

    fn status(details: ErrorDetails) -> Vec<u8> {
        Status::with_error_details(Code::Internal, "message", details)
            .details()
            .to_vec()
    }

    fn retry_delay(seconds: i64, nanos: i32) -> Option<Duration> {
        let retry_delay = Some(prost_types::Duration { seconds, nanos });
        let value = google_rpc::RetryInfo { retry_delay }.encode_to_vec();
        read_any(&[("type.googleapis.com/google.rpc.RetryInfo", value)])
            .retry_info()
            .and_then(|info| info.retry_delay)
    }

    #[test]
    fn reads_every_kind() {
        let metadata = [("key".to_owned(), "value".to_owned())];
        let mut sent = ErrorDetails::new();
        sent.set_error_info("REASON", "example.com", metadata)
            .set_retry_info(Some(Duration::from_millis(1500)))
            .set_debug_info(["main".to_owned()], "detail")
            .set_quota_failure([QuotaViolation::new("subject", "too much")])
            .set_precondition_failure([PreconditionViolation::new("TOS", "subject", "no")])
            .set_bad_request([FieldViolation::new("email", "none")])
            .set_resource_info("database", "name", "owner", "is gone");
        let got = read_raw(&status(sent.clone())).unwrap();
        assert_eq!(format!("{got:?}"), format!("{sent:?}"));
    }

    #[test]
    fn passes_over_kinds_of_which_sentry_knows_nothing() {
        let mut sent = ErrorDetails::with_localized_message("de", "Fehler");
        sent.set_request_info("id", "data").add_help_link("a", "b");
        let got = read_raw(&status(sent)).unwrap();
        assert_eq!(format!("{got:?}"), format!("{:?}", ErrorDetails::new()));
    }

    #[test]
    fn reads_base64_with_padding_and_without() {
        for reason in ["A", "AB", "ABC"] {
            let raw = status(ErrorDetails::with_error_info(reason, "", []));
            let mut encoded = base64(&raw);
            assert!(from_headers(&headers(&encoded)).is_some());
            encoded.resize(encoded.len().next_multiple_of(4), b'=');
            let got = from_headers(&headers(&encoded)).unwrap();
            assert_eq!(got.error_info().unwrap().reason, reason);
        }
    }

    #[test]
    fn what_is_malformed_is_not_there() {
        assert!(from_headers(&HeaderMap::new()).is_none());
        for value in [
            &b"!"[..],
            b"A",
            b"====",
            b"AB C",
            b"AB,CD",
            b"_-_-",
            b"\xff\xfe",
        ] {
            let read = from_headers(&headers(value));
            assert!(read.is_none_or(|details| details.error_info().is_none()));
        }
        // A length beyond the end, an endless varint, the wire type 7, a message
        // that is not UTF-8.
        for raw in [&b"\x1a\x7f"[..], &[0xff; 64], b"\x0f", b"\x12\x01\xff"] {
            assert!(read_raw(raw).is_none(), "{raw:?}");
        }
    }

    #[test]
    fn one_malformed_detail_leaves_the_others() {
        let info = google_rpc::ErrorInfo {
            reason: "REASON".to_owned(),
            ..google_rpc::ErrorInfo::default()
        };
        let got = read_any(&[
            ("type.googleapis.com/google.rpc.BadRequest", vec![0xff; 9]),
            ("example.com/api/google.rpc.ErrorInfo", info.encode_to_vec()),
            ("type.googleapis.com/google.rpc.ErrorInfo", vec![0x0a, 9]),
            ("", vec![1]),
        ]);
        assert_eq!(got.error_info().unwrap().reason, "REASON");
        assert!(got.bad_request().is_none());
    }

    #[test]
    fn truncated_details_are_read_or_not() {
        let raw = status(ErrorDetails::with_debug_info(
            ["a".to_owned(), "b".to_owned()],
            "detail",
        ));
        for len in 0..raw.len() {
            if let Some(details) = read_raw(&raw[..len]) {
                assert!(details.debug_info().is_none(), "{len}");
            }
        }
    }

    #[test]
    fn reads_no_delay_that_is_none() {
        let longest = tonic_types::RetryInfo::MAX_RETRY_DELAY;
        assert_eq!(retry_delay(5, 0), Some(Duration::from_secs(5)));
        assert_eq!(retry_delay(0, 7), Some(Duration::from_nanos(7)));
        assert_eq!(
            retry_delay(0, i32::MAX),
            Some(Duration::new(2, 147_483_647))
        );
        assert_eq!(retry_delay(i64::MAX, i32::MAX), Some(longest));
        // The ones from which prost-types overflows among them.
        for seconds in [-1, i64::MIN, i64::MIN + 1, i64::MIN + 2] {
            for nanos in [0, 1, -1, -1_000_000_000, -2_000_000_000, i32::MIN] {
                assert_eq!(retry_delay(seconds, nanos), None);
            }
        }
        assert_eq!(retry_delay(5, -1), None);
    }

    #[test]
    fn passes_over_too_much() {
        let reason = "a".repeat(MAX_ENCODED_LEN / 4 * 3 - 200);
        let read = |reason: &str| {
            let details = ErrorDetails::with_error_info(reason, "", []);
            from_headers(&headers(&base64(&status(details))))
        };
        assert_eq!(read(&reason).unwrap().error_info().unwrap().reason, reason);
        assert!(read(&"a".repeat(MAX_ENCODED_LEN)).is_none());
        assert!(from_headers(&headers(&vec![b'A'; MAX_ENCODED_LEN + 1])).is_none());
    }

    #[test]
    fn hostile_shapes_end() {
        // Groups inside of groups, as deep as they can be.
        assert!(read_raw(&vec![0x23; 48 * 1024]).is_none());
        // As many details as there can be, all of them empty.
        let many = [0x1a, 0].repeat(24 * 1024);
        assert!(read_raw(&many).is_some());
        let violations = [0x0a, 0].repeat(20 * 1024);
        let got = read_any(&[("/google.rpc.QuotaFailure", violations)]);
        assert_eq!(got.quota_failure().unwrap().violations.len(), 20 * 1024);
    }
}
