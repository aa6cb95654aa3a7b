//! What services may hand to the middleware that harms whoever looks at it: found by
//! calls of made-up bytes.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::ready;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::Empty;
use sentry::protocol::SpanStatus;
use tower::{Layer, ServiceExt, service_fn};

use sentry_tonic::{RequestBody, SentryClientLayer, SentryServerLayer};

use crate::support::body::ScriptedBody;
use crate::support::world::World;

type BoxError = Box<dyn Error + Send + Sync>;

fn request() -> Request<Empty<Bytes>> {
    Request::post("http://localhost:50051/helloworld.Greeter/SayHello")
        .header("content-type", "application/grpc")
        .body(Empty::new())
        .unwrap()
}

#[derive(Debug)]
struct Odd {
    print: fn(&mut fmt::Formatter<'_>) -> fmt::Result,
    source: fn() -> Option<&'static (dyn Error + 'static)>,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.print)(f)
    }
}

impl Error for Odd {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        (self.source)()
    }
}

#[test]
fn an_error_goes_through_whatever_comes_of_looking_at_it() {
    let plain = Odd {
        print: |f| f.write_str("words"),
        source: || None,
    };
    let on_and_on = "on and ".repeat(147);
    let world = World::new();
    for (odd, message) in [
        (
            Odd {
                print: |f| {
                    f.write_str("half a ")?;
                    resume_unwind(Box::new("no more"))
                },
                ..plain
            },
            Some("half a "),
        ),
        (
            Odd {
                print: |_| Err(fmt::Error),
                ..plain
            },
            None,
        ),
        (
            Odd {
                source: || resume_unwind(Box::new("no source")),
                ..plain
            },
            Some("words"),
        ),
        (
            Odd {
                print: |f| {
                    loop {
                        f.write_str("on and ")?;
                    }
                },
                ..plain
            },
            Some(&on_and_on[..1_024]),
        ),
    ] {
        let mut answer = Some(BoxError::from(odd));
        let service = service_fn(move |_: Request<RequestBody<Empty<Bytes>>>| {
            ready(Err::<Response<ScriptedBody<BoxError>>, _>(
                answer.take().unwrap(),
            ))
        });
        let call = SentryServerLayer::new().layer(service).oneshot(request());
        let error = world.run(call).unwrap_err();
        assert!(error.is::<Odd>());
        let received = world.received();
        let tx = received.only_tx();
        assert_eq!(tx.status, SpanStatus::UnknownError);
        let told = tx.data.get("otel.status_description");
        assert_eq!(told.and_then(|told| told.as_str()), message);
        // The error and the status that it makes.
        assert_eq!(received.only_event().exception.values.len(), 2);
    }
}

#[test]
fn a_body_is_dropped_whatever_it_thinks_of_its_end() {
    struct Unsure;
    impl Body for Unsure {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }

        fn is_end_stream(&self) -> bool {
            resume_unwind(Box::new("who knows"))
        }
    }
    let world = World::new();
    let service = service_fn(|_: Request<RequestBody<Empty<Bytes>>>| {
        ready(Ok::<_, Infallible>(Response::new(Unsure)))
    });
    let call = SentryServerLayer::new().layer(service).oneshot(request());
    world.run(async { drop(call.await) });
    assert_eq!(world.received().only_tx().status, SpanStatus::Cancelled);
}

#[test]
fn a_request_with_as_many_headers_as_there_can_be_is_made() {
    let mut full = HeaderMap::new();
    for n in 0.. {
        let name = HeaderName::try_from(format!("x-{n}")).unwrap();
        if full.try_insert(name, HeaderValue::from_static("")).is_err() {
            break;
        }
    }
    let len = full.keys_len();
    let others =
        [&b"\xff"[..], b"a=b,sentry-x=1"].map(|value| HeaderValue::from_bytes(value).unwrap());
    // Without a place for any of our own, with one, and with another that is taken.
    for (room, has_baggage) in [(0, false), (1, false), (1, true), (2, true)] {
        let world = World::new();
        let mut request = request();
        *request.headers_mut() = full.clone();
        for n in 0..=room + usize::from(has_baggage) {
            request.headers_mut().remove(format!("x-{n}"));
        }
        request
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        for value in others.iter().filter(|_| has_baggage) {
            request.headers_mut().append("baggage", value.clone());
        }
        let service = service_fn(move |request: Request<tonic::body::Body>| {
            let has = |name| request.headers().contains_key(name);
            assert_eq!(has("sentry-trace"), room > 0);
            let baggage: Vec<_> = request.headers().get_all("baggage").iter().collect();
            match has_baggage {
                true => {
                    assert_eq!(baggage.len(), 1);
                    assert!(baggage[0].as_bytes().starts_with(b"a=b,sentry-trace_id="));
                }
                false => assert_eq!(baggage, [] as [&str; 0]),
            }
            assert!(request.headers().keys_len() <= len);
            ready(Ok::<_, Infallible>(Response::new(
                ScriptedBody::<Infallible>::default(),
            )))
        });
        let layer = SentryClientLayer::new().propagate_traceparent(true);
        let call = layer.layer(service).oneshot(request);
        world.run(async { drop(call.await) });
        assert_eq!(world.received().transactions.len(), 1);
    }
}
