//! Each way an RPC can end, exactly once: services and bodies that do what a
//! test says, polled and dropped as it says.

use std::error::Error;
use std::future::{pending, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use sentry::protocol::SpanStatus;
use tonic::transport::Endpoint;
use tonic::{Code, Status, TimeoutExpired};
use tower::{Layer, Service, ServiceExt, service_fn};

use sentry_tonic::{PanicPolicy, RequestBody, ResponseBody, SentryServerLayer};

use crate::support::body::{ScriptedBody, Step, grpc_status, headers};
use crate::support::received::{Received, Tx};
use crate::support::world::World;
use crate::transparent::STATUSES;

type BoxError = Box<dyn Error + Send + Sync>;
type Answer<E> = Result<Response<ScriptedBody<E>>, E>;

pub(crate) const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn request() -> Request<Empty<&'static [u8]>> {
    Request::builder()
        .uri("http://localhost:50051/helloworld.Greeter/SayHello")
        .header("content-type", "application/grpc")
        .body(Empty::new())
        .unwrap()
}

fn response<E>(steps: impl IntoIterator<Item = Step<E>>) -> Response<ScriptedBody<E>> {
    Response::new(ScriptedBody::new(steps))
}

fn with_head(head: HeaderMap) -> Response<ScriptedBody<BoxError>> {
    let mut response = response([]);
    *response.headers_mut() = head;
    response
}

/// Calls a service that gives `answer`.
async fn call<E: Send + Sync + Unpin + 'static>(
    request: Request<Empty<&'static [u8]>>,
    answer: Answer<E>,
) -> Result<Response<ResponseBody<ScriptedBody<E>>>, E> {
    let mut answer = Some(answer);
    let service = service_fn(move |_: Request<RequestBody<Empty<&'static [u8]>>>| {
        ready(answer.take().unwrap())
    });
    SentryServerLayer::new()
        .layer(service)
        .oneshot(request)
        .await
}

/// As hyper does: to the trailers, an error or an end that is announced.
async fn drive_like_hyper<B: Body + Unpin>(mut body: B) {
    while !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(frame)) if !frame.is_trailers() => {}
            _ => break,
        }
    }
}

/// What Sentry received of the one call: status, code and description.
#[track_caller]
fn ending(world: &World) -> (SpanStatus, String, Option<String>) {
    let received = world.received();
    let ending = ending_of(&received);
    let is_fault = matches!(ending.1.as_str(), "UNKNOWN" | "INTERNAL" | "DATA_LOSS");
    assert_eq!(received.events.len(), usize::from(is_fault), "{ending:?}");
    ending
}

#[track_caller]
fn ending_of(received: &Received) -> (SpanStatus, String, Option<String>) {
    let Tx { status, data, .. } = received.only_tx();
    let code = data["rpc.response.status_code"].as_str().unwrap();
    let number = data["rpc.grpc.status_code"].as_i64().unwrap();
    assert_eq!(NAMES[usize::try_from(number).unwrap()], code);
    let text = data.get("otel.status_description");
    let text = text.map(|text| text.as_str().unwrap().to_owned());
    (status, code.to_owned(), text)
}

fn unknown(text: &str) -> (SpanStatus, String, Option<String>) {
    let text = Some(text.to_owned());
    (SpanStatus::UnknownError, "UNKNOWN".to_owned(), text)
}

#[test]
fn all_codes_from_the_head() {
    for (code, status) in (0..).zip(STATUSES) {
        let world = World::new();
        world.run(async {
            // As tonic does with a trailers-only response, the body is never
            // polled.
            let answer = with_head(grpc_status(code));
            drop(call(request(), Ok(answer)).await.unwrap());
        });
        let name = NAMES[usize::try_from(code).unwrap()].to_owned();
        assert_eq!(ending(&world), (status, name, None));
    }
}

#[test]
fn all_codes_from_trailers() {
    for (code, status) in (0..).zip(STATUSES) {
        let world = World::new();
        world.run(async {
            let answer = response::<BoxError>([
                Step::Data(b"\0\0\0\0\x01x"),
                Step::Pending,
                Step::Trailers(grpc_status(code)),
            ]);
            let response = call(request(), Ok(answer)).await.unwrap();
            drive_like_hyper(response.into_body()).await;
        });
        let name = NAMES[usize::try_from(code).unwrap()].to_owned();
        assert_eq!(ending(&world), (status, name, None));
    }
}

/// As grpc-js answers.
#[test]
fn a_message_with_ok_describes_nothing() {
    for in_head in [true, false] {
        let world = World::new();
        world.run(async {
            let status = headers([("grpc-status", "0"), ("grpc-message", "OK")]);
            let answer = if in_head {
                with_head(status)
            } else {
                response([Step::Trailers(status)])
            };
            let response = call(request(), Ok(answer)).await.unwrap();
            drive_like_hyper(response.into_body()).await;
        });
        assert_eq!(ending(&world), (SpanStatus::Ok, "OK".to_owned(), None));
    }
}

#[test]
fn unknown_codes_are_unknown() {
    for (value, text) in [
        ("17", "unknown grpc-status \"17\""),
        ("-1", "unknown grpc-status \"-1\""),
        ("one", "unknown grpc-status \"one\""),
        ("", "unknown grpc-status \"\""),
    ] {
        for in_head in [true, false] {
            let world = World::new();
            world.run(async {
                let status = headers([("grpc-status", value)]);
                let answer = if in_head {
                    with_head(status)
                } else {
                    response([Step::Trailers(status)])
                };
                let response = call(request(), Ok(answer)).await.unwrap();
                drive_like_hyper(response.into_body()).await;
            });
            assert_eq!(ending(&world), unknown(text));
        }
    }
}

#[test]
fn malformed_messages_and_details_are_harmless() {
    let world = World::new();
    let status: HeaderMap = [
        ("grpc-status", &b"5"[..]),
        ("grpc-message", b"no%zz %F0%9F%A6%80 \xff"),
        ("grpc-status-details-bin", b"!!! not base64 \xff"),
    ]
    .into_iter()
    .map(|(name, value)| {
        (
            name.parse().unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        )
    })
    .collect();
    let seen = world.run(async {
        let response = call(request(), Ok(with_head(status.clone())))
            .await
            .unwrap();
        response.headers().clone()
    });
    assert_eq!(seen, status);
    assert_eq!(
        ending(&world),
        (
            SpanStatus::NotFound,
            "NOT_FOUND".to_owned(),
            Some("no%zz 🦀 \u{fffd}".to_owned())
        )
    );
}

#[test]
fn an_end_without_trailers_is_unknown() {
    let text = "the response ended without grpc-status";
    // Polled to its end, dropped at an announced end, and trailers that say
    // nothing.
    for steps in [
        vec![Step::Data(b"\0\0\0\0\0")],
        vec![Step::Data(b"\0\0\0\0\0"), Step::AtEnd],
        vec![Step::AtEnd],
        vec![],
        vec![Step::Trailers(headers([("x", "y")]))],
    ] {
        let world = World::new();
        world.run(async {
            let answer = response::<BoxError>(steps);
            let response = call(request(), Ok(answer)).await.unwrap();
            drive_like_hyper(response.into_body()).await;
        });
        assert_eq!(ending(&world), unknown(text));
    }
}

#[test]
fn body_errors_are_classified() {
    let world = World::new();
    world.run(async {
        let answer = response([Step::Fail(Status::data_loss("torn"))]);
        let response = call(request(), Ok(answer)).await.unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert_eq!(error.message(), "torn");
    });
    let torn = Some("torn".to_owned());
    let data_loss = (SpanStatus::DataLoss, "DATA_LOSS".to_owned(), torn);
    assert_eq!(ending(&world), data_loss);
}

#[cfg(feature = "transport")]
#[test]
fn service_errors_are_classified_and_handed_on() {
    fn fails<E: Send + Sync + Unpin + 'static>(error: E) -> (E, (SpanStatus, String)) {
        let world = World::new();
        let error = world.run(async { call(request(), Err(error)).await.unwrap_err() });
        let (status, code, _) = ending(&world);
        (error, (status, code))
    }
    let (error, ended) = fails(Status::not_found("gone"));
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(ended, (SpanStatus::NotFound, "NOT_FOUND".to_owned()));

    let (error, ended) = fails(BoxError::from(TimeoutExpired(())));
    assert!(error.is::<TimeoutExpired>());
    let deadline = "DEADLINE_EXCEEDED".to_owned();
    assert_eq!(ended, (SpanStatus::DeadlineExceeded, deadline));

    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    let (_, ended) = fails(BoxError::from(refused));
    assert_eq!(ended, (SpanStatus::Unavailable, "UNAVAILABLE".to_owned()));

    // Nothing listens on port 1 of loopback.
    let refused = World::new().run(async {
        let endpoint = Endpoint::from_static("http://127.0.0.1:1");
        endpoint.connect().await.unwrap_err()
    });
    let (_, ended) = fails(refused);
    assert_eq!(ended, (SpanStatus::Unavailable, "UNAVAILABLE".to_owned()));

    // An error of any type: tower asks for none.
    struct Opaque;
    let (_, ended) = fails(Opaque);
    assert_eq!(ended, (SpanStatus::UnknownError, "UNKNOWN".to_owned()));
}

#[test]
fn http_errors_map_as_grpc_says() {
    for (http, status) in [
        (400, SpanStatus::InternalError),
        (401, SpanStatus::Unauthenticated),
        (403, SpanStatus::PermissionDenied),
        (404, SpanStatus::Unimplemented),
        (429, SpanStatus::Unavailable),
        (502, SpanStatus::Unavailable),
        (503, SpanStatus::Unavailable),
        (504, SpanStatus::Unavailable),
        (500, SpanStatus::UnknownError),
        (302, SpanStatus::UnknownError),
    ] {
        let world = World::new();
        world.run(async {
            let mut answer = response::<BoxError>([Step::Data(b"oops")]);
            *answer.status_mut() = http.try_into().unwrap();
            drop(call(request(), Ok(answer)).await.unwrap());
        });
        let (ended, _, text) = ending(&world);
        assert_eq!((ended, text), (status, Some(format!("HTTP status {http}"))));

        let world = World::new();
        world.run(async {
            let mut answer = response::<BoxError>([Step::Data(b"oops")]);
            *answer.status_mut() = http.try_into().unwrap();
            let response = call(request(), Ok(answer)).await.unwrap();
            response.into_body().collect().await.unwrap();
        });
        assert_eq!(ending(&world).0, status, "read to its end");

        let world = World::new();
        world.run(async {
            let trailers = Step::Trailers(grpc_status(5));
            let mut answer = response::<BoxError>([Step::Data(b"oops"), trailers]);
            *answer.status_mut() = http.try_into().unwrap();
            let response = call(request(), Ok(answer)).await.unwrap();
            response.into_body().collect().await.unwrap();
        });
        assert_eq!(ending(&world).0, SpanStatus::NotFound, "grpc-status wins");

        let world = World::new();
        world.run(async {
            let mut answer = with_head(grpc_status(5));
            *answer.status_mut() = http.try_into().unwrap();
            drop(call(request(), Ok(answer)).await.unwrap());
        });
        assert_eq!(ending(&world).0, SpanStatus::NotFound, "grpc-status wins");
    }
}

/// Polls a call of a service that never answers once, and drops it.
fn abandon(layer: &SentryServerLayer, request: Request<Empty<&'static [u8]>>, wait: Duration) {
    let service =
        service_fn(|_: Request<RequestBody<Empty<&'static [u8]>>>| pending::<Answer<BoxError>>());
    let mut service = layer.layer(service);
    let mut future = Box::pin(service.call(request));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_pending());
    let deadline = std::time::Instant::now() + wait;
    while std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    drop(future);
}

fn with_timeout(value: &'static str) -> Request<Empty<&'static [u8]>> {
    let mut request = request();
    let value = HeaderValue::from_static(value);
    request.headers_mut().insert("grpc-timeout", value);
    request
}

const NOW: Duration = Duration::ZERO;

#[test]
fn a_dropped_future_is_cancelled_or_out_of_time() {
    let plain = SentryServerLayer::new();
    let brief = SentryServerLayer::new().assume_server_timeout(Duration::from_nanos(1));
    let ample = SentryServerLayer::new().assume_server_timeout(Duration::from_secs(3600));
    let cancelled = SpanStatus::Cancelled;
    let late = SpanStatus::DeadlineExceeded;
    for (layer, request, wait, status) in [
        (&plain, request(), NOW, cancelled),
        (&plain, with_timeout("1n"), NOW, late),
        (&plain, with_timeout("20m"), Duration::from_millis(20), late),
        (&plain, with_timeout("1H"), NOW, cancelled),
        (&plain, with_timeout("1 week"), NOW, cancelled),
        (
            &plain,
            with_timeout("99999999999999999999n"),
            NOW,
            cancelled,
        ),
        (&brief, request(), NOW, late),
        (&brief, with_timeout("1H"), NOW, late),
        (&ample, with_timeout("1n"), NOW, late),
        (&ample, request(), NOW, cancelled),
    ] {
        let world = World::new();
        world.sync(|| abandon(layer, request, wait));
        assert_eq!(ending(&world).0, status);
    }
}

#[test]
fn a_dropped_body_is_cancelled_or_out_of_time() {
    for (timeout, option, status) in [
        (None, None, SpanStatus::Cancelled),
        (Some("1n"), None, SpanStatus::DeadlineExceeded),
        // tonic's server timeout does not reach into the body.
        (None, Some(Duration::from_nanos(1)), SpanStatus::Cancelled),
    ] {
        for polls in [0, 1] {
            let world = World::new();
            world.run(async {
                let request = timeout.map_or_else(request, with_timeout);
                let answer = response::<BoxError>([
                    Step::Data(b"\0\0\0\0\0"),
                    Step::Trailers(grpc_status(0)),
                ]);
                let mut answer = Some(Ok::<_, BoxError>(answer));
                let service =
                    service_fn(move |_: Request<RequestBody<_>>| ready(answer.take().unwrap()));
                let layer = SentryServerLayer::new();
                let layer = match option {
                    Some(option) => layer.assume_server_timeout(option),
                    None => layer,
                };
                let response = layer.layer(service).oneshot(request).await.unwrap();
                let mut body = response.into_body();
                for _ in 0..polls {
                    body.frame().await.unwrap().unwrap();
                }
            });
            assert_eq!(ending(&world).0, status);
        }
    }
}

#[test]
fn a_panic_is_internal_wherever_it_happens() {
    type Panicking<'a> = &'a dyn Fn(SentryServerLayer);
    let in_call: Panicking<'_> = &|layer| {
        let service = service_fn(|_: Request<RequestBody<Empty<&'static [u8]>>>| {
            assert!(std::env::args().len() == 0, "the service panics");
            ready(Ok::<_, BoxError>(response::<BoxError>([])))
        });
        drop(layer.layer(service).call(request()));
    };
    let in_future: Panicking<'_> = &|layer| {
        let service = service_fn(|_: Request<RequestBody<Empty<&'static [u8]>>>| async {
            assert!(std::env::args().len() == 0, "the future panics");
            Ok::<_, BoxError>(response::<BoxError>([]))
        });
        let mut future = pin!(layer.layer(service).call(request()));
        let _ = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
    };
    let in_body: Panicking<'_> = &|layer| {
        let mut answer = Some(response::<BoxError>([Step::Panic]));
        let service = service_fn(move |_: Request<RequestBody<_>>| {
            ready(Ok::<_, BoxError>(answer.take().unwrap()))
        });
        let cx = &mut Context::from_waker(Waker::noop());
        let future = layer.layer(service).oneshot(request());
        let mut future = pin!(future);
        let std::task::Poll::Ready(Ok(response)) = future.as_mut().poll(cx) else {
            unreachable!()
        };
        let _ = pin!(response.into_body()).poll_frame(cx);
    };
    for panic_policy in [
        PanicPolicy::ReturnInternal,
        PanicPolicy::ResumeUnwind,
        PanicPolicy::Ignore,
    ] {
        for panicking in [in_call, in_future, in_body] {
            let world = World::new();
            let layer = SentryServerLayer::new().panic_policy(panic_policy);
            let call = || catch_unwind(AssertUnwindSafe(|| panicking(layer)));
            assert_eq!(
                world.sync(call).is_err(),
                panic_policy != PanicPolicy::ReturnInternal
            );
            let text = Some("panicked".to_owned());
            let internal = (SpanStatus::InternalError, "INTERNAL".to_owned(), text);
            let received = world.received();
            assert_eq!(ending_of(&received), internal);
            let is_told = panic_policy != PanicPolicy::Ignore;
            assert_eq!(received.events.len(), usize::from(is_told));
        }
    }
}

#[test]
fn a_panic_that_somebody_caught_is_internal_too() {
    let world = World::new();
    world.sync(|| {
        let mut answer = Some(response::<BoxError>([Step::Panic]));
        let service = service_fn(move |_: Request<RequestBody<_>>| {
            ready(Ok::<_, BoxError>(answer.take().unwrap()))
        });
        let cx = &mut Context::from_waker(Waker::noop());
        let layer = SentryServerLayer::new().panic_policy(PanicPolicy::Ignore);
        let mut future = Box::pin(layer.layer(service).oneshot(request()));
        let std::task::Poll::Ready(Ok(response)) = future.as_mut().poll(cx) else {
            unreachable!()
        };
        let mut body = Box::pin(response.into_body());
        catch_unwind(AssertUnwindSafe(|| {
            let _ = body.as_mut().poll_frame(cx);
        }))
        .unwrap_err();
        assert!(!std::thread::panicking());
        drop(body);
    });
    assert_eq!(ending_of(&world.received()).0, SpanStatus::InternalError);
}

#[test]
fn an_rpc_ends_once_whatever_follows() {
    let world = World::new();
    world.run(async {
        let answer = response::<BoxError>([
            Step::Data(b"\0\0\0\0\0"),
            Step::Trailers(grpc_status(5)),
            Step::Data(b"more"),
            Step::Trailers(grpc_status(13)),
            Step::Fail("late".into()),
        ]);
        let response = call(request(), Ok(answer)).await.unwrap();
        let mut body = response.into_body();
        let mut seen = Vec::new();
        for _ in 0..7 {
            seen.push(match body.frame().await {
                Some(Ok(frame)) if frame.is_data() => "data",
                Some(Ok(_)) => "trailers",
                Some(Err(_)) => "error",
                None => "end",
            });
            if seen.len() == 2 {
                assert_eq!(ending(&world).0, SpanStatus::NotFound);
            }
        }
        assert_eq!(
            seen,
            [
                "data", "trailers", "data", "trailers", "error", "end", "end"
            ]
        );
    });
    assert_eq!(world.received().statuses(), []);
}

#[test]
fn a_head_with_a_status_ends_the_rpc_and_the_body_goes_on() {
    let world = World::new();
    world.run(async {
        let mut answer = with_head(grpc_status(0));
        *answer.body_mut() =
            ScriptedBody::new([Step::Data(b"\0\0\0\0\0"), Step::Trailers(grpc_status(13))]);
        let response = call(request(), Ok(answer)).await.unwrap();
        assert_eq!(ending(&world).0, SpanStatus::Ok);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers(), Some(&grpc_status(13)));
    });
    assert_eq!(world.received().statuses(), []);
}

#[test]
fn size_hint_and_end_of_stream_are_those_of_the_body() {
    let world = World::new();
    world.run(async {
        let mut body = ScriptedBody::<BoxError>::new([Step::Data(b"abc"), Step::AtEnd]);
        body.hint = http_body::SizeHint::with_exact(3);
        let response = call(request(), Ok(Response::new(body))).await.unwrap();
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        body.frame().await.unwrap().unwrap();
        assert!(body.is_end_stream());
    });
    let default = ResponseBody::<ScriptedBody<BoxError>>::default();
    assert!(!default.is_end_stream());
    assert_eq!(default.size_hint().exact(), None);
}

#[test]
fn errors_stay_what_they_were() {
    let world = World::new();
    world.run(async {
        let answer = response([Step::Fail(BoxError::from("my own words"))]);
        let response = call(request(), Ok(answer)).await.unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert_eq!(error.to_string(), "my own words");
    });
    assert_eq!(ending(&world), unknown("my own words"));
}

/// At its end as soon as it is polled, however that goes.
struct AtEndOncePolled {
    panics: bool,
    is_polled: bool,
}

impl Body for AtEndOncePolled {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, BoxError>>> {
        self.is_polled = true;
        assert!(!self.panics, "the body panics");
        std::task::Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        assert!(!(self.panics && self.is_polled), "asked after its panic");
        self.is_polled
    }
}

#[test]
fn a_panic_and_a_deadline_outrank_an_announced_end() {
    for (panics, timeout, status) in [
        (true, None, SpanStatus::InternalError),
        (true, Some("1n"), SpanStatus::InternalError),
        (false, Some("1n"), SpanStatus::DeadlineExceeded),
        (false, None, SpanStatus::UnknownError),
    ] {
        let world = World::new();
        world.run(async {
            let service = service_fn(move |_: Request<RequestBody<_>>| {
                let is_polled = false;
                let body = AtEndOncePolled { panics, is_polled };
                ready(Ok::<_, BoxError>(Response::new(body)))
            });
            let request = timeout.map_or_else(request, with_timeout);
            let layer = SentryServerLayer::new().panic_policy(PanicPolicy::Ignore);
            let response = layer.layer(service).oneshot(request).await.unwrap();
            let mut body = Box::pin(response.into_body());
            let poll = || {
                drop(
                    body.as_mut()
                        .poll_frame(&mut Context::from_waker(Waker::noop())),
                )
            };
            assert_eq!(catch_unwind(AssertUnwindSafe(poll)).is_err(), panics);
        });
        assert_eq!(ending_of(&world.received()).0, status);
    }
}

/// A request whose body fails, and what its handler makes of it.
fn cut(error: fn() -> Status, answer: fn(Status) -> Status) -> (SpanStatus, usize) {
    let world = World::new();
    world.run(async {
        let service = service_fn(
            |request: Request<RequestBody<ScriptedBody<Status>>>| async {
                let mut body = pin!(request.into_body());
                let status = answer(body.frame().await.unwrap().unwrap_err());
                let mut response = response::<BoxError>([]);
                *response.headers_mut() = grpc_status(status.code() as i32);
                let message = status.message().parse().unwrap();
                response.headers_mut().insert("grpc-message", message);
                Ok::<_, BoxError>(response)
            },
        );
        let request = request().map(|_| ScriptedBody::new([Step::Fail(error())]));
        let call = SentryServerLayer::new().layer(service).oneshot(request);
        drop(call.await.unwrap());
    });
    let received = world.received();
    (received.only_tx().status, received.events.len())
}

#[test]
fn what_cuts_a_request_off_is_a_cancellation_and_what_fails_it_is_not() {
    fn broken() -> Status {
        let mut status = Status::unknown("error reading a body from connection");
        let source = io::Error::from(io::ErrorKind::ConnectionReset);
        status.set_source(std::sync::Arc::new(source));
        status
    }
    fn failed() -> Status {
        Status::internal("the key server is down")
    }
    let cancelled = (SpanStatus::Cancelled, 0);
    assert_eq!(cut(broken, |status| status), cancelled);
    // So tonic calls what a request lacks that was cut off.
    for missing in [
        (|_| Status::internal("Missing request message.")) as fn(Status) -> Status,
        |_| Status::internal("Unexpected EOF decoding stream."),
    ] {
        assert_eq!(cut(broken, missing), cancelled);
        assert_eq!(cut(failed, missing), (SpanStatus::InternalError, 1));
    }
    // Whatever else a handler answers is its own word.
    let data_loss = cut(broken, |_| Status::data_loss("torn"));
    assert_eq!(data_loss, (SpanStatus::DataLoss, 1));
    assert_eq!(cut(failed, |status| status), (SpanStatus::InternalError, 1));
}

#[test]
fn a_message_of_a_mebibyte_is_cut() {
    let world = World::new();
    world.run(async {
        let mut head = grpc_status(13);
        let message = "%C3%A9".repeat(1 << 19);
        head.insert("grpc-message", message.parse().unwrap());
        drop(call(request(), Ok(with_head(head))).await.unwrap());
    });
    let cut = "é".repeat(512);
    let received = world.received();
    assert_eq!(ending_of(&received).2.as_ref(), Some(&cut));
    let exception = &received.only_event().exception[0];
    assert_eq!(exception.value.as_ref(), Some(&cut));
}
