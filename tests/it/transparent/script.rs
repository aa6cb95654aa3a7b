//! What happens in a case: to the call, and from outside.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Version};
use sentry_tonic::PanicPolicy;

use crate::transparent::choices::Choices;
use crate::transparent::failure::Failure;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) world: usize,
    pub(crate) panic_policy: PanicPolicy,
    pub(crate) request: Request,
    pub(crate) answer: Answer,
    pub(crate) ops: Vec<Op>,
    pub(crate) finish: Finish,
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyScript,
    /// Of gRPC, and of a service that is not left alone.
    pub(crate) is_watched: bool,
    pub(crate) is_out_of_time: bool,
}

/// What the inner service does.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) call_panics: bool,
    /// How often its future is pending.
    pub(crate) pending: Vec<Wake>,
    /// Frames of the request that each poll reads, of the future and of the body.
    pub(crate) reads: usize,
    pub(crate) future_panics: bool,
    pub(crate) drop_panics: bool,
    pub(crate) result: Result<ResponseHead, Failure>,
    pub(crate) body: BodyScript,
}

#[derive(Debug, Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// tonic leaves the status of a failure among the extensions.
    pub(crate) leaves_status: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct BodyScript {
    pub(crate) steps: Vec<Step>,
    pub(crate) at_end: AtEnd,
    pub(crate) hint: (u64, Option<u64>),
    pub(crate) drop_panics: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Data {
        pieces: Vec<Bytes>,
        /// Shows all of them at once to who asks.
        is_open: bool,
    },
    Trailers(HeaderMap),
    Pending(Wake),
    Fail(Failure),
    /// And yet there may be more.
    End,
    Panic,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum AtEnd {
    Never,
    WhenEmpty,
    Always,
    Panics,
}

/// What becomes of the waker of a poll that is pending.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wake {
    Now,
    Never,
    Twice,
    /// When the outside says so.
    Later,
}

/// What is done from outside: to the body, where there is one, else to the future.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Poll,
    PollOnThread,
    /// With a waker of its own.
    PollAnother,
    AskHints,
    WakeLater,
    /// After it was ready.
    PollFutureAgain,
    DropOldFuture,
    Drop,
}

/// What is done once there are no more of these.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Finish {
    /// To the trailers, an error, or an end that is announced.
    LikeHyper,
    /// Until there is no more, and once more.
    BeyondTheEnd,
    Drop,
}

const PATHS: [&str; 6] = [
    "/helloworld.Greeter/SayHello",
    "/",
    "/a.B/C?d=e/f",
    "//",
    "/no-method",
    "/grpc.health.v1.Health/Check",
];

const CONTENT_TYPES: [(&str, bool); 5] = [
    ("application/grpc", true),
    ("application/grpc+proto", true),
    ("Application/GRPC;a=b", true),
    ("application/json", false),
    ("application/grpc-web", false),
];

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a";
const REQUEST_HEADERS: [(&str, &[&str]); 8] = [
    (
        "sentry-trace",
        &[
            TRACE,
            "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1",
            "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-0",
            "00000000000000000000000000000000-0000000000000000-1",
        ],
    ),
    (
        "traceparent",
        &[
            "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01",
            "00-19e04486820349518ac7b5d2adbf6ba5-8cf635fa5b870b3a-00",
            "cc-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01-more",
        ],
    ),
    (
        "baggage",
        &[
            "x=1,",
            "sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5,sentry-public_key=k,a=b;c=d",
            "sentry-sample_rate=0.5,sentry-sample_rand=0.1,sentry-org_id=7,sentry-sampled=x",
            ",,;=,sentry-=,sentry-a=%zz%ff",
        ],
    ),
    ("tracestate", &["a=b,", "a=b,c=d"]),
    ("host", &["a", "[::1]:50051", "a:b:c", "example.com:80"]),
    ("te", &["trailers"]),
    ("x-bin", &["AAEC", "="]),
    ("authorization", &["Bearer secret"]),
];

const TIMEOUTS: [(&str, bool); 6] = [
    ("", false),
    ("1H", false),
    ("99999999H", false),
    ("0n", true),
    ("-1S", false),
    ("999999999S", false),
];

const STATUSES: [u16; 9] = [200, 204, 302, 400, 401, 403, 404, 429, 500];

const RESPONSE_HEADERS: [(&str, &[&str]); 6] = [
    (
        "grpc-status",
        &[
            "0", "1", "2", "4", "5", "12", "13", "14", "15", "16", "17", "00", "x", "",
        ],
    ),
    (
        "grpc-message",
        &["words", "caf%C3%A9", "%zz%", "MetadataMap {"],
    ),
    (
        "grpc-status-details-bin",
        &["AA", "CAISBHdvcmQ", "CAISBHdvcmQaAggB", "====", "_-"],
    ),
    ("content-type", &["application/grpc"]),
    ("x-key", &["value", "another"]),
    ("x-bin", &["AAEC"]),
];

const WAKES: [Wake; 4] = [Wake::Now, Wake::Never, Wake::Twice, Wake::Later];

const OPS: [Op; 12] = [
    Op::Poll,
    Op::Poll,
    Op::Poll,
    Op::Poll,
    Op::PollAnother,
    Op::PollOnThread,
    Op::AskHints,
    Op::WakeLater,
    Op::PollFutureAgain,
    Op::DropOldFuture,
    Op::Poll,
    Op::Drop,
];

impl Case {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let from = &mut Choices::new(bytes);
        Self {
            world: from.byte().into(),
            panic_policy: from.pick(&[
                PanicPolicy::ReturnInternal,
                PanicPolicy::ResumeUnwind,
                PanicPolicy::Ignore,
            ]),
            ops: from.some(9, |from| from.pick(&OPS)),
            finish: from.pick(&[Finish::LikeHyper, Finish::BeyondTheEnd, Finish::Drop]),
            answer: Answer::new(from),
            request: Request::new(from),
        }
    }
}

impl Request {
    fn new(from: &mut Choices<'_>) -> Self {
        let mut path = from.pick(&PATHS).to_owned();
        let is_ignored = path == PATHS[5];
        if !is_ignored && from.one_in(16) {
            path.push_str(&"long/".repeat(300));
        }
        let (content_type, is_grpc) = match from.one_in(4) {
            true => from.pick(&CONTENT_TYPES),
            false => CONTENT_TYPES[0],
        };
        let (timeout, is_out_of_time) = from.pick(&TIMEOUTS);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        if !timeout.is_empty() {
            headers.insert("grpc-timeout", HeaderValue::from_static(timeout));
        }
        from.headers(&mut headers, &REQUEST_HEADERS);
        Self {
            path,
            version: from.pick(&[Version::HTTP_2, Version::HTTP_11]),
            headers,
            body: BodyScript::new(from, &Failure::OF_REQUESTS),
            is_watched: is_grpc && !is_ignored,
            is_out_of_time,
        }
    }
}

impl Answer {
    fn new(from: &mut Choices<'_>) -> Self {
        Self {
            pending: from.some(3, |from| from.pick(&WAKES)),
            result: match from.one_in(6) {
                true => Err(from.pick(&Failure::ALL)),
                false => Ok(ResponseHead::new(from)),
            },
            body: BodyScript::new(from, &Failure::ALL),
            reads: from.below(4),
            call_panics: from.one_in(24),
            future_panics: from.one_in(16),
            drop_panics: from.one_in(16),
        }
    }
}

impl ResponseHead {
    fn new(from: &mut Choices<'_>) -> Self {
        let mut headers = HeaderMap::new();
        if from.one_in(2) {
            from.headers(&mut headers, &RESPONSE_HEADERS);
        }
        Self {
            status: match from.one_in(5) {
                true => from.pick(&STATUSES),
                false => 200,
            },
            headers,
            leaves_status: from.one_in(4),
        }
    }
}

impl BodyScript {
    fn new(from: &mut Choices<'_>, failures: &[Failure]) -> Self {
        let at_end = [
            AtEnd::Never,
            AtEnd::WhenEmpty,
            AtEnd::WhenEmpty,
            AtEnd::Never,
            AtEnd::Always,
            AtEnd::Panics,
        ];
        Self {
            steps: from.some(6, |from| Step::new(from, failures)),
            at_end: from.pick(&at_end),
            hint: (from.byte().into(), from.one_in(2).then_some(1_000)),
            drop_panics: from.one_in(16),
        }
    }
}

impl Step {
    fn new(from: &mut Choices<'_>, failures: &[Failure]) -> Self {
        match from.below(16) {
            0..6 => Self::Data {
                pieces: from.some(3, piece),
                is_open: !from.one_in(4),
            },
            6..10 => {
                let mut trailers = HeaderMap::new();
                from.headers(&mut trailers, &RESPONSE_HEADERS);
                Self::Trailers(trailers)
            }
            10..13 => Self::Pending(from.pick(&WAKES)),
            13 => Self::Fail(from.pick(failures)),
            14 => Self::End,
            _ => Self::Panic,
        }
    }
}

fn piece(from: &mut Choices<'_>) -> Bytes {
    match from.below(5) {
        0 => Bytes::from_static(b"\0\0\0\0\x03abc"),
        1 => Bytes::new(),
        2 => from.bytes(40),
        // The length of a message, of which there may be no more.
        3 => [&[0; 3][..], &from.bytes(2)].concat().into(),
        _ => vec![from.byte(); 70_000].into(),
    }
}
