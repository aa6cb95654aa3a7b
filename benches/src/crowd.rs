//! Calls amid others: with other spans open, from many tasks, on many threads.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tonic::body::Body;
use tonic::codegen::StdError;
use tower::{Service, ServiceExt};

use crate::Error;
use crate::contestant::{Drive, Sampling};
use crate::in_process::{self, call, in_measured_region, request_to_wait};
use crate::work::{Step, Work};

const WARM_UP: u32 = 100;

/// A call that waits is open with one child.
const SPANS_OF_A_CALL: u32 = 2;

/// What there is the more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    /// Spans of other calls, each of which has a task.
    OpenSpans(u32),
    /// Tasks, of which each makes as many calls as all others, in turn with them.
    Tasks(u32),
}

impl Crowd {
    pub fn to_arguments(self) -> [String; 2] {
        let (name, number) = match self {
            Self::OpenSpans(number) => ("open-spans", number),
            Self::Tasks(number) => ("tasks", number),
        };
        [name.to_owned(), number.to_string()]
    }

    pub fn from_arguments([name, number]: [&str; 2]) -> Result<Self, Error> {
        let number = u32::from_str(number)?;
        match name {
            "open-spans" => Ok(Self::OpenSpans(number)),
            "tasks" => Ok(Self::Tasks(number)),
            _ => Err(format!("no crowd: {name}").into()),
        }
    }

    /// How many calls are made where callgrind counts.
    pub fn calls(self) -> u32 {
        match self {
            Self::OpenSpans(_) => 1_000,
            Self::Tasks(_) => 10_000,
        }
    }

    pub fn work(self) -> Work {
        match self {
            Self::OpenSpans(_) => Work::new(1, Step::Child, 0),
            Self::Tasks(_) => Work::new(1, Step::Pause, 1),
        }
    }
}

/// Makes the calls of a crowd.
pub struct Amid {
    pub crowd: Crowd,
    pub sampling: Sampling,
    pub runtime: Runtime,
}

impl Drive for Amid {
    type Output = ();

    fn drive<S, B>(self, service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        let Self {
            crowd,
            sampling,
            runtime,
        } = self;
        let work = crowd.work();
        let make = async |service: &S, calls| {
            for _ in 0..calls {
                call(service.clone(), work, sampling, |_| ()).await;
            }
        };
        runtime.block_on(make(&service, WARM_UP));
        match crowd {
            Crowd::OpenSpans(spans) => {
                runtime.block_on(async {
                    for _ in 0..spans / SPANS_OF_A_CALL {
                        tokio::spawn(service.clone().oneshot(request_to_wait()));
                        yield_now().await;
                    }
                });
                in_measured_region(&mut || runtime.block_on(make(&service, crowd.calls())));
            }
            Crowd::Tasks(tasks) => {
                let run = || {
                    runtime.block_on(async {
                        let spawned: Vec<_> = (0..tasks)
                            .map(|_| {
                                let service = service.clone();
                                tokio::spawn(async move {
                                    for _ in 0..crowd.calls() / tasks {
                                        call(service.clone(), work, sampling, |_| ()).await;
                                    }
                                })
                            })
                            .collect();
                        for task in spawned {
                            task.await.expect("no call panics");
                        }
                    });
                };
                // So many have never been open at once.
                run();
                in_measured_region(&mut || run());
            }
        }
    }
}

/// Calls on threads, each with a runtime of its own, as fast as they can.
pub struct Threads<F> {
    pub sampling: Sampling,
    pub time: Duration,
    /// Says how many threads there are to be, until it does not.
    pub orders: F,
}

impl<F> Drive for Threads<F>
where
    F: FnMut(Option<Calls>) -> Option<usize>,
{
    type Output = ();

    fn drive<S, B>(mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        let mut made = None;
        while let Some(threads) = (self.orders)(made) {
            made = Some(round(&service, self.sampling, self.time, threads));
        }
    }
}

/// What came of a round.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    pub number: u64,
    pub seconds: f64,
    /// How often a thread slept, which is for a lock: calls are never without work.
    pub waits: u64,
}

fn round<S, B>(service: &S, sampling: Sampling, time: Duration, threads: usize) -> Calls
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<StdError>,
{
    let is_over = AtomicBool::new(false);
    let start = Barrier::new(threads + 1);
    let work = Work::new(1, Step::Child, 0);
    let call_on = |service: S| {
        let runtime = in_process::runtime().expect("there is room for a runtime");
        start.wait();
        let before = waits();
        let made = runtime.block_on(async {
            let mut made = 0;
            while !is_over.load(Ordering::Relaxed) {
                call(service.clone(), work, sampling, |_| ()).await;
                made += 1;
            }
            made
        });
        (made, waits() - before)
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..threads)
            .map(|_| {
                let service = service.clone();
                let call_on = &call_on;
                scope.spawn(move || call_on(service))
            })
            .collect();
        start.wait();
        let started = Instant::now();
        thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
        let seconds = started.elapsed().as_secs_f64();
        let mut calls = Calls {
            number: 0,
            seconds,
            waits: 0,
        };
        for caller in callers {
            let (made, waits) = caller.join().expect("no call panics");
            calls.number += made;
            calls.waits += waits;
        }
        calls
    })
}

/// How often this thread has slept.
fn waits() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|waits| waits.trim().parse().ok())
        .expect("Linux tells")
}
