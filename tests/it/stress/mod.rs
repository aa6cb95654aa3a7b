//! Many calls of all kinds at once, each of which does all there is to go astray: nothing of one
//! is in another, and nothing is missing.
//!
//! `STRESS_OPS=10000000 cargo test --release --test it stress -- --nocapture` for the long
//! version. An operation is a write to a scope, a trail or a span, or a look at one: a tag, a
//! user, a breadcrumb, an event, a span that is entered and left.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, yield_now};
use tower::Layer;
use tracing::span::Id;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry;

use sentry_tonic::{SentryServerLayer, SentryTracingLayer};

use crate::stress::books::{Books, Tally};
use crate::stress::calls::{Client, Serving, client, is_in_process, job};
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::received::Received;
use crate::support::world::{RATES, World};

mod books;
mod calls;
mod judge;
mod work;

const OPERATIONS: u64 = 60_000;
const THREADS: usize = 8;
const CONNECTIONS: usize = 3;
const AT_ONCE: usize = 48;
/// What was received of so many jobs is judged, and let go.
const BATCH: u64 = 96;
/// No fewer come of a job.
const OF_A_JOB: u64 = 650;

/// Spans that are entered.
struct CountEnters(Arc<Books>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for CountEnters {
    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        self.0.op();
    }
}

/// Where each failure is told as often as it is told of.
fn world(rate: Option<f32>, books: &Arc<Books>) -> World {
    let mut world = World::rated(rate, |options| options, |layer| layer);
    let layer = SentryTracingLayer::new().deduplicate_errors(false);
    let subscriber = registry()
        .with(layer)
        .with(CountEnters(Arc::clone(books)))
        .with(LevelFilter::INFO);
    world.dispatch = Dispatch::new(subscriber);
    world
}

#[test]
fn nothing_of_one_call_is_in_another_and_nothing_is_missing() {
    let operations = std::env::var("STRESS_OPS").ok();
    let operations = operations.map_or(OPERATIONS, |operations| operations.parse().unwrap());
    for rate in RATES {
        let books = Arc::new(Books::new(rate == Some(1.0)));
        let world = Arc::new(world(rate, &books));
        let stress = Stress {
            rate,
            books,
            world: Arc::clone(&world),
        };
        world.run_threads(THREADS, stress.run(operations / RATES.len() as u64));
    }
}

struct Stress {
    rate: Option<f32>,
    books: Arc<Books>,
    world: Arc<World>,
}

impl Stress {
    async fn run(self, operations: u64) {
        let start = Instant::now();
        let serving = Serving {
            books: Arc::clone(&self.books),
            client: Arc::new(OnceLock::new()),
        };
        let layer = SentryServerLayer::new().max_events_per_minute(None);
        let server = serving.greeter().serve_with(layer.clone()).await;
        // In this process, on the task of who calls.
        let here = client(layer.layer(GreeterServer::new(serving.greeter())));
        let mut clients = vec![];
        for _ in 0..CONNECTIONS {
            clients.push(client(server.endpoint().connect().await.unwrap()));
        }
        serving.client.set(clients[0].clone()).unwrap();
        let mut tally = Tally::default();
        let mut jobs = 0;
        let batch = operations.div_ceil(OF_A_JOB).min(BATCH);
        while self.books.operations() < operations {
            self.make(&here, &clients, jobs..jobs + batch).await;
            jobs += batch;
            let received = self.receive().await;
            self.books.close(&received, &mut tally);
        }
        drop((here, clients, serving));
        server.stop().await;
        let late = self.world.received();
        assert!(
            late.events.is_empty() && late.transactions.is_empty(),
            "{late:?}"
        );
        let (rate, operations) = (self.rate, self.books.operations());
        let seconds = start.elapsed().as_secs_f32();
        println!(
            "rate {rate:?}: {operations} operations, {jobs} jobs, {tally:?}, no strays, in {seconds} s"
        );
    }

    /// Makes calls, some of them at once.
    async fn make(&self, here: &Client, clients: &[Client], numbers: std::ops::Range<u64>) {
        let mut jobs = JoinSet::new();
        for number in numbers {
            if jobs.len() == AT_ONCE {
                jobs.join_next().await.unwrap().unwrap();
            }
            let client = match is_in_process(number) {
                true => here,
                false => &clients[number as usize % clients.len()],
            };
            let client = client.clone();
            jobs.spawn(job(Arc::clone(&self.books), client, self.rate, number));
        }
        while let Some(done) = jobs.join_next().await {
            done.unwrap();
        }
    }

    /// Servers are not done when their callers are.
    async fn receive(&self) -> Received {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut all = self.world.received();
        while !self
            .books
            .are_all_there(all.events.len(), all.transactions.len())
        {
            if Instant::now() > deadline {
                break;
            }
            yield_now().await;
            let more = self.world.received();
            all.events.extend(more.events);
            all.transactions.extend(more.transactions);
            all.contexts.extend(more.contexts);
        }
        all
    }
}
