//! Memory that stays: after many calls, during a long stream, and of streams that are open.
//!
//! `memory [--full]`

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::ops::Sub;
use std::pin::Pin;

use benches::contestant::{Contestant, Drive, Sampling};
use benches::in_process::{self, call, request};
use benches::table::{Table, short};
use benches::work::{Step, Work};
use benches::{Error, allocator, child, setup};
use bytes::Bytes;
use http::{Request, Response};
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::StdError;
use tower::{Service, ServiceExt};

const OPEN_STREAMS: usize = 10_000;
/// After which all that is kept for good should be there.
const WARM_UP: u32 = 2_000;
/// Bytes: far less than any part of each call or message would sum up to.
const MOST_LEFT: f64 = 20_000.0;

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => compare(50_000),
        [full] if full == "--full" => compare(1_000_000),
        [contestant, sampling, many] => {
            measure(contestant.parse()?, sampling.parse()?, many.parse()?)
        }
        _ => Err("usage: memory [--full]".into()),
    }
}

fn compare(many: u32) -> Result<(), Error> {
    let mut grown = Vec::new();
    let mut table = Table::new([
        "server".to_owned(),
        String::new(),
        format!("bytes left by {many} calls"),
        format!("by a stream of {many} messages, before its end"),
        format!("for each of {OPEN_STREAMS} open streams"),
    ]);
    for (contestant, sampling) in [
        (Contestant::Bare, Sampling::Off),
        (Contestant::Ours, Sampling::NoClient),
        (Contestant::Ours, Sampling::Off),
        (Contestant::Ours, Sampling::On),
    ] {
        let arguments = [contestant.name(), sampling.name(), &many.to_string()];
        let told = child::output_of_self(arguments)?;
        let numbers: Vec<f64> = child::numbers(&told)?;
        let names = [contestant.name(), sampling.name()].map(str::to_owned);
        let [calls, _, stream, ..] = numbers.as_slice() else {
            return Err(format!("not what was asked for: {told}").into());
        };
        if calls.max(*stream) > MOST_LEFT {
            grown.push(names.clone());
        }
        let pairs = numbers.chunks(2);
        let cells = pairs.map(|pair| {
            pair.iter()
                .copied()
                .map(short)
                .collect::<Vec<_>>()
                .join(" / ")
        });
        table.add(names.into_iter().chain(cells));
    }
    println!("### Memory: allocated / resident bytes\n\n{table}");
    match grown.as_slice() {
        [] => Ok(()),
        _ => Err(format!("memory grows: {grown:?}").into()),
    }
}

fn measure(contestant: Contestant, sampling: Sampling, many: u32) -> Result<(), Error> {
    let _running = setup::set_up(contestant, sampling);
    let runtime = in_process::runtime()?;
    let drive = |work, what| {
        let greeter = in_process::greeter(contestant, work);
        let memory = Memory {
            work,
            sampling,
            runtime: &runtime,
            what,
        };
        contestant.serve(greeter, memory)
    };
    let unary = Work::new(many, Step::Child, 0);
    let long = Work::new(1, Step::ResponseFrame, many);
    let idle = Work::new(1, Step::ResponseFrame, 2);
    let left = drive(unary, What::Calls);
    let in_stream = drive(long, What::LongStream);
    let per_stream = drive(idle, What::OpenStreams);
    println!("{left} {in_stream} {per_stream}");
    Ok(())
}

enum What {
    Calls,
    LongStream,
    OpenStreams,
}

struct Memory<'a> {
    work: Work,
    sampling: Sampling,
    runtime: &'a Runtime,
    what: What,
}

impl Drive for Memory<'_> {
    type Output = Usage;

    fn drive<S, B>(self, service: S) -> Usage
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<StdError>,
    {
        self.runtime.block_on(async {
            match self.what {
                What::Calls => self.calls(service).await,
                What::LongStream => self.long_stream(service).await,
                What::OpenStreams => self.open_streams(service).await,
            }
        })
    }
}

impl Memory<'_> {
    async fn calls<S, B>(&self, service: S) -> Usage
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<StdError>,
    {
        let many = async |calls| {
            for _ in 0..calls {
                call(service.clone(), self.work, self.sampling, |_| ()).await;
            }
        };
        many(WARM_UP).await;
        let before = Usage::now();
        many(self.work.calls).await;
        Usage::now() - before
    }

    async fn long_stream<S, B>(&self, service: S) -> Usage
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<StdError>,
    {
        let mut early = Usage::now();
        let mut late = early;
        call(service, self.work, self.sampling, |frames| {
            if frames == WARM_UP {
                early = Usage::now();
            } else if frames == self.work.times {
                late = Usage::now();
            }
        })
        .await;
        late - early
    }

    async fn open_streams<S, B>(&self, service: S) -> Usage
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<StdError>,
    {
        call(service.clone(), self.work, self.sampling, |_| ()).await;
        // What the bodies are in themselves counts, and the list of them does not.
        let mut open: Vec<Pin<Box<B>>> = Vec::with_capacity(OPEN_STREAMS);
        let before = Usage::now();
        for _ in 0..OPEN_STREAMS {
            let request = request(self.work, self.sampling);
            let Ok(response) = service.clone().oneshot(request).await;
            let mut body = Box::pin(response.into_body());
            let frame = poll_fn(|context| body.as_mut().poll_frame(context)).await;
            assert!(frame.is_some(), "a stream is at its end");
            open.push(body);
        }
        let Usage {
            allocated,
            resident,
        } = Usage::now() - before;
        Usage {
            allocated: allocated / OPEN_STREAMS as isize,
            resident: resident / OPEN_STREAMS as isize,
        }
    }
}

/// In bytes.
#[derive(Debug, Clone, Copy)]
struct Usage {
    allocated: isize,
    /// Whole pages, and with what the allocator keeps to itself.
    resident: isize,
}

impl Usage {
    fn now() -> Self {
        Self {
            allocated: allocator::live_bytes(),
            resident: resident().expect("Linux tells"),
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            allocated: self.allocated - other.allocated,
            resident: self.resident - other.resident,
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.allocated, self.resident)
    }
}

fn resident() -> Result<isize, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes
        .ok_or("no VmRSS in /proc/self/status")?
        .parse::<isize>()?
        * 1024)
}
