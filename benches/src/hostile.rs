//! What a peer may send to make a call dear, in any size.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use prost::Message;
use tonic::metadata::BinaryMetadataValue;

const IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

/// A call, and the call that its handler makes.
#[derive(Clone)]
pub struct Hostile {
    pub uri: Uri,
    pub request: HeaderMap,
    /// What the request of the handler has already.
    pub own: HeaderMap,
    /// Of both calls.
    pub trailers: HeaderMap,
    /// Of all requests and responses.
    pub frames: VecDeque<Bytes>,
}

/// Makes one of so many bytes.
pub type Make = fn(usize) -> Hostile;

/// By what it is that grows.
pub const CASES: [(&str, Make); 28] = [
    ("sentry-trace, long", |n| {
        Hostile::new().asking("sentry-trace", long(IDS, "-1", n))
    }),
    ("sentry-trace, many", |n| {
        Hostile::new().asking_often("sentry-trace", "-", n)
    }),
    ("traceparent, long", |n| {
        Hostile::new().asking("traceparent", long(&format!("cc-{IDS}-01"), "-x", n))
    }),
    ("traceparent, many", |n| {
        Hostile::new().asking_often("traceparent", "-", n)
    }),
    ("tracestate, one member", |n| {
        traced().asking("tracestate", long("a=", "b", n))
    }),
    ("tracestate, many members", |n| {
        traced().asking("tracestate", long("a=b", ",a=b", n))
    }),
    ("tracestate, many headers", |n| {
        traced().asking_often("tracestate", "a=b", n)
    }),
    ("baggage, one member", |n| {
        traced().asking("baggage", long("sentry-a=", "b", n))
    }),
    ("baggage, many members", |n| {
        traced().asking("baggage", long("sentry-a=b", ",sentry-c=d", n))
    }),
    ("baggage, the same key", |n| {
        let member = ",sentry-sample_rate=x";
        traced().asking("baggage", long(member, member, n))
    }),
    ("baggage, percent signs", |n| {
        traced().asking("baggage", long("sentry-sample_rate=%", "%", n))
    }),
    ("baggage, commas", |n| {
        traced().asking("baggage", long(",", ",", n))
    }),
    ("baggage, many headers", |n| {
        traced().asking_often("baggage", "sentry-a=b", n)
    }),
    ("baggage of a request, many members", |n| {
        let mut hostile = traced().asking("baggage", "sentry-a=b".into());
        hostile
            .own
            .append("baggage", value(&long("a=b", ",sentry-c=d,e=f", n)));
        hostile
    }),
    ("baggage of a request, many headers", |n| {
        let mut hostile = traced().asking("baggage", "sentry-a=b".into());
        for _ in 0..n / 16 {
            hostile.own.append("baggage", value("sentry-c=d,e=f"));
        }
        hostile
    }),
    ("grpc-timeout", |n| {
        Hostile::new().asking("grpc-timeout", long("1", "0", n))
    }),
    ("grpc-status", |n| {
        Hostile::new().answering("grpc-status", long("1", "0", n))
    }),
    ("grpc-message, percent-encoded", |n| {
        failed().answering("grpc-message", long("", "%C3%A9", n))
    }),
    ("grpc-message, no text", |n| {
        failed().answering("grpc-message", long("", "%ff%", n))
    }),
    ("grpc-message, almost a status", |n| {
        failed().answering("grpc-message", long("", "MetadataMap ", n))
    }),
    ("details, many", |n| {
        failed().detailed(&status(&bad_request(20), n / 100))
    }),
    ("details, one of many violations", |n| {
        failed().detailed(&status(&bad_request(n * 3 / 20), 1))
    }),
    ("details, many unknown", |n| {
        failed().detailed(&status(&any("t/x", vec![]), n * 3 / 4 / 7))
    }),
    ("details, garbage", |n| {
        failed().answering("grpc-status-details-bin", long("", "CgM=", n))
    }),
    ("path", |n| {
        let mut hostile = Hostile::new();
        // Of a URI there can be no more.
        let path = long("/a.B/C", "/", n.min(65_000));
        hostile.uri = Uri::try_from(path).expect("it is one");
        hostile.asking("host", long("a", ".a", n))
    }),
    ("metadata, many keys", |n| {
        let mut hostile = Hostile::new();
        for number in 0..n / 32 {
            let name = HeaderName::try_from(format!("x-some-{number}")).expect("it is one");
            hostile.request.append(name, value("some more words"));
        }
        hostile
    }),
    ("metadata, many values", |n| {
        Hostile::new().asking_often("x-some", "words", n)
    }),
    ("messages, byte by byte", |n| {
        let mut hostile = Hostile::new();
        hostile.frames = vec![Bytes::from_static(b"\0"); n].into();
        hostile
    }),
];

impl Hostile {
    fn new() -> Self {
        let content_type = (
            HeaderName::from_static("content-type"),
            value("application/grpc"),
        );
        Self {
            uri: Uri::from_static("http://localhost:50051/helloworld.Greeter/SayHello"),
            request: HeaderMap::from_iter([content_type.clone()]),
            own: HeaderMap::from_iter([content_type]),
            trailers: HeaderMap::new(),
            frames: VecDeque::new(),
        }
    }

    fn asking(mut self, name: &'static str, text: String) -> Self {
        self.request.append(name, value(&text));
        self
    }

    /// In as many headers, each of which takes this and 16 bytes more.
    fn asking_often(mut self, name: &'static str, text: &str, len: usize) -> Self {
        for _ in 0..len / (text.len() + 16) {
            self.request.append(name, value(text));
        }
        self
    }

    fn answering(mut self, name: &'static str, text: String) -> Self {
        self.trailers.append(name, value(&text));
        self
    }

    fn detailed(mut self, status: &[u8]) -> Self {
        let encoded = BinaryMetadataValue::from_bytes(status);
        let value = HeaderValue::from_bytes(encoded.as_encoded_bytes()).expect("it is ASCII");
        self.trailers.insert("grpc-status-details-bin", value);
        self
    }
}

fn traced() -> Hostile {
    Hostile::new()
        .asking("sentry-trace", format!("{IDS}-1"))
        .asking("traceparent", format!("00-{IDS}-01"))
}

fn failed() -> Hostile {
    Hostile::new().answering("grpc-status", "3".into())
}

/// `more` as often as it takes.
fn long(start: &str, more: &str, len: usize) -> String {
    let times = len.saturating_sub(start.len()) / more.len();
    format!("{start}{}", more.repeat(times))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("it is ASCII")
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.BadRequest`, and its violations.
#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, Message)]
struct Violation {
    #[prost(string, tag = "1")]
    field: String,
}

fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value,
    }
}

/// Of so many bytes.
fn bad_request(len: usize) -> Any {
    let violation = Violation { field: "a".into() };
    let field_violations = vec![violation; len / 5];
    any(
        "t/google.rpc.BadRequest",
        BadRequest { field_violations }.encode_to_vec(),
    )
}

fn status(detail: &Any, times: usize) -> Vec<u8> {
    let details = vec![detail.clone(); times];
    Status { details }.encode_to_vec()
}
