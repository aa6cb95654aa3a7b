//! The least that a middleware can do: one tracing span, entered for each poll of a call
//! and of its response, and nothing said in it. What all others cost comes on top.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{Span, info_span};

#[derive(Debug, Clone)]
pub struct PlainSpanLayer;

impl<S> Layer<S> for PlainSpanLayer {
    type Service = PlainSpanService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PlainSpanService { inner }
    }
}

#[derive(Debug, Clone)]
pub struct PlainSpanService<S> {
    inner: S,
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for PlainSpanService<S>
where
    S: Service<Request<InPlainSpan<ReqB>>, Response = Response<ResB>>,
{
    type Response = Response<InPlainSpan<ResB>>;
    type Error = S::Error;
    type Future = InPlainSpan<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let span = info_span!("grpc");
        let request = request.map(|inner| InPlainSpan {
            inner,
            span: span.clone(),
        });
        let inner = span.in_scope(|| self.inner.call(request));
        InPlainSpan { inner, span }
    }
}

pin_project! {
    /// A future or a body.
    pub struct InPlainSpan<T> {
        #[pin]
        inner: T,
        span: Span,
    }
}

impl<F, B, E> Future for InPlainSpan<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<InPlainSpan<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = {
            let _entered = this.span.enter();
            ready!(this.inner.poll(context))
        };
        let span = this.span.clone();
        Poll::Ready(result.map(|response| response.map(|inner| InPlainSpan { inner, span })))
    }
}

impl<B: Body> Body for InPlainSpan<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let _entered = this.span.enter();
        this.inner.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
