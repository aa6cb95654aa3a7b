//! How an RPC ended.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::io;

use http::{HeaderMap, StatusCode};
use tonic::{Code, ConnectError, Status, TimeoutExpired};

use crate::rpc::io_error;
use crate::rpc::sources::chain;
use crate::rpc::status;
use crate::rpc::text::{bounded, clip};
#[cfg(feature = "transport")]
use crate::rpc::transport;

/// Longer messages are cut, as a peer writes them.
const MAX_MESSAGE_LEN: usize = 1024;

/// The status that an RPC ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Code,
    /// The message of a status that is a failure; never empty.
    pub(crate) message: Option<Cow<'static, str>>,
    pub(crate) has_panicked: bool,
}

impl Outcome {
    fn new(code: Code, message: Option<Cow<'static, str>>) -> Self {
        // Some implementations, grpc-js among them, send a message with OK.
        let is_told = |text: &Cow<'_, str>| code != Code::Ok && !text.is_empty();
        let message = message.filter(is_told).map(|text| {
            if text.len() > MAX_MESSAGE_LEN {
                clip(&text, MAX_MESSAGE_LEN).to_owned().into()
            } else {
                text
            }
        });
        Self {
            code,
            message,
            has_panicked: false,
        }
    }

    /// From the `grpc-status` in a head or in trailers; `None` where there is
    /// none.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let (code, message) = status::from_headers(headers)?;
        Some(Self::new(code, message))
    }

    /// Whether `headers` say how it ended.
    pub(crate) fn is_in(headers: &HeaderMap) -> bool {
        status::is_in(headers)
    }

    /// For a response head without `grpc-status`: `None` where it is a gRPC
    /// response, whose status comes later.
    ///
    /// See <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>.
    pub(crate) fn from_http(status: StatusCode) -> Option<Self> {
        let code = match status.as_u16() {
            200 => return None,
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        let message = format!("HTTP status {}", status.as_u16());
        Some(Self::new(code, Some(message.into())))
    }

    /// For a response that ended without a status.
    pub(crate) fn no_status() -> Self {
        let message = "the response ended without grpc-status";
        Self::new(Code::Unknown, Some(message.into()))
    }

    /// For a failure of which only a text is known.
    #[cfg(feature = "tower-http")]
    pub(crate) fn of_text(text: String) -> Self {
        Self::new(Code::Unknown, Some(text.into()))
    }

    /// From the code and the message of a status.
    #[cfg(feature = "tower-http")]
    pub(crate) fn of_status(code: i32, message: Option<&str>) -> Self {
        let message = message.map(|message| message.to_owned().into());
        Self::new(Code::from_i32(code), message)
    }

    /// For an RPC that was dropped after its deadline.
    pub(crate) fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, None)
    }

    /// For an RPC that was dropped before its end.
    pub(crate) fn dropped() -> Self {
        Self::new(Code::Cancelled, None)
    }

    /// The message of a panic whose payload is no text.
    pub(crate) const PANICKED: &'static str = "panicked";

    /// For an RPC that a panic has ended.
    pub(crate) fn panicked() -> Self {
        Self {
            has_panicked: true,
            ..Self::new(Code::Internal, Some(Self::PANICKED.into()))
        }
    }

    /// Whether it is what tonic's server answers to a request that ended too early.
    pub(crate) fn is_of_cut_request(&self) -> bool {
        const MESSAGES: [&str; 2] = [
            "Missing request message.",
            "Unexpected EOF decoding stream.",
        ];
        let is_its = |message: &str| MESSAGES.contains(&message);
        self.code == Code::Internal && self.message.as_deref().is_some_and(is_its)
    }

    /// From the error of a request body: `None` unless the connection broke or the caller hung
    /// up. It is the status that tonic makes of that error.
    pub(crate) fn of_cut_request(error: &dyn Any) -> Option<Self> {
        let outermost = as_error(error)?;
        let is_cut = |error: &(dyn Error + 'static)| {
            let io = error.downcast_ref::<io::Error>();
            transport_code(error)
                .or_else(|| io.and_then(io_error::code))
                .is_some()
        };
        if !chain(outermost).any(is_cut) {
            return None;
        }
        Some(match outermost.downcast_ref::<Status>() {
            Some(status) => Self::new(status.code(), Some(status.message().to_owned().into())),
            None => Self::from_error(error),
        })
    }

    /// Looks at an error without taking it: the types that gRPC services of
    /// tower and tonic fail with, and what stands in their `source()` chain.
    pub(crate) fn from_error(error: &dyn Any) -> Self {
        let Some(error) = as_error(error) else {
            return Self::new(Code::Unknown, None);
        };
        let mut unknown = None;
        for error in chain(error) {
            if let Some(status) = error.downcast_ref::<Status>() {
                let message = status.message().to_owned();
                let outcome = Self::new(status.code(), Some(message.into()));
                if outcome.code != Code::Unknown {
                    return outcome;
                }
                // tonic makes UNKNOWN of a connection that breaks in a stream: its sources may
                // tell more.
                unknown = unknown.or(Some(outcome));
            } else if let Some(code) = match unknown {
                Some(_) => transport_code(error),
                None => code_of(error),
            } {
                return Self::new(code, Some(text(error)));
            }
        }
        unknown.unwrap_or_else(|| Self::new(Code::Unknown, Some(text(error))))
    }
}

fn code_of(error: &(dyn Error + 'static)) -> Option<Code> {
    if error.is::<TimeoutExpired>() {
        return Some(Code::DeadlineExceeded);
    }
    if error.is::<ConnectError>() {
        return Some(Code::Unavailable);
    }
    let io = error.downcast_ref::<io::Error>();
    transport_code(error).or_else(|| io.and_then(io_error::code))
}

#[cfg(feature = "transport")]
fn transport_code(error: &(dyn Error + 'static)) -> Option<Code> {
    transport::code(error)
}

#[cfg(not(feature = "transport"))]
fn transport_code(_: &(dyn Error + 'static)) -> Option<Code> {
    None
}

fn text(error: &(dyn Error + 'static)) -> Cow<'static, str> {
    bounded(MAX_MESSAGE_LEN, format_args!("{error}")).into()
}

/// The cause of a failure: the error; where that is a status, only its source.
pub(crate) fn cause_of(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    let error = as_error(error)?;
    match error.is::<Status>() {
        true => error.source(),
        false => Some(error),
    }
}

/// The error as `dyn Error`. Errors of tower may have any type; these are the usual ones.
fn as_error(error: &dyn Any) -> Option<&(dyn Error + 'static)> {
    if let Some(error) = error.downcast_ref::<Box<dyn Error + Send + Sync>>() {
        return Some(error.as_ref());
    }
    if let Some(error) = error.downcast_ref::<Box<dyn Error + Send>>() {
        return Some(error.as_ref());
    }
    if let Some(error) = error.downcast_ref::<Status>() {
        return Some(error);
    }
    #[cfg(feature = "transport")]
    if let Some(error) = error.downcast_ref::<tonic::transport::Error>() {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(error);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    type BoxError = Box<dyn Error + Send + Sync>;

    fn of(error: impl Any) -> (Code, Option<String>) {
        let outcome = Outcome::from_error(&error);
        (outcome.code, outcome.message.map(Cow::into_owned))
    }

    #[derive(Debug)]
    struct Outer(BoxError);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }
    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self.0.as_ref())
        }
    }

    #[test]
    fn long_messages_are_cut_wherever_they_come_from() {
        let long = "é".repeat(1_000);
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", 2.into());
        headers.insert("grpc-message", long.parse().unwrap());
        let cut = Some("é".repeat(512).into());
        assert_eq!(Outcome::from_headers(&headers).unwrap().message, cut);
        let status = Status::unknown(long.clone());
        assert_eq!(Outcome::from_error(&status).message, cut);
        assert_eq!(Outcome::from_error(&BoxError::from(long)).message, cut);
    }

    #[test]
    fn http_status_maps_as_grpc_says() {
        let code = |status| {
            Outcome::from_http(StatusCode::from_u16(status).unwrap()).map(|outcome| outcome.code)
        };
        assert_eq!(code(200), None);
        for (status, expected) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (204, Code::Unknown),
            (302, Code::Unknown),
            (418, Code::Unknown),
            (500, Code::Unknown),
        ] {
            assert_eq!(code(status), Some(expected), "{status}");
        }
    }

    #[test]
    fn errors_are_classified_by_reference() {
        assert_eq!(
            of(Status::not_found("gone")),
            (Code::NotFound, Some("gone".to_owned()))
        );
        assert_eq!(
            of(BoxError::from(Status::aborted(""))),
            (Code::Aborted, None)
        );
        assert_eq!(
            of(BoxError::from(Outer(Status::data_loss("deep").into()))),
            (Code::DataLoss, Some("deep".to_owned()))
        );
        assert_eq!(
            of(BoxError::from(Outer(TimeoutExpired(()).into()))).0,
            Code::DeadlineExceeded
        );
        assert_eq!(
            of(BoxError::from(ConnectError("no".into()))).0,
            Code::Unavailable
        );
        assert_eq!(
            of(io::Error::from(io::ErrorKind::ConnectionRefused)).0,
            Code::Unavailable
        );
        assert_eq!(
            of(io::Error::from(io::ErrorKind::TimedOut)).0,
            Code::DeadlineExceeded
        );
        let sent: Box<dyn Error + Send> = Box::new(Status::aborted("sent"));
        assert_eq!(of(sent), (Code::Aborted, Some("sent".to_owned())));
        // Of a status that says nothing, its transport alone may say more.
        let mut unknown = Status::unknown("who knows");
        unknown.set_source(std::sync::Arc::new(io::Error::from(
            io::ErrorKind::ConnectionReset,
        )));
        assert_eq!(of(unknown), (Code::Unknown, Some("who knows".to_owned())));
        assert_eq!(
            of(BoxError::from("words")),
            (Code::Unknown, Some("words".to_owned()))
        );
        assert_eq!(of(17_u8), (Code::Unknown, None));
    }

    #[test]
    fn an_endless_chain_ends() {
        #[derive(Debug)]
        struct Circle;
        impl fmt::Display for Circle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("circle")
            }
        }
        impl Error for Circle {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(self)
            }
        }
        assert_eq!(
            of(BoxError::from(Circle)),
            (Code::Unknown, Some("circle".to_owned()))
        );
    }
}
