//! How many calls reach Sentry, by the queue of its transport and the speed of its ingest,
//! whether all others are told of in client reports, and what a queue takes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::contestant::{Contestant, Drive, Sampling};
use benches::in_process::{self, call};
use benches::ingest::{Ingest, Received};
use benches::table::{Table, short};
use benches::work::{Step, Work};
use benches::{Error, allocator};
use bytes::Bytes;
use http::{Request, Response};
use sentry::protocol::Event;
use sentry::transports::DefaultTransportFactory;
use sentry::{Client, ClientOptions, Hub};
use sentry_tonic::{SentryTracingLayer, TraceTransport};
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::StdError;
use tower::Service;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(5);
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(120);

const INGESTS: [(&str, Duration); 3] = [
    ("at once", Duration::ZERO),
    ("5 ms", Duration::from_millis(5)),
    ("50 ms", Duration::from_millis(50)),
];
const TRANSPORTS: [(&str, Kind); 2] = [
    ("sentry's", Kind::Sentrys),
    ("TraceTransport", Kind::TraceTransport),
];
/// The first is the default of both.
const QUEUES: [usize; 4] = [30, 100, 1_000, 10_000];
const RATES: [u32; 4] = [10, 100, 1_000, 5_000];

/// Enough to tell what each envelope takes.
const FULL: usize = 1_000;
const CHILDREN: [u32; 3] = [0, 10, 100];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Sentrys,
    TraceTransport,
}

fn main() -> Result<(), Error> {
    // The client of the main hub counts, whichever it is at the time.
    tracing_subscriber::registry()
        .with(SentryTracingLayer::new())
        .with(LevelFilter::INFO)
        .init();
    let runtime = in_process::runtime()?;
    let (unaccounted, losses) = losses(&runtime)?;
    println!("### Loss at rate: calls of one second that reached Sentry, by queue\n\n{losses}");
    let memory = memory(&runtime)?;
    println!("### Bytes that a queue takes\n\n{memory}");
    match unaccounted {
        0 => Ok(()),
        _ => Err("what reached Sentry and what was reported as lost is not what was made".into()),
    }
}

/// And how many calls neither reached Sentry nor were reported as lost.
fn losses(runtime: &Runtime) -> Result<(u64, Table), Error> {
    let header = ["ingest answers", "transport", "calls/s", "sent/s"].map(str::to_owned);
    let queues = QUEUES.map(|queue| format!("queue {queue}"));
    let lost = ["reported as lost", "unaccounted"].map(str::to_owned);
    let mut table = Table::new(header.into_iter().chain(queues).chain(lost));
    let mut unaccounted_at_all = 0;
    for (answers, delay) in INGESTS {
        for (transport, kind) in TRANSPORTS {
            for rate in RATES {
                let mut rounds = Vec::new();
                for queue in QUEUES {
                    rounds.push(Round::new(runtime, delay, kind, queue, rate)?);
                }
                let sum = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
                let unaccounted = sum(Round::unaccounted);
                unaccounted_at_all += unaccounted;
                let most_in_time = rounds.iter().map(|round| round.in_time).max();
                let made = sum(|round| round.made) / rounds.len() as u64;
                let head = [answers, transport].map(str::to_owned);
                let rates = [made, most_in_time.unwrap_or_default()].map(|rate| rate.to_string());
                let reached = rounds.iter().map(Round::reached);
                let lost = [sum(Round::reported), unaccounted].map(|lost| lost.to_string());
                table.add(head.into_iter().chain(rates).chain(reached).chain(lost));
            }
        }
    }
    Ok((unaccounted_at_all, table))
}

struct Round {
    made: u64,
    /// How many had reached Sentry when the last one was made.
    in_time: u64,
    received: Received,
}

impl Round {
    fn new(
        runtime: &Runtime,
        delay: Duration,
        kind: Kind,
        queue: usize,
        rate: u32,
    ) -> Result<Self, Error> {
        let ingest = Ingest::start(delay)?;
        let client = client(&ingest, kind, queue);
        let paced = Paced {
            work: Work::new(1, Step::Child, 0),
            rate,
            runtime,
        };
        let made = make_calls(&client, paced.work, paced);
        let in_time = ingest.received().transactions;
        ingest.hurry();
        if !client.flush(Some(LONG)) {
            return Err("the queue was not sent in time".into());
        }
        // Reports go with the next envelope.
        client.capture_event(Event::default(), None);
        client.flush(Some(LONG));
        Ok(Self {
            made,
            in_time,
            received: ingest.received(),
        })
    }

    fn reached(&self) -> String {
        let reached = self.received.transactions;
        let percent = reached as f64 * 100.0 / self.made as f64;
        format!("{reached} ({percent:.1} %)")
    }

    fn reported(&self) -> u64 {
        self.received.reported.values().sum()
    }

    fn unaccounted(&self) -> u64 {
        let accounted = self.received.transactions + self.reported();
        self.made.abs_diff(accounted)
    }
}

/// Bytes that are there at once, and for each envelope that waits.
fn memory(runtime: &Runtime) -> Result<Table, Error> {
    let spans = CHILDREN.map(|children| format!("waiting, spans in it: {}", children + 1));
    let header = ["transport", "place for one"].map(str::to_owned);
    let mut table = Table::new(header.into_iter().chain(spans));
    for (transport, kind) in TRANSPORTS {
        let mut of_waiting = Vec::new();
        let mut of_place = 0;
        for children in CHILDREN {
            let ingest = Ingest::start(LONG)?;
            let before = allocator::live_bytes();
            let client = client(&ingest, kind, FULL);
            of_place = allocator::live_bytes() - before;
            let work = Work::new(1, Step::Child, children);
            // The first one of a client makes what the others have.
            make_calls(
                &client,
                work,
                Unpaced {
                    work,
                    calls: 1,
                    runtime,
                },
            );
            let before = allocator::live_bytes();
            let calls = FULL - 1;
            make_calls(
                &client,
                work,
                Unpaced {
                    work,
                    calls,
                    runtime,
                },
            );
            let after = allocator::live_bytes();
            of_waiting.push((after - before) as f64 / calls as f64);
            ingest.hurry();
            client.flush(Some(LONG));
        }
        let place = of_place as f64 / FULL as f64;
        let numbers = [place].into_iter().chain(of_waiting).map(short);
        table.add([transport.to_owned()].into_iter().chain(numbers));
    }
    Ok(table)
}

fn client(ingest: &Ingest, kind: Kind, queue: usize) -> Arc<Client> {
    let options = ClientOptions::new()
        .dsn(&ingest.dsn())
        .release("benches@1.0.0")
        .environment("production")
        .traces_sample_rate(1.0)
        .transport_channel_capacity(queue);
    Arc::new(Client::from(match kind {
        Kind::Sentrys => options.transport(DefaultTransportFactory),
        Kind::TraceTransport => options.transport(TraceTransport::new(DefaultTransportFactory)),
    }))
}

fn make_calls<D: Drive>(client: &Arc<Client>, work: Work, drive: D) -> D::Output {
    Hub::main().bind_client(Some(Arc::clone(client)));
    let greeter = in_process::greeter(Contestant::Ours, work);
    let made = Contestant::Ours.serve(greeter, drive);
    Hub::main().bind_client(None);
    made
}

/// Calls for a second. Returns how many.
struct Paced<'a> {
    work: Work,
    rate: u32,
    runtime: &'a Runtime,
}

impl Drive for Paced<'_> {
    type Output = u64;

    fn drive<S, B>(self, service: S) -> u64
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<StdError>,
    {
        self.runtime.block_on(async {
            let start = Instant::now();
            let mut made = 0;
            while start.elapsed() < SECOND {
                let due = start.elapsed().as_secs_f64() * f64::from(self.rate);
                while (made as f64) < due && start.elapsed() < SECOND {
                    call(service.clone(), self.work, Sampling::On, |_| ()).await;
                    made += 1;
                }
                tokio::time::sleep(TICK).await;
            }
            made
        })
    }
}

/// Calls one after another.
struct Unpaced<'a> {
    work: Work,
    calls: usize,
    runtime: &'a Runtime,
}

impl Drive for Unpaced<'_> {
    type Output = ();

    fn drive<S, B>(self, service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<StdError>,
    {
        self.runtime.block_on(async {
            for _ in 0..self.calls {
                call(service.clone(), self.work, Sampling::On, |_| ()).await;
            }
        });
    }
}
