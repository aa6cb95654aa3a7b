//! The tracing span that the middleware keeps, as any tracing layer sees it.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tracing::dispatcher::with_default;
use tracing::info;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{RequestBody, SentryServerLayer};

use crate::support::body::{ScriptedBody, Step, grpc_status};
use crate::support::recorder::Recorder;

/// A request body of one message that traces when it is polled.
#[derive(Debug)]
struct Tracing(Option<Bytes>);

impl Body for Tracing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        info!(target: "body", "polled");
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }
}

fn request() -> Request<Tracing> {
    let message = Bytes::from_static(b"\0\0\0\0\x01a");
    Request::post("http://localhost:50051/helloworld.Greeter/SayHello")
        .header("content-type", "application/grpc")
        .body(Tracing(Some(message)))
        .unwrap()
}

fn recorded(f: impl FnOnce(&Recorder)) {
    let recorder = Recorder::default();
    let subscriber = registry().with(recorder.clone());
    with_default(&subscriber.into(), || f(&recorder));
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_span_is_entered_for_every_poll_and_once_at_the_end() {
    recorded(|recorder| {
        let service = service_fn(|_: Request<RequestBody<Tracing>>| {
            let body = ScriptedBody::<Infallible>::new([
                Step::Data(b"\0\0\0\0\0"),
                Step::Pending,
                Step::Trailers(grpc_status(2)),
            ]);
            ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let mut future = SentryServerLayer::new().layer(service).call(request());
        assert_eq!(recorder.take(), ["new grpc.server", "enter", "exit"]);

        let Poll::Ready(Ok(response)) = poll(&mut future) else {
            unreachable!()
        };
        assert_eq!(recorder.take(), ["enter", "exit"]);

        let mut body = response.into_body();
        let mut frame = || poll(&mut body.frame()).is_ready();
        assert_eq!([frame(), frame()], [true, false]);
        assert_eq!(recorder.take(), ["enter", "exit", "enter", "exit"]);

        assert!(frame());
        assert_eq!(
            recorder.take(),
            [
                "enter",
                "exit",
                "enter",
                "record rpc.grpc.status_code: 2",
                "record rpc.response.status_code: \"UNKNOWN\"",
                "record rpc.request.message_count: 0",
                "record rpc.response.message_count: 1",
                "record error.type: \"UNKNOWN\"",
                "record otel.status_code: \"ERROR\"",
                "exit",
                "close",
            ]
        );
        drop((body, future));
        assert_eq!(recorder.take(), [] as [&str; 0]);
    });
}

#[test]
fn a_dropped_call_ends_its_span_at_the_drop() {
    recorded(|recorder| {
        let service = service_fn(|_: Request<RequestBody<Tracing>>| {
            pending::<Result<Response<ScriptedBody<Infallible>>, Infallible>>()
        });
        let mut future = SentryServerLayer::new().layer(service).call(request());
        assert!(poll(&mut future).is_pending());
        recorder.take();
        drop(future);
        assert_eq!(
            recorder.take(),
            [
                "enter",
                "exit",
                "enter",
                "record rpc.grpc.status_code: 1",
                "record rpc.response.status_code: \"CANCELLED\"",
                "record rpc.request.message_count: 0",
                "record rpc.response.message_count: 0",
                "exit",
                "close",
            ]
        );
    });
}

#[test]
fn a_request_body_that_the_handler_polls_does_not_enter_the_span_again() {
    recorded(|recorder| {
        let service = service_fn(|request: Request<RequestBody<Tracing>>| async {
            request.into_body().collect().await?;
            let body = ScriptedBody::<Infallible>::new([Step::Trailers(grpc_status(0))]);
            Ok::<_, Infallible>(Response::new(body))
        });
        let mut future = Box::pin(SentryServerLayer::new().layer(service).call(request()));
        recorder.take();
        let response = poll(&mut future);
        let polled = "event of body in grpc.server";
        assert_eq!(recorder.take(), ["enter", polled, polled, "exit"]);
        drop(response);
    });
}

#[test]
fn a_request_body_is_polled_in_the_span_wherever_it_is() {
    recorded(|recorder| {
        let (send, receive) = std::sync::mpsc::channel();
        let service = service_fn(move |request: Request<RequestBody<Tracing>>| {
            send.send(request.into_body()).unwrap();
            let body = ScriptedBody::<Infallible>::new([Step::Trailers(grpc_status(0))]);
            ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let response = SentryServerLayer::new().layer(service).oneshot(request());
        let response = poll(&mut Box::pin(response));
        let mut body = receive.recv().unwrap();
        recorder.take();
        assert!(poll(&mut body.frame()).is_ready());
        let polled = ["enter", "event of body in grpc.server", "exit"];
        assert_eq!(recorder.take(), polled);

        drop(response);
        let lines = recorder.take();
        assert!(lines.contains(&"record rpc.request.message_count: 1".to_owned()));
        assert!(
            !lines.contains(&"close".to_owned()),
            "held by the request body"
        );
        // Its end is the end of its interest, however long it is kept.
        assert!(poll(&mut body.frame()).is_ready());
        let ended = ["enter", "event of body in grpc.server", "exit", "close"];
        assert_eq!(recorder.take(), ended);
        drop(body);
    });
}

#[test]
fn a_response_body_is_dropped_in_the_span() {
    #[derive(Debug)]
    struct Tells(ScriptedBody<Infallible>);
    impl Drop for Tells {
        fn drop(&mut self) {
            info!(target: "body", "dropped");
        }
    }
    impl Body for Tells {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
    recorded(|recorder| {
        let service = service_fn(|_: Request<RequestBody<Tracing>>| {
            let body = Tells(ScriptedBody::new([Step::Pending]));
            ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let response = SentryServerLayer::new().layer(service).oneshot(request());
        let response = poll(&mut Box::pin(response));
        recorder.take();
        drop(response);
        assert_eq!(
            recorder.take()[..3],
            ["enter", "event of body in grpc.server", "exit"]
        );
    });
}

#[test]
fn a_request_arrives_as_it_was_sent() {
    recorded(|_| {
        let (send, receive) = std::sync::mpsc::channel();
        let service = service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            send.send(request).unwrap();
            ready(Ok::<_, Infallible>(Response::new(
                ScriptedBody::<Infallible>::default(),
            )))
        });
        for (content_type, body) in [
            ("application/grpc", "abc"),
            ("application/grpc", ""),
            ("application/json", "abc"),
        ] {
            let sent = || {
                let mut request = Request::put("http://localhost:50051/a.B/C?d=e")
                    .version(Version::HTTP_2)
                    .header("content-type", content_type)
                    .header("x", "1")
                    .header("x", "2")
                    .body(Full::from(body))
                    .unwrap();
                request.extensions_mut().insert("extension");
                request
            };
            let response = SentryServerLayer::new()
                .layer(service.clone())
                .oneshot(sent());
            assert!(poll(&mut Box::pin(response)).is_ready());
            let (parts, mut received) = receive.recv().unwrap().into_parts();
            let (expected, body) = sent().into_parts();
            assert_eq!(parts.method, expected.method);
            assert_eq!(parts.uri, expected.uri);
            assert_eq!(parts.version, expected.version);
            assert_eq!(parts.headers, expected.headers);
            assert_eq!(parts.extensions.get::<&str>(), Some(&"extension"));
            assert_eq!(received.is_end_stream(), body.is_end_stream());
            assert_eq!(received.size_hint().exact(), body.size_hint().exact());
            assert!(poll(&mut received.frame()).is_ready());
            assert!(received.is_end_stream());
        }
    });
}

#[test]
fn a_future_polled_after_its_end_is_the_inner_one_and_ends_nothing_twice() {
    /// Ready as often as it is asked.
    struct Always;
    impl Future for Always {
        type Output = Result<Response<ScriptedBody<Infallible>>, Infallible>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            let mut response = Response::new(ScriptedBody::default());
            *response.headers_mut() = grpc_status(5);
            Poll::Ready(Ok(response))
        }
    }
    recorded(|recorder| {
        let service = service_fn(|_: Request<RequestBody<Tracing>>| Always);
        let mut future = SentryServerLayer::new().layer(service).call(request());
        assert!(poll(&mut future).is_ready());
        assert_eq!(recorder.take().last().map(String::as_str), Some("close"));
        assert!(poll(&mut future).is_ready());
        drop(future);
        assert_eq!(recorder.take(), [] as [&str; 0]);
    });
}
