//! Which requests are gRPC.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

const GRPC: &str = "application/grpc";
const GRPC_WEB: &str = "application/grpc-web";
const GRPC_WEB_TEXT: &str = "application/grpc-web-text";

/// What the `content-type` of a request says of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentType {
    Grpc,
    /// Carries its trailers inside the body, where they cannot be seen without
    /// decoding it.
    GrpcWeb,
    Other,
}

/// Classifies by the rule of the protocol: `application/grpc`, followed by
/// the end, `+` (a codec) or `;` (a parameter).
///
/// See <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests>.
pub(crate) fn content_type(headers: &HeaderMap) -> ContentType {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return ContentType::Other;
    };
    if is(value, GRPC) {
        ContentType::Grpc
    } else if is(value, GRPC_WEB) || is(value, GRPC_WEB_TEXT) {
        ContentType::GrpcWeb
    } else {
        ContentType::Other
    }
}

fn is(value: &str, essence: &str) -> bool {
    let Some((head, rest)) = value.split_at_checked(essence.len()) else {
        return false;
    };
    head.eq_ignore_ascii_case(essence) && matches!(rest.bytes().next(), None | Some(b'+' | b';'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_grpc_with_an_end_a_codec_or_a_parameter_is_grpc() {
        let cases = [
            ("application/grpc", ContentType::Grpc),
            ("application/grpc+proto", ContentType::Grpc),
            ("application/grpc+json; charset=utf-8", ContentType::Grpc),
            ("application/grpc;x=y", ContentType::Grpc),
            ("Application/GRPC", ContentType::Grpc),
            ("application/grpc-web", ContentType::GrpcWeb),
            ("application/grpc-web+proto", ContentType::GrpcWeb),
            ("application/grpc-web-text+proto", ContentType::GrpcWeb),
            ("application/grpc-webby", ContentType::Other),
            ("application/grpcx", ContentType::Other),
            ("application/json", ContentType::Other),
            ("", ContentType::Other),
            ("applicatiön/grpc", ContentType::Other),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
            assert_eq!(content_type(&headers), expected, "{value}");
        }
        assert_eq!(content_type(&HeaderMap::new()), ContentType::Other);
    }
}
