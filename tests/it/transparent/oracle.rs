//! How a call ended, by what was seen of it without the middleware.

use http::{HeaderMap, StatusCode};
use tonic::Code;

use crate::transparent::failure::Said;
use crate::transparent::script::Request;
use crate::transparent::seen::{Part, Polled, Seen};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct End {
    /// Where in what was seen.
    pub(crate) at: usize,
    pub(crate) code: Code,
    /// It ended by this panic.
    pub(crate) panic: Option<Part>,
}

/// The first of the ends in the order of the manual.
pub(crate) fn end(request: &Request, seen: &[Seen]) -> End {
    let mut in_body = false;
    // What the HTTP status means.
    let mut foreseen = None;
    let mut is_at_end = false;
    for (at, seen) in seen.iter().enumerate() {
        let ended = |code| End {
            at,
            code,
            panic: None,
        };
        let late = match request.is_out_of_time {
            true => Code::DeadlineExceeded,
            false => Code::Cancelled,
        };
        return match seen {
            Seen::Head {
                headers, status, ..
            } => {
                if let Some(code) = code_in(headers) {
                    return ended(code);
                }
                in_body = true;
                foreseen = code_of(*status);
                continue;
            }
            Seen::Future(Polled::Failed(Said::Failure(failure)))
            | Seen::Frame(Polled::Failed(Said::Failure(failure))) => ended(failure.code()),
            Seen::Frame(Polled::Trailers(trailers)) => {
                ended(code_in(trailers).or(foreseen).unwrap_or(Code::Unknown))
            }
            Seen::Frame(Polled::End) => ended(foreseen.unwrap_or(Code::Unknown)),
            Seen::Hints(hints) if in_body => {
                is_at_end = hints.is_some_and(|(is_at_end, ..)| is_at_end);
                continue;
            }
            Seen::Dropped(Part::DropOfFuture) => ended(late),
            Seen::Dropped(Part::DropOfBody) => ended(match foreseen {
                Some(code) => code,
                None if request.is_out_of_time => late,
                None if is_at_end => Code::Unknown,
                None => late,
            }),
            Seen::Panicked(
                part @ (Part::Call
                | Part::Future
                | Part::Body
                | Part::DropOfFuture
                | Part::DropOfBody),
                _,
            ) => End {
                panic: Some(*part),
                ..ended(Code::Internal)
            },
            _ => continue,
        };
    }
    panic!("it never ended: {seen:#?}");
}

pub(crate) fn code_in(headers: &HeaderMap) -> Option<Code> {
    let text = String::from_utf8_lossy(headers.get("grpc-status")?.as_bytes()).into_owned();
    let digits = text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    Some(Code::from_i32(number.unwrap_or(2)))
}

fn code_of(status: StatusCode) -> Option<Code> {
    Some(match status.as_u16() {
        200 => return None,
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    })
}
