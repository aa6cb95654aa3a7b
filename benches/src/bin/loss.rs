//! How many calls per second reach Sentry, by the queue of its transport and the speed of
//! its ingest, and whether all others are told of in client reports.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::Error;
use benches::contestant::{Contestant, Drive, Sampling};
use benches::in_process::{self, call};
use benches::ingest::{Ingest, Received};
use benches::table::Table;
use benches::work::{Step, Work};
use bytes::Bytes;
use http::{Request, Response};
use sentry::protocol::Event;
use sentry::transports::DefaultTransportFactory;
use sentry::{Client, ClientOptions, Hub};
use sentry_tonic::{SentryGrpcLayer, TraceTransport};
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::StdError;
use tower::Service;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(5);
const FLUSH: Duration = Duration::from_secs(60);

const SLOW: Duration = Duration::from_millis(5);
const QUEUES: [usize; 3] = [30, 300, 3_000];
const RATES: [u32; 4] = [100, 300, 1_000, 5_000];

fn main() -> Result<(), Error> {
    // The client of the main hub counts, whichever it is at the time.
    tracing_subscriber::registry()
        .with(SentryGrpcLayer::new())
        .with(LevelFilter::INFO)
        .init();
    let runtime = in_process::runtime()?;
    let mut table = Table::new([
        "ingest",
        "transport",
        "queue",
        "calls made in a second",
        "reached Sentry",
        "",
        "in that second",
        "reported as lost",
        "unaccounted",
    ]);
    let mut was_exact = true;
    for (speed, delay) in [("fast", Duration::ZERO), ("5 ms", SLOW)] {
        for is_plain in [true, false] {
            for queue in QUEUES {
                for rate in RATES {
                    let ingest = Ingest::start(delay)?;
                    let (made, in_time) = run(&runtime, &ingest, queue, rate, is_plain)?;
                    let Received {
                        transactions,
                        reported,
                    } = ingest.received();
                    let lost: u64 = reported.values().sum();
                    was_exact &= transactions + lost == made;
                    let reasons: Vec<_> = reported
                        .iter()
                        .map(|(reason, lost)| format!("{lost} {reason}"))
                        .collect();
                    table.add([
                        speed.to_owned(),
                        if is_plain {
                            "sentry's"
                        } else {
                            "TraceTransport"
                        }
                        .to_owned(),
                        queue.to_string(),
                        made.to_string(),
                        transactions.to_string(),
                        format!("{:.0} %", transactions as f64 * 100.0 / made as f64),
                        in_time.to_string(),
                        reasons.join(", "),
                        (i128::from(made) - i128::from(transactions + lost)).to_string(),
                    ]);
                }
            }
        }
    }
    println!("### Loss at rate\n\n{table}");
    match was_exact {
        true => Ok(()),
        false => {
            Err("what reached Sentry and what was reported as lost is not what was made".into())
        }
    }
}

/// Returns how many calls were made in a second, and how many had reached Sentry then.
fn run(
    runtime: &Runtime,
    ingest: &Ingest,
    queue: usize,
    rate: u32,
    is_plain: bool,
) -> Result<(u64, u64), Error> {
    let options = ClientOptions::new()
        .dsn(&ingest.dsn())
        .traces_sample_rate(1.0)
        .transport_channel_capacity(queue);
    let options = match is_plain {
        true => options.transport(DefaultTransportFactory),
        false => options.transport(TraceTransport::new(DefaultTransportFactory)),
    };
    let client = Arc::new(Client::from(options));
    Hub::main().bind_client(Some(Arc::clone(&client)));
    let work = Work::new(1, Step::Child, 0);
    let greeter = in_process::greeter(Contestant::Ours, work);
    let made = Contestant::Ours.serve(
        greeter,
        Paced {
            work,
            rate,
            runtime,
        },
    );
    let in_time = ingest.received().transactions;
    if !client.flush(Some(FLUSH)) {
        return Err("the queue was not sent in time".into());
    }
    // Reports go with the next envelope.
    client.capture_event(Event::default(), None);
    client.flush(Some(FLUSH));
    Hub::main().bind_client(None);
    Ok((made, in_time))
}

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
