//! Whether what a peer sends costs more than it is long.
//!
//! `growth [<case> <size>]`

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Body, Frame};
use sentry::ClientOptions;
use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentryTracingLayer};
use tower::{Layer, Service, service_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use benches::hostile::{CASES, Hostile};
use benches::in_process::in_measured_region;
use benches::setup::Nowhere;
use benches::table::{Table, short};
use benches::{Error, child};

/// Up to four times what a server lets in unless it is told to.
const SIZES: [usize; 6] = [2_048, 4_096, 8_192, 16_384, 32_768, 65_536];

/// What twice as much may cost.
const MAX_RATIO: f64 = 2.5;

fn main() -> Result<ExitCode, Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => compare(),
        [case, size] => {
            let (_, make) = CASES[case.parse::<usize>()?];
            run(make(size.parse()?));
            Ok(ExitCode::SUCCESS)
        }
        _ => Err("usage: growth [<case> <size>]".into()),
    }
}

fn compare() -> Result<ExitCode, Error> {
    let mut counted = vec![[0.0; SIZES.len()]; CASES.len()];
    for (case, size, instructions) in count()? {
        counted[case][size] = instructions;
    }
    let sizes = SIZES.map(|size| format!("{} KiB", size / 1_024));
    let header = ["of a peer".to_owned()].into_iter().chain(sizes);
    let mut table = Table::new(header);
    let mut are_linear = true;
    for ((name, _), counts) in CASES.iter().zip(&counted) {
        let cells = counts.iter().enumerate().map(|(size, count)| {
            let before = size.checked_sub(1).map(|before| counts[before]);
            let Some(ratio) = before.map(|before| count / before) else {
                return short(*count);
            };
            let is_linear = ratio <= MAX_RATIO;
            are_linear &= is_linear;
            let mark = if is_linear { "" } else { " TOO MUCH" };
            format!("{} (x {ratio:.2}{mark})", short(*count))
        });
        let cells: Vec<_> = cells.collect();
        table.add([(*name).to_owned()].into_iter().chain(cells));
    }
    println!("### Growth: instructions of a call, and of one in it, by what comes with them\n");
    println!("{table}");
    if are_linear {
        return Ok(ExitCode::SUCCESS);
    }
    println!("Twice as much costs more than {MAX_RATIO} times as much.");
    Ok(ExitCode::FAILURE)
}

/// By the places of the case and of the size.
fn count() -> Result<Vec<(usize, usize, f64)>, Error> {
    let cases = 0..CASES.len();
    let all = cases.flat_map(|case| (0..SIZES.len()).map(move |size| (case, size)));
    let waiting = Mutex::new(all);
    let counted = Mutex::new(vec![]);
    let work_off = || -> Result<(), Error> {
        loop {
            let next = waiting.lock().expect("nobody panics").next();
            let Some((case, size)) = next else {
                return Ok(());
            };
            let mut command = Command::new(std::env::current_exe()?);
            command.args([case.to_string(), SIZES[size].to_string()]);
            let instructions = child::instructions(&command)?;
            let mut counted = counted.lock().expect("nobody panics");
            counted.push((case, size, instructions));
        }
    };
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work_off)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("nobody panics"))
    })?;
    Ok(counted.into_inner()?)
}

/// With all of metadata and details told.
fn run(hostile: Hostile) {
    let _guard = sentry::init(
        ClientOptions::new()
            .dsn("https://key@o1.ingest.invalid/1")
            .traces_sample_rate(1.0)
            .send_default_pii(true)
            .transport(|_: &ClientOptions| std::sync::Arc::new(Nowhere) as _),
    );
    tracing_subscriber::registry()
        .with(SentryTracingLayer::new())
        .init();
    call(hostile.clone());
    let mut hostile = Some(hostile);
    in_measured_region(&mut || call(hostile.take().expect("it runs once")));
}

fn call(hostile: Hostile) {
    let Hostile {
        uri,
        request,
        own,
        trailers,
        frames,
    } = hostile;
    let body = Frames {
        frames: frames.clone(),
        trailers: None,
    };
    let answer = Frames {
        frames,
        trailers: Some(trailers),
    };
    let upstream = Uri::from_static("http://localhost:50052/helloworld.Greeter/SayHello");
    let handler = |request: Request<_>| {
        let (own, answer, upstream) = (own.clone(), answer.clone(), upstream.clone());
        async move {
            read(request.into_body()).await;
            let of_upstream = answer.clone();
            let upstream_service = service_fn(move |request: Request<tonic::body::Body>| {
                let answer = of_upstream.clone();
                async move {
                    drop(request);
                    Ok::<_, Infallible>(Response::new(answer))
                }
            });
            let mut client = SentryClientLayer::new()
                .propagate_traceparent(true)
                .layer(upstream_service);
            let Ok(response) = client
                .call(with_head(&upstream, own, tonic::body::Body::empty()))
                .await;
            read(response.into_body()).await;
            Ok::<_, Infallible>(Response::new(answer))
        }
    };
    let mut server = SentryServerLayer::new().layer(service_fn(handler));
    let called = async {
        let Ok(response) = server.call(with_head(&uri, request, body)).await;
        read(response.into_body()).await;
    };
    let waker = Waker::noop();
    let polled = pin!(called).poll(&mut Context::from_waker(waker));
    assert!(polled.is_ready(), "nothing has to wait");
}

fn with_head<B>(uri: &Uri, headers: HeaderMap, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    request
}

async fn read<B: Body>(body: B) {
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        assert!(frame.is_ok(), "no body fails");
    }
}

#[derive(Clone)]
struct Frames {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.frames.pop_front() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }
}
