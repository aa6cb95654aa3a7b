//! The response body of a watched call.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::lifecycle::guard::CallGuard;
use crate::lifecycle::observer::Observer;
use crate::rpc::{self, Outcome};

pin_project! {
    /// The body of a response that came through the middleware: as the inner
    /// service's, frame by frame.
    pub struct ResponseBody<B, O: Observer> where B: Body {
        // `None` once dropped, ahead of the guard.
        #[pin]
        inner: Option<B>,
        // `Some` while the call is watched and has not ended.
        guard: Option<CallGuard<O>>,
    }

    impl<B: Body, O: Observer> PinnedDrop for ResponseBody<B, O> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(guard) = this.guard {
                guard.drop_watched(|has_panicked| {
                    let inner = this.inner.as_ref().get_ref().as_ref();
                    // Only this crate asks here, so a panic of it must not get out.
                    let ask = || inner.is_some_and(B::is_end_stream);
                    let is_at_end = !has_panicked && rpc::contained(ask).unwrap_or(false);
                    this.inner.set(None);
                    is_at_end
                });
            }
        }
    }
}

impl<B: Body, O: Observer> ResponseBody<B, O> {
    /// A body that has ended.
    pub(crate) fn ended() -> Self {
        Self {
            inner: None,
            guard: None,
        }
    }

    pub(crate) fn new(inner: B, guard: Option<CallGuard<O>>) -> Self {
        Self {
            inner: Some(inner),
            guard,
        }
    }
}

impl<B, O> Body for ResponseBody<B, O>
where
    B: Body,
    B::Error: Any,
    O: Observer,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(guard) = this.guard else {
            return inner.poll_frame(cx);
        };
        let mut frame = match guard.poll(|| inner.poll_frame(cx)) {
            Ok(frame) => ready!(frame),
            Err(panic) => {
                guard.end_panicked(panic, || this.inner.set(None));
                return Poll::Ready(Some(Ok(Frame::trailers(rpc::internal_status()))));
            }
        };
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    guard.response_mut().see(data);
                } else if let Some(trailers) = frame.trailers_mut() {
                    guard.see_trailers(trailers);
                    guard.strip(trailers);
                }
            }
            Some(Err(error)) => guard.end_with(Outcome::from_error(error), rpc::cause_of(error)),
            None => guard.end_without_status(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B: Body + Default, O: Observer> Default for ResponseBody<B, O> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: Body, O: Observer> fmt::Debug for ResponseBody<B, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("watched", &self.guard.is_some())
            .finish_non_exhaustive()
    }
}
