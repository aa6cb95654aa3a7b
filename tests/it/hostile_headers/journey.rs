//! A call of a server, whose handler makes a call itself.

use std::convert::Infallible;
use std::future::{Future, Ready, pending, ready};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::Body;
use http_body_util::combinators::WithTrailers;
use http_body_util::{BodyExt, Empty};
use sentry_tonic::{
    SentryClientLayer, SentryServerLayer, SentrySpanExt, TraceHeaders, TracePropagationInterceptor,
};
use tonic::service::Interceptor;
use tower::{Layer, Service, service_fn};
use tracing::Span;

use crate::hostile_headers::input::Input;
use crate::transparent::World;

type Trailers = Ready<Option<Result<HeaderMap, Infallible>>>;
type Answer = Response<WithTrailers<Empty<Bytes>, Trailers>>;

/// What was seen on the way.
#[derive(Debug, Default)]
pub(crate) struct Journey {
    /// By the handler.
    pub(crate) received: HeaderMap,
    /// Of the handler's span.
    pub(crate) of_span: Option<TraceHeaders>,
    /// By the service that the handler calls.
    pub(crate) sent: HeaderMap,
    /// By an interceptor.
    pub(crate) intercepted: HeaderMap,
    /// By the handler, and by the caller of it.
    pub(crate) answers: [HeaderMap; 2],
}

/// Goes all the way.
pub(crate) fn travel(world: &World, input: &Input) -> Journey {
    let seen = Arc::new(Mutex::new(Journey::default()));
    let handler = |request: Request<_>| {
        seen.lock().unwrap().received = request.headers().clone();
        let seen = Arc::clone(&seen);
        async move {
            let called = call_on(input);
            let mut seen = seen.lock().unwrap();
            *seen = Journey {
                received: std::mem::take(&mut seen.received),
                ..called
            };
            Ok::<_, Infallible>(answer(input))
        }
    };
    let mut server = SentryServerLayer::new().layer(service_fn(handler));
    let request = request(&input.uri, &input.request, Empty::<Bytes>::new());
    let answer = world.within(|| read(server.call(request)));
    drop(server);
    let mut journey = Arc::into_inner(seen).unwrap().into_inner().unwrap();
    journey.answers[1] = answer;
    journey
}

/// The caller hangs up.
pub(crate) fn hang_up(world: &World, input: &Input) {
    let handler = |_: Request<_>| pending::<Result<Answer, Infallible>>();
    let mut server = SentryServerLayer::new().layer(service_fn(handler));
    let request = request(&input.uri, &input.request, Empty::<Bytes>::new());
    world.within(|| drop(server.call(request)));
}

/// What the handler does.
fn call_on(input: &Input) -> Journey {
    let of_span = Span::current().trace_headers();
    let mut intercepted = tonic::Request::new(());
    *intercepted.metadata_mut().as_mut() = input.own.clone();
    let mut interceptor = TracePropagationInterceptor::new().propagate_traceparent(true);
    let mut intercepted = interceptor.call(intercepted).unwrap();
    let sent = Mutex::new(HeaderMap::new());
    let upstream = |request: Request<tonic::body::Body>| {
        *sent.lock().unwrap() = request.headers().clone();
        ready(Ok::<_, Infallible>(answer(input)))
    };
    let mut client = SentryClientLayer::new()
        .propagate_traceparent(true)
        .layer(service_fn(upstream));
    let uri = Uri::from_static("http://localhost:50052/helloworld.Greeter/SayHelloStream");
    let answer = read(client.call(request(&uri, &input.own, tonic::body::Body::empty())));
    drop(client);
    Journey {
        of_span,
        sent: sent.into_inner().unwrap(),
        intercepted: std::mem::take(intercepted.metadata_mut().as_mut()),
        answers: [answer, HeaderMap::new()],
        ..Journey::default()
    }
}

fn request<B>(uri: &Uri, headers: &HeaderMap, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers.clone();
    request
}

fn answer(input: &Input) -> Answer {
    let (head, trailers) = match input.in_trailers {
        true => (HeaderMap::new(), Some(Ok(input.answer.clone()))),
        false => (input.answer.clone(), None),
    };
    let mut response = Response::new(Empty::new().with_trailers(ready(trailers)));
    *response.headers_mut() = head;
    response
}

/// Head and trailers, one of which is empty.
fn read<B: Body<Error = Infallible>>(
    call: impl Future<Output = Result<Response<B>, Infallible>>,
) -> HeaderMap {
    let Ok(response) = at_once(call);
    let (parts, body) = response.into_parts();
    let Ok(read) = at_once(body.collect());
    let mut headers = parts.headers;
    headers.extend(read.trailers().cloned().unwrap_or_default());
    headers
}

/// Nothing here has to wait.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}
