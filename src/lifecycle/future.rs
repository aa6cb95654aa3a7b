//! The response future of a watched call.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response, header};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::lifecycle::body::ResponseBody;
use crate::lifecycle::guard::CallGuard;
use crate::lifecycle::observer::Observer;
use crate::rpc::{self, Outcome};

pin_project! {
    /// The future of a call through the middleware: as the inner service's,
    /// with its response body watched.
    pub struct ResponseFuture<F, O: Observer> {
        // `None` once dropped, ahead of the guard.
        #[pin]
        inner: Option<F>,
        // `Some` while the call is watched and has no response head.
        guard: Option<CallGuard<O>>,
        // The call panicked before there was a future.
        has_panicked: bool,
    }

    impl<F, O: Observer> PinnedDrop for ResponseFuture<F, O> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(guard) = this.guard {
                guard.drop_watched(|_| {
                    this.inner.set(None);
                    false
                });
            }
        }
    }
}

impl<F, O: Observer> ResponseFuture<F, O> {
    pub(crate) fn new(inner: F, guard: Option<CallGuard<O>>) -> Self {
        Self {
            inner: Some(inner),
            guard,
            has_panicked: false,
        }
    }

    /// For a call that panicked before it had a future, and is to be answered.
    pub(crate) fn panicked() -> Self {
        Self {
            inner: None,
            guard: None,
            has_panicked: true,
        }
    }
}

impl<F, O, B, E> Future for ResponseFuture<F, O>
where
    F: Future<Output = Result<Response<B>, E>>,
    O: Observer,
    B: Body,
    E: Any,
{
    type Output = Result<Response<ResponseBody<B, O>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return match std::mem::take(this.has_panicked) {
                true => Poll::Ready(Ok(answer_to_panic())),
                false => Poll::Pending,
            };
        };
        let result = match this.guard.as_mut() {
            Some(guard) => match guard.poll(|| inner.poll(cx)) {
                Ok(result) => ready!(result),
                Err(panic) => {
                    guard.end_panicked(panic, || this.inner.set(None));
                    return Poll::Ready(Ok(answer_to_panic()));
                }
            },
            None => ready!(inner.poll(cx)),
        };
        let mut guard = this.guard.take();
        Poll::Ready(match result {
            Ok(mut response) => {
                if let Some(guard) = guard.as_mut() {
                    guard.see_head(&response);
                    guard.strip(response.headers_mut());
                }
                let guard = guard.filter(|guard| !guard.is_over());
                Ok(response.map(|body| ResponseBody::new(body, guard)))
            }
            Err(mut error) => {
                if let Some(guard) = guard.as_mut() {
                    guard.end_with(Outcome::from_error(&error), rpc::cause_of(&error));
                    guard.strip_error(&mut error);
                }
                Err(error)
            }
        })
    }
}

/// A trailers-only response with INTERNAL.
fn answer_to_panic<B: Body, O: Observer>() -> Response<ResponseBody<B, O>> {
    let mut response = Response::new(ResponseBody::ended());
    *response.headers_mut() = rpc::internal_status();
    let content_type = HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

impl<F, O: Observer> fmt::Debug for ResponseFuture<F, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("watched", &self.guard.is_some())
            .finish_non_exhaustive()
    }
}
