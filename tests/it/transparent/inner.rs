//! The service that is called, which writes down what it gets.

use std::any::Any;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use tonic::{Code, Status};
use tower::Service;

use crate::transparent::failure::{BoxError, Failure};
use crate::transparent::played::{Beside, Later, Pieces, Played, panic_in_drop};
use crate::transparent::script::{Answer, ResponseHead};
use crate::transparent::seen::{Log, Polled, Seen, hints};

#[derive(Debug, Clone)]
pub(crate) struct Inner {
    pub(crate) answer: Arc<Answer>,
    pub(crate) later: Later,
    pub(crate) log: Log,
}

pub(crate) struct InnerFuture {
    inner: Inner,
    polls: usize,
    beside: Option<Beside>,
}

impl<B> Service<Request<B>> for Inner
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Any,
{
    type Response = Response<Played<Pieces>>;
    type Error = BoxError;
    type Future = InnerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> InnerFuture {
        let (parts, body) = request.into_parts();
        self.log.push(Seen::Request {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            headers: parts.headers,
            extension: parts.extensions.get::<&'static str>().copied(),
        });
        if self.answer.call_panics {
            resume_unwind(Box::new("the call panics"));
        }
        InnerFuture {
            inner: self.clone(),
            polls: 0,
            beside: Some(reader(body, self.answer.reads, self.log.clone())),
        }
    }
}

/// Reads so many frames at a time.
fn reader<B>(body: B, reads: usize, log: Log) -> Beside
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Any,
{
    let mut body = Box::pin(body);
    Box::new(move |cx| {
        for _ in 0..reads {
            log.push(hints(&*body));
            let frame = body.as_mut().poll_frame(cx);
            log.push(Seen::RequestFrame(Polled::frame(frame)));
        }
    })
}

impl Future for InnerFuture {
    type Output = Result<Response<Played<Pieces>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(beside) = &mut self.beside {
            beside(cx);
        }
        let polls = self.polls;
        self.polls += 1;
        let answer = Arc::clone(&self.inner.answer);
        if let Some(wake) = answer.pending.get(polls) {
            wake.wake(cx, &self.inner.later);
            return Poll::Pending;
        }
        if answer.future_panics {
            resume_unwind(Box::new("the future panics"));
        }
        if polls > answer.pending.len() {
            // It has been ready.
            return Poll::Pending;
        }
        Poll::Ready(match &answer.result {
            Err(failure) => Err(failure.error()),
            Ok(head) => {
                let beside = self.beside.take();
                let body = Played::new(&answer.body, &self.inner.later, beside, Pieces::new);
                Ok(response(head, body))
            }
        })
    }
}

impl Drop for InnerFuture {
    fn drop(&mut self) {
        panic_in_drop(self.inner.answer.drop_panics);
    }
}

fn response<B>(head: &ResponseHead, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap();
    *response.headers_mut() = head.headers.clone();
    response.extensions_mut().insert("of the response");
    if head.leaves_status {
        let mut status = Status::new(Code::Internal, "words");
        status.set_source(Failure::PanicsWhenPrinted.error().into());
        response.extensions_mut().insert(status);
    }
    response
}

impl Polled {
    pub(crate) fn frame<D: Buf, E: Any>(polled: Poll<Option<Result<Frame<D>, E>>>) -> Self {
        let frame = match polled {
            Poll::Pending => return Self::Pending,
            Poll::Ready(None) => return Self::End,
            Poll::Ready(Some(Err(error))) => return Self::Failed(Failure::of(&error)),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(mut data) => {
                let mut pieces = vec![];
                while data.has_remaining() {
                    let piece = data.chunk().to_vec();
                    data.advance(piece.len());
                    pieces.push(piece);
                }
                Self::Data(pieces)
            }
            Err(frame) => Self::Trailers(frame.into_trailers().unwrap_or_default()),
        }
    }
}
