//! `grpc-status` and `grpc-message`, from a response head or from trailers.
//!
//! `tonic::Status::from_header_map` is not used: it panics on a malformed
//! `grpc-status-details-bin` and copies all headers.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode;
use tonic::Code;

use crate::rpc::text::clip;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

pub(crate) fn is_in(headers: &HeaderMap) -> bool {
    headers.contains_key(GRPC_STATUS)
}

/// The code and message in `headers`; `None` where there is no `grpc-status`.
///
/// A value that is not one of the 17 codes is UNKNOWN, as the
/// [specification](https://grpc.io/docs/guides/status-codes/) says; the message
/// then tells what stood there, unless the peer sent one.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<(Code, Option<Cow<'static, str>>)> {
    let status = headers.get(GRPC_STATUS)?.as_bytes();
    let code = parse(status);
    // Some implementations, grpc-js among them, send a message with OK.
    let message = match code {
        Some(Code::Ok) => None,
        _ => headers.get(GRPC_MESSAGE),
    };
    let message = message.and_then(|value| {
        let text = percent_decode(value.as_bytes()).decode_utf8_lossy();
        (!text.is_empty()).then(|| Cow::Owned(text.into_owned()))
    });
    Some(match code {
        Some(code) => (code, message),
        None => (
            Code::Unknown,
            message.or_else(|| {
                let status = String::from_utf8_lossy(status);
                Some(format!("unknown grpc-status {:?}", clip(&status, 32)).into())
            }),
        ),
    })
}

/// The answer to a call that panicked: it does not tell the caller why.
pub(crate) fn internal() -> HeaderMap {
    HeaderMap::from_iter([
        (GRPC_STATUS, HeaderValue::from(Code::Internal as u16)),
        (
            GRPC_MESSAGE,
            // Needs no percent-encoding.
            HeaderValue::from_static("internal server error"),
        ),
    ])
}

fn parse(value: &[u8]) -> Option<Code> {
    if value.is_empty() || value.len() > 8 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: i32 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number <= Code::Unauthenticated as i32).then(|| Code::from_i32(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: &[u8], message: Option<&[u8]>) -> Option<(Code, Option<String>)> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, HeaderValue::from_bytes(status).unwrap());
        if let Some(message) = message {
            headers.insert(GRPC_MESSAGE, HeaderValue::from_bytes(message).unwrap());
        }
        from_headers(&headers).map(|(code, message)| (code, message.map(Cow::into_owned)))
    }

    #[test]
    fn reads_all_codes() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            assert_eq!(
                read(number.to_string().as_bytes(), None),
                Some((code, None))
            );
        }
        assert_eq!(from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn unknown_codes_are_unknown_and_say_what_stood_there() {
        for status in ["17", "99999999999", "-1", "x", "", "5 ", "0x5"] {
            assert_eq!(
                read(status.as_bytes(), None),
                Some((
                    Code::Unknown,
                    Some(format!("unknown grpc-status {status:?}"))
                )),
            );
        }
        assert_eq!(
            read(b"17", Some(b"own words")),
            Some((Code::Unknown, Some("own words".to_owned())))
        );
        assert_eq!(
            read(b"\xff", None),
            Some((
                Code::Unknown,
                Some("unknown grpc-status \"\u{fffd}\"".to_owned())
            ))
        );
    }

    #[test]
    fn decodes_messages_whatever_they_hold() {
        let cases = [
            (&b"plain"[..], Some("plain")),
            (b"caf%C3%A9%20%25", Some("café %")),
            (b"bad %zz %", Some("bad %zz %")),
            (b"%ff%fe", Some("\u{fffd}\u{fffd}")),
            (b"\xe2\x82\xac", Some("€")),
            (b"", None),
        ];
        for (message, expected) in cases {
            let (_, got) = read(b"2", Some(message)).unwrap();
            assert_eq!(got.as_deref(), expected);
        }
    }
}
