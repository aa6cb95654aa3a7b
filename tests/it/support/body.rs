//! A response body that does what a test says.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

#[derive(Debug)]
pub(crate) enum Step<E> {
    Data(&'static [u8]),
    Trailers(HeaderMap),
    Fail(E),
    /// Pending once, and woken at once.
    Pending,
    Panic,
    /// Says that it is at its end, before it is polled to it.
    AtEnd,
}

/// Ends after its last step.
#[derive(Debug)]
pub(crate) struct ScriptedBody<E> {
    steps: VecDeque<Step<E>>,
    pub(crate) hint: SizeHint,
}

impl<E> ScriptedBody<E> {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step<E>>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            hint: SizeHint::default(),
        }
    }
}

impl<E> Default for ScriptedBody<E> {
    fn default() -> Self {
        Self::new([])
    }
}

impl<E: Unpin> Body for ScriptedBody<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(Bytes::from_static(data)))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail(error)) => Some(Err(error)),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Panic) => panic!("the body panics"),
            Some(Step::AtEnd) | None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.steps.front(), Some(Step::AtEnd))
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

pub(crate) fn headers(
    entries: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> HeaderMap {
    entries
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

pub(crate) fn grpc_status(code: i32) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", code.into());
    headers
}
