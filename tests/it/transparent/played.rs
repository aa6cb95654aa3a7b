//! Bodies that do what a script says.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::transparent::failure::BoxError;
use crate::transparent::script::{AtEnd, BodyScript, Step, Wake};

/// Wakers that wait for the outside.
pub(crate) type Later = Arc<Mutex<Vec<Waker>>>;

/// Something else that is polled with a body.
pub(crate) type Beside = Box<dyn FnMut(&mut Context<'_>) + Send>;

pub(crate) struct Played<D> {
    steps: VecDeque<Step>,
    at_end: AtEnd,
    hint: SizeHint,
    drop_panics: bool,
    later: Later,
    beside: Option<Beside>,
    make: fn(Vec<Bytes>, bool) -> D,
}

impl<D> Played<D> {
    pub(crate) fn new(
        script: &BodyScript,
        later: &Later,
        beside: Option<Beside>,
        make: fn(Vec<Bytes>, bool) -> D,
    ) -> Self {
        let mut hint = SizeHint::new();
        hint.set_lower(script.hint.0);
        if let Some(upper) = script.hint.1 {
            hint.set_upper(upper);
        }
        Self {
            steps: script.steps.iter().cloned().collect(),
            at_end: script.at_end,
            hint,
            drop_panics: script.drop_panics,
            later: Arc::clone(later),
            beside,
            make,
        }
    }
}

impl<D: Buf> Body for Played<D> {
    type Data = D;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<D>, BoxError>>> {
        if let Some(beside) = &mut self.beside {
            beside(cx);
        }
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data { pieces, is_open }) => {
                Some(Ok(Frame::data((self.make)(pieces, is_open))))
            }
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail(failure)) => Some(Err(failure.error())),
            Some(Step::Panic) => resume_unwind(Box::new("the body panics")),
            Some(Step::Pending(wake)) => {
                wake.wake(cx, &self.later);
                return Poll::Pending;
            }
            Some(Step::End) | None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        match self.at_end {
            AtEnd::Never => false,
            AtEnd::WhenEmpty => self.steps.is_empty(),
            AtEnd::Always => true,
            AtEnd::Panics => resume_unwind(Box::new("the end panics")),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl<D> Drop for Played<D> {
    fn drop(&mut self) {
        panic_in_drop(self.drop_panics);
    }
}

/// Twice at once would end the process.
pub(crate) fn panic_in_drop(panics: bool) {
    if panics && !thread::panicking() {
        resume_unwind(Box::new("the drop panics"));
    }
}

impl Wake {
    pub(crate) fn wake(self, cx: &Context<'_>, later: &Later) {
        match self {
            Self::Now => cx.waker().wake_by_ref(),
            Self::Never => {}
            Self::Twice => {
                let another = cx.waker().clone();
                another.wake_by_ref();
                another.wake();
            }
            Self::Later => later.lock().unwrap().push(cx.waker().clone()),
        }
    }
}

/// Data in pieces.
#[derive(Debug)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    is_open: bool,
}

impl Pieces {
    pub(crate) fn new(pieces: Vec<Bytes>, is_open: bool) -> Self {
        Self {
            pieces: pieces.into(),
            is_open,
        }
    }
}

/// For who takes no other data.
#[expect(clippy::needless_pass_by_value, reason = "as whoever takes pieces")]
pub(crate) fn whole(pieces: Vec<Bytes>, _: bool) -> Bytes {
    pieces.concat().into()
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        let first = self.pieces.iter().find(|piece| !piece.is_empty());
        first.map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let taken = count.min(piece.len());
            piece.advance(taken);
            count -= taken;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        assert_eq!(count, 0);
    }

    fn chunks_vectored<'a>(&'a self, to: &mut [IoSlice<'a>]) -> usize {
        let shown = if self.is_open { usize::MAX } else { 1 };
        let pieces = self.pieces.iter().filter(|piece| !piece.is_empty());
        let both = to.iter_mut().zip(pieces.take(shown));
        both.map(|(to, piece)| *to = IoSlice::new(piece)).count()
    }
}
