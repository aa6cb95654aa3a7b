//! Calls and spans that thread-locals hold, which end while a thread does: before, amid and
//! after what tracing and sentry keep there.

use std::any::Any;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use http_body::Body as _;
use sentry::protocol::SpanStatus;
use tonic::body::Body;
use tower::{Layer, Service, service_fn};
use tracing::{error, info, info_span};

use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentrySpanExt};

use crate::support::alone::alone;
use crate::support::tally::counted;

/// When the thread-local is first looked at, which goes after all that come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Before anything is traced on the thread.
    First,
    /// After a span was made there, and before one is entered.
    Between,
    /// After a span was entered.
    Last,
    /// Nothing is traced there.
    Alone,
}

/// What it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Span,
    Entered,
    /// Calls that were polled, of a server and of a client.
    Calls,
    /// Their responses, which are streams.
    Streams,
    /// What makes calls as it is dropped.
    Maker,
}

const MADE: [Made; 4] = [Made::First, Made::Between, Made::Last, Made::Alone];
const HELD: [Held; 5] = [
    Held::Span,
    Held::Entered,
    Held::Calls,
    Held::Streams,
    Held::Maker,
];

thread_local! {
    static HOLDER: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

fn request() -> Request<Body> {
    let request = Request::post("http://localhost/a.B/C");
    let request = request.header("content-type", "application/grpc");
    request.body(Body::empty()).unwrap()
}

fn poll<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Two calls, made and polled once, of which nothing comes.
fn calls() -> Vec<Box<dyn Any>> {
    let hangs =
        service_fn(|_: Request<_>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let mut of_server = Box::pin(SentryServerLayer::new().layer(hangs).call(request()));
    assert!(poll(of_server.as_mut()).is_pending());
    let hangs =
        service_fn(|_: Request<_>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let mut of_client = Box::pin(SentryClientLayer::new().layer(hangs).call(request()));
    assert!(poll(of_client.as_mut()).is_pending());
    vec![Box::new(of_server), Box::new(of_client)]
}

/// A body that never ends.
struct Endless;

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        info!(target: "test", "polled");
        Poll::Pending
    }
}

fn streams() -> Vec<Box<dyn Any>> {
    let answers = service_fn(|_: Request<_>| async { Ok::<_, Infallible>(Response::new(Endless)) });
    let of_server = pin!(SentryServerLayer::new().layer(answers).call(request()));
    let answers = service_fn(|_: Request<_>| async { Ok::<_, Infallible>(Response::new(Endless)) });
    let of_client = pin!(SentryClientLayer::new().layer(answers).call(request()));
    let Poll::Ready(Ok(of_server)) = poll(of_server) else {
        unreachable!("it is ready")
    };
    let Poll::Ready(Ok(of_client)) = poll(of_client) else {
        unreachable!("it is ready")
    };
    let mut of_server = Box::pin(of_server.into_body());
    let mut of_client = Box::pin(of_client.into_body());
    let mut context = Context::from_waker(Waker::noop());
    assert!(of_server.as_mut().poll_frame(&mut context).is_pending());
    assert!(of_client.as_mut().poll_frame(&mut context).is_pending());
    vec![Box::new(of_server), Box::new(of_client)]
}

struct Maker;

impl Drop for Maker {
    fn drop(&mut self) {
        drop(calls());
        drop(streams());
    }
}

impl Held {
    fn make(self) -> Vec<Box<dyn Any>> {
        match self {
            Self::Span => vec![Box::new(info_span!(target: "test", "held"))],
            Self::Entered => vec![Box::new(info_span!(target: "test", "held").entered())],
            Self::Calls => calls(),
            Self::Streams => streams(),
            Self::Maker => vec![Box::new(Maker)],
        }
    }
}

fn job() {
    info_span!(target: "test", "job").in_scope(|| error!(target: "test", "in the job"));
}

/// Runs a thread that ends with this in its thread-local.
fn end_thread(made: Made, held: Held) {
    let run = move || {
        match made {
            Made::First => {
                HOLDER.set(Vec::new());
                job();
            }
            Made::Between => {
                drop(info_span!(target: "test", "span").trace_headers());
                HOLDER.set(Vec::new());
                job();
            }
            Made::Last => job(),
            Made::Alone => {}
        }
        HOLDER.set(held.make());
    };
    std::thread::spawn(run).join().unwrap();
}

#[test]
fn threads_end_with_calls_and_spans_in_their_locals() {
    let name = "teardown::threads_end_with_calls_and_spans_in_their_locals";
    alone(name, || {
        let (world, spans) = counted(1.0);
        // Only it is there to the end of a thread.
        world.install();
        for made in MADE {
            for held in HELD {
                end_thread(made, held);
                assert!(!spans.are_open(), "{made:?} {held:?}: {spans:?}");
                let received = world.received();
                assert_eq!(received.statuses(), told(made, held), "{made:?} {held:?}");
            }
        }
    });
}

/// Where sentry's own locals are gone, nobody is told of what ends.
fn told(made: Made, held: Held) -> Vec<(String, SpanStatus)> {
    let mut told = Vec::new();
    let mut tell = |name: &str, status, times| {
        told.extend(std::iter::repeat_n((name.to_owned(), status), times));
    };
    tell("span", SpanStatus::Ok, (made == Made::Between).into());
    tell(
        "job",
        SpanStatus::InternalError,
        (made != Made::Alone).into(),
    );
    if made != Made::First {
        match held {
            Held::Span | Held::Entered => tell("held", SpanStatus::Ok, 1),
            Held::Calls | Held::Streams => tell("/a.B/C", SpanStatus::Cancelled, 2),
            Held::Maker => tell("/a.B/C", SpanStatus::Cancelled, 4),
        }
    }
    told
}

#[test]
fn a_runtime_ends_with_calls_in_the_locals_of_its_threads() {
    const THREADS: usize = 2;
    let name = "teardown::a_runtime_ends_with_calls_in_the_locals_of_its_threads";
    alone(name, || {
        let (world, spans) = counted(1.0);
        world.install();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            // Makes calls, and ends those that are left.
            .on_thread_stop(|| {
                drop(Maker);
                HOLDER.with_borrow_mut(|holder| holder.push(Box::new(Maker)));
            })
            .build()
            .unwrap();
        let task = runtime.spawn(async {
            let calls = calls();
            HOLDER.with_borrow_mut(|holder| holder.extend(calls));
        });
        runtime.block_on(task).unwrap();
        drop(runtime);
        assert!(!spans.are_open(), "{spans:?}");
        let cancelled = ("/a.B/C".to_owned(), SpanStatus::Cancelled);
        // Those of the task, and of each thread twice those of the maker.
        let expected = vec![cancelled; 2 + THREADS * 8];
        assert_eq!(world.received().statuses(), expected);
    });
}
