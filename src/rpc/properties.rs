//! Property tests: what holds for any gRPC headers and messages.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use tonic::{Code, Status};

use crate::rpc::messages::MessageCounter;
use crate::rpc::method::MethodPath;
use crate::rpc::outcome::Outcome;
use crate::rpc::text::{bounded, clip};
use crate::rpc::timeout::grpc_timeout;

const UNITS: [(char, u64); 6] = [
    ('H', 3_600_000_000_000),
    ('M', 60_000_000_000),
    ('S', 1_000_000_000),
    ('m', 1_000_000),
    ('u', 1_000),
    ('n', 1),
];

fn value() -> impl Strategy<Value = HeaderValue> {
    let legal = prop_oneof![Just(b'\t'), b' '..=b'~', 0x80_u8..];
    let bytes = vec(legal, 0..40);
    bytes.prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

fn with(name: &'static str, value: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    headers
}

proptest! {
    #[test]
    fn timeouts_are_read(amount in 0_u64..100_000_000, unit in 0_usize..6) {
        let (unit, nanos) = UNITS[unit];
        let headers = with("grpc-timeout", format!("{amount}{unit}").parse().unwrap());
        let expected = Duration::from_nanos(nanos).saturating_mul(u32::try_from(amount).unwrap());
        prop_assert_eq!(grpc_timeout(&headers), Some(expected));
    }

    #[test]
    fn no_other_timeout_is(value in value()) {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let is_one = text.strip_suffix(|unit| UNITS.iter().any(|(one, _)| *one == unit))
            .is_some_and(|n| (1..=8).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()));
        prop_assert_eq!(grpc_timeout(&with("grpc-timeout", value)).is_some(), is_one);
    }

    /// As tonic writes it.
    #[test]
    fn a_status_is_read_as_it_is_written(code in 0..17, message: String, times in 1_usize..40) {
        let message = message.repeat(times);
        let code = Code::from_i32(code);
        let mut headers = HeaderMap::new();
        Status::new(code, message.clone()).add_header(&mut headers).unwrap();
        let outcome = Outcome::from_headers(&headers).unwrap();
        prop_assert_eq!(outcome.code, code);
        let expected = (code != Code::Ok && !message.is_empty()).then(|| clip(&message, 1024));
        prop_assert_eq!(outcome.message.as_deref(), expected);
    }

    #[test]
    fn any_status_is_read(status in value(), message in value()) {
        let mut headers = with("grpc-status", status);
        headers.insert("grpc-message", message);
        let outcome = Outcome::from_headers(&headers).unwrap();
        let message = outcome.message.unwrap_or("-".into());
        prop_assert!(!message.is_empty() && message.len() <= 1024);
    }

    #[test]
    fn messages_are_counted_however_they_are_cut(
        lens in vec(0_usize..9, 0..9),
        cuts in vec(0_usize..9, 0..40),
    ) {
        let mut bytes = vec![];
        for len in &lens {
            bytes.extend([0, 0, 0, 0, u8::try_from(*len).unwrap()]);
            bytes.extend(vec![0xff; *len]);
        }
        let mut counter = MessageCounter::new();
        let mut left = bytes.as_slice();
        for cut in cuts {
            let (piece, rest) = left.split_at(cut.min(left.len()));
            counter.see(&piece);
            left = rest;
        }
        counter.see(&left);
        prop_assert_eq!(counter.messages(), Some(u32::try_from(lens.len()).unwrap()));
    }

    #[test]
    fn any_bytes_are_counted_as_one_piece_is(bytes in vec(0_u8..3, 0..200), at in 0_usize..200) {
        let (mut whole, mut cut) = (MessageCounter::new(), MessageCounter::new());
        whole.see(&bytes.as_slice());
        let (a, b) = bytes.split_at(at.min(bytes.len()));
        cut.see(&a);
        cut.see(&b);
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn any_method_has_a_name_within_its_limit(path in "/[a-zA-Z0-9._%/-]{0,300}") {
        let method = MethodPath::new(&path.parse().unwrap());
        prop_assert_eq!(method.full(), clip(&path, 200));
        let names = [method.service(), method.method()];
        let joined = match method.qualified().contains('/') {
            true => names.join("/"),
            false => names.concat(),
        };
        prop_assert_eq!(method.qualified(), joined);
    }

    #[test]
    fn any_text_is_cut_within_its_limit(text: String, max in 0_usize..50) {
        let cut = clip(&text, max);
        prop_assert!(cut.len() <= max && text.starts_with(cut));
        prop_assert!(text.len() <= max || cut.len() + 4 > max);
        prop_assert_eq!(bounded(max, format_args!("{text}")), cut);
    }
}

#[cfg(feature = "error-details")]
mod details {
    use http::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use tonic::metadata::{Binary, MetadataValue};
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

    use crate::rpc::details::from_headers;
    use crate::rpc::properties::with;

    const NAME: &str = "grpc-status-details-bin";

    proptest! {
        #[test]
        fn details_are_read_as_they_are_written(texts in vec(any::<String>(), 4), many in 0_usize..9) {
            let mut sent = ErrorDetails::new();
            let violation = FieldViolation::new(&texts[0], &texts[1]);
            sent.set_error_info(&texts[2], &texts[3], [(texts[0].clone(), texts[1].clone())])
                .set_debug_info(texts.clone(), &texts[0])
                .set_resource_info(&texts[0], &texts[1], &texts[2], &texts[3])
                .set_bad_request(vec![violation; many]);
            let mut headers = http::HeaderMap::new();
            let status = Status::with_error_details(Code::Internal, "", sent.clone());
            status.add_header(&mut headers).unwrap();
            let read = from_headers(&headers).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{sent:?}"));
        }

        #[test]
        fn any_details_are_read(bytes in vec(any::<u8>(), 0..80)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = from_headers(&with(NAME, value));
            }
            let encoded = MetadataValue::<Binary>::from_bytes(&bytes);
            let value = HeaderValue::from_bytes(encoded.as_encoded_bytes()).unwrap();
            let _ = from_headers(&with(NAME, value));
        }
    }
}
