//! What was opened and closed, and what Sentry was told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sentry::Level;
use sentry::protocol::EnvelopeItem;
use sentry::protocol::client_report::{Category, ItemLoss, LossSource};
use tokio::task::yield_now;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::registry::LookupSpan;

use sentry_tonic::SentryTracingLayer;

use crate::support::received::Received;
use crate::support::world::World;

/// What was opened and closed, of all kinds of spans.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    opened: AtomicUsize,
    closed: AtomicUsize,
    /// Those of calls.
    calls: AtomicUsize,
}

/// A layer that counts them.
struct CountSpans(Arc<Spans>);

impl CountSpans {
    fn new(spans: &Arc<Spans>) -> Self {
        Self(Arc::clone(spans))
    }
}

impl<S: Subscriber> Layer<S> for CountSpans {
    fn on_new_span(&self, attrs: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let is_call = attrs.metadata().target() == "sentry_tonic";
        self.0.calls.fetch_add(is_call.into(), Ordering::Relaxed);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Spans {
    /// How many of them were calls.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn are_open(&self) -> bool {
        let closed = self.closed.load(Ordering::Acquire);
        closed != self.opened.load(Ordering::Acquire)
    }

    /// Calls that were cancelled end some time after who made them.
    pub(crate) async fn all_closed(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.are_open() {
            assert!(Instant::now() < deadline, "spans stay open: {self:?}");
            yield_now().await;
        }
    }
}

/// A world in which spans are counted.
pub(crate) fn counted(rate: f32) -> (World, Arc<Spans>) {
    let spans = Arc::new(Spans::default());
    let subscriber = counting(SentryTracingLayer::new(), &spans);
    (World::subscribed_at(rate, subscriber), spans)
}

/// One whose layer has its hub pinned.
pub(crate) fn counted_pinned(rate: f32) -> (World, Arc<Spans>) {
    let (mut world, spans) = counted(rate);
    let layer = SentryTracingLayer::new().hub(Arc::clone(&world.hub));
    world.dispatch = Dispatch::new(counting(layer, &spans));
    (world, spans)
}

fn counting(
    layer: SentryTracingLayer,
    spans: &Arc<Spans>,
) -> impl Subscriber + for<'a> LookupSpan<'a> + use<> {
    let layers = registry().with(layer).with(CountSpans::new(spans));
    // h2 leaves spans of its own open.
    layers.with(LevelFilter::INFO)
}

/// What Sentry was told of.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) transactions: usize,
    /// That are no more: by reason.
    lost: BTreeMap<String, u64>,
}

impl Tally {
    /// How many transactions it was told of, sent or lost.
    pub(crate) fn told(&self) -> usize {
        let lost: u64 = self.lost.values().sum();
        self.transactions + usize::try_from(lost).unwrap()
    }

    /// Adds what `world` still has, and checks that Sentry was told of each call.
    #[track_caller]
    pub(crate) fn assert_all_told(mut self, world: &World, spans: &Spans) {
        // The reports of what was lost go out with it.
        world.hub.capture_message("probe", Level::Info);
        self.add(&world.received());
        println!("{spans:?}\n{self:?}");
        assert_eq!(self.told(), spans.calls());
    }

    pub(crate) fn add(&mut self, received: &Received) {
        self.transactions += received.transactions.len();
        for item in &received.others {
            if let EnvelopeItem::ClientReport(report) = item {
                let of_transactions = |loss: &ItemLoss| loss.category == Category::Transaction;
                for loss in report.losses().filter(of_transactions) {
                    let reason = format!("{:?}", loss.reason);
                    *self.lost.entry(reason).or_default() += loss.quantity;
                }
            }
        }
    }
}
