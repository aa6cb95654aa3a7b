//! Tasks, calls among them, which do as they are told at each poll.

use std::collections::VecDeque;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use sentry::SentryFutureExt;
use serde_json::{Value, json};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument;

use crate::apply;
use crate::plan::{Call, Ending, Number, Order, Side, Spawned};
use crate::spans::Failure;
use crate::world::{World, lock};

type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answer = Result<Response<Played>, BoxError>;

/// A message of gRPC: not compressed, three bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";

/// What a task is to do.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<VecDeque<Order>>>);

impl Inbox {
    fn next(&self) -> Option<Order> {
        lock(&self.0).pop_front()
    }
}

pub(crate) struct Task {
    inbox: Inbox,
    future: BoxFuture<()>,
}

/// A body that does as it is told.
struct Played {
    world: Arc<World>,
    inbox: Inbox,
}

impl Body for Played {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while let Some(order) = self.inbox.next() {
            match order {
                Order::Do(ops) => apply::all(&self.world, &ops),
                Order::Message => {
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(MESSAGE)))));
                }
                Order::Trailers(ending) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(ended(&ending)))));
                }
                Order::Fail(number, text) => {
                    return Poll::Ready(Some(Err(Failure::new(number, text).into())));
                }
                Order::End => return Poll::Ready(None),
                Order::Read | Order::Head(_) | Order::Http(_) => {}
            }
        }
        Poll::Pending
    }
}

/// A request body of some messages.
struct Messages(usize);

impl Body for Messages {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(left) = self.0.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.0 = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(MESSAGE)))))
    }
}

/// A service that is a function.
struct Served<F>(F);

impl<F, T, R> Service<T> for Served<F>
where
    F: FnMut(T) -> BoxFuture<Result<R, BoxError>>,
{
    type Response = R;
    type Error = BoxError;
    type Future = BoxFuture<Result<R, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: T) -> Self::Future {
        self.0(request)
    }
}

fn ended(ending: &Ending) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", ending.code.into());
    if ending.code != 0 {
        let message = ending.text.of(ending.number).replace(' ', "%20");
        headers.extend(
            message
                .parse()
                .ok()
                .map(|message| (http::HeaderName::from_static("grpc-message"), message)),
        );
    }
    headers
}

/// Headers as they are shown.
pub(crate) fn shown(headers: &HeaderMap) -> Value {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect()
}

/// What handles a request, behind a layer.
async fn handle<B>(world: Arc<World>, number: Number, inbox: Inbox, request: Request<B>) -> Answer
where
    B: Body,
{
    world.saw(json!({"called": number, "headers": shown(request.headers())}));
    let mut body = Box::pin(request.into_body());
    poll_fn(|cx| {
        while let Some(order) = inbox.next() {
            let head = match order {
                Order::Do(ops) => {
                    apply::all(&world, &ops);
                    continue;
                }
                Order::Read => {
                    let _ = body.as_mut().poll_frame(cx);
                    continue;
                }
                Order::Fail(number, text) => {
                    return Poll::Ready(Err(Failure::new(number, text).into()));
                }
                Order::Head(None) => Response::builder(),
                Order::Head(Some(ending)) => {
                    let mut head = Response::builder();
                    head.headers_mut()
                        .into_iter()
                        .for_each(|headers| headers.extend(ended(&ending)));
                    head
                }
                Order::Http(code) => Response::builder().status(code),
                Order::Message | Order::Trailers(_) | Order::End => continue,
            };
            let body = Played {
                world: Arc::clone(&world),
                inbox: inbox.clone(),
            };
            return Poll::Ready(head.body(body).map_err(Into::into));
        }
        Poll::Pending
    })
    .await
}

/// Reads a response to its end.
async fn consume<B>(world: Arc<World>, number: Number, answer: Result<Response<B>, BoxError>)
where
    B: Body<Error = BoxError>,
{
    let response = match answer {
        Ok(response) => response,
        Err(error) => return world.saw(json!({"call": number, "error": error.to_string()})),
    };
    let (head, body) = response.into_parts();
    let head_shown = json!([head.status.as_u16(), shown(&head.headers)]);
    world.saw(json!({"call": number, "head": head_shown}));
    let mut body = Box::pin(body);
    let mut messages = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map(Frame::into_trailers) {
            Ok(Ok(trailers)) => world.saw(json!({"call": number, "trailers": shown(&trailers)})),
            Ok(Err(_)) => messages += 1,
            Err(error) => {
                world.saw(json!({"call": number, "failed": error.to_string()}));
                break;
            }
        }
    }
    drop(body);
    world.saw(json!({"call": number, "messages": messages}));
}

pub(crate) fn call(world: &Arc<World>, call: &Call) {
    let inbox = Inbox::default();
    let (own, number, orders) = (Arc::clone(world), call.task, inbox.clone());
    let server = move |request| {
        let handled = handle(Arc::clone(&own), number, orders.clone(), request);
        Box::pin(handled) as BoxFuture<Answer>
    };
    let (own, orders) = (Arc::clone(world), inbox.clone());
    let client = move |request: Request<tonic::body::Body>| {
        let handled = handle(Arc::clone(&own), number, orders.clone(), request);
        Box::pin(handled) as BoxFuture<Answer>
    };
    let future = match call.side {
        Side::Server => made(world, call, world.server.layer(Served(server))),
        Side::Client => made(world, call, world.client_layer.layer(Served(client))),
        Side::Through => {
            let (own, orders) = (Arc::clone(world), inbox.clone());
            let mut inner = world.server.layer(Served(move |request: Request<_>| {
                let handled = handle(Arc::clone(&own), number, orders.clone(), request);
                Box::pin(handled) as BoxFuture<Answer>
            }));
            let inner = move |request: Request<tonic::body::Body>| {
                Box::pin(inner.call(request)) as BoxFuture<_>
            };
            made(world, call, world.client_layer.layer(Served(inner)))
        }
    };
    world.tasks.put(call.task, Task { inbox, future });
}

fn made<S, B>(world: &Arc<World>, call: &Call, mut service: S) -> BoxFuture<()>
where
    S: Service<Request<Messages>, Response = Response<B>, Error = BoxError> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Error = BoxError> + Send + 'static,
    B::Data: Send,
{
    let (world, number) = (Arc::clone(world), call.task);
    let mut request = Request::post(format!("http://shop.example:50051{}", call.path));
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(Messages(call.messages)) else {
        return Box::pin(async {});
    };
    match call.is_eager {
        true => {
            let answer = service.call(request);
            Box::pin(async move { consume(world, number, answer.await).await })
        }
        false => Box::pin(async move {
            let answer = service.call(request).await;
            consume(world, number, answer).await;
        }),
    }
}

pub(crate) fn spawn(world: &Arc<World>, spawned: &Spawned) {
    let inbox = Inbox::default();
    let (own, orders) = (Arc::clone(world), inbox.clone());
    let task = poll_fn(move |_| {
        while let Some(order) = orders.next() {
            match order {
                Order::Do(ops) => apply::all(&own, &ops),
                Order::End => return Poll::Ready(()),
                _ => {}
            }
        }
        Poll::Pending
    });
    let span = spawned.span.and_then(|span| world.spans.get(span));
    let hub = spawned.hub.and_then(|hub| world.hubs.get(hub));
    let future: BoxFuture<()> = match (span, hub) {
        (None, None) => Box::pin(task),
        (Some(span), None) => Box::pin(task.instrument(span)),
        (None, Some(hub)) => Box::pin(task.bind_hub(hub)),
        (Some(span), Some(hub)) if spawned.is_hub_outside => {
            Box::pin(task.instrument(span).bind_hub(hub))
        }
        (Some(span), Some(hub)) => Box::pin(task.bind_hub(hub).instrument(span)),
    };
    world.tasks.put(spawned.task, Task { inbox, future });
}

pub(crate) fn poll(world: &Arc<World>, number: Number, orders: &[Order]) {
    // A task that polls itself is not there.
    let Some(mut task) = world.tasks.take(number) else {
        return;
    };
    lock(&task.inbox.0).extend(orders.iter().cloned());
    let mut cx = Context::from_waker(Waker::noop());
    match apply::caught(|| task.future.as_mut().poll(&mut cx)) {
        Ok(Poll::Pending) => world.tasks.put(number, task),
        Ok(Poll::Ready(())) => world.saw(json!({"ended": number})),
        Err(message) => world.saw(json!({"panicked": number, "message": message})),
    }
}
