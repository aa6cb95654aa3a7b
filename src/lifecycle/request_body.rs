//! The request body of a watched call.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::lifecycle::observer::Watch;
use crate::rpc::{MessageCounter, Outcome};

pin_project! {
    /// The body of a request that went through the middleware: as the one that
    /// came in, frame by frame.
    pub struct RequestBody<B, W> {
        #[pin]
        inner: B,
        // `Some` while the call is watched and the body has not ended.
        watched: Option<Watched<W>>,
    }
}

struct Watched<W> {
    watch: W,
    counter: MessageCounter,
}

impl<B, W> RequestBody<B, W> {
    pub(crate) fn new(inner: B, watch: Option<W>) -> Self {
        Self {
            inner,
            watched: watch.map(|watch| Watched {
                watch,
                counter: MessageCounter::new(),
            }),
        }
    }
}

impl<B, W> Body for RequestBody<B, W>
where
    B: Body,
    B::Error: Any,
    W: Watch,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let Some(watched) = this.watched else {
            return this.inner.poll_frame(cx);
        };
        let frame = {
            let _entered = watched.watch.enter();
            ready!(this.inner.poll_frame(cx))
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    watched.counter.see(data);
                    let progress = watched.watch.progress();
                    progress.set_messages(watched.counter.messages());
                }
            }
            Some(Err(error)) => {
                if let Some(cut) = Outcome::of_cut_request(error) {
                    watched.watch.progress().set_cut(cut);
                }
                *this.watched = None;
            }
            None => *this.watched = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: Default, W> Default for RequestBody<B, W> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B, W> fmt::Debug for RequestBody<B, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("watched", &self.watched.is_some())
            .finish_non_exhaustive()
    }
}
