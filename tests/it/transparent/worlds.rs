//! Whoever listens: Sentry in all its moods, or nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sentry::ClientOptions;
use sentry::protocol::SpanStatus;
use sentry_tonic::SentryTracingLayer;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::registry::LookupSpan;

use crate::support::received::Received;
use crate::support::world;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// All is sampled, whatever a request says.
    Sampler,
    SamplerOfNone,
    /// Where a request says nothing else.
    Sampled,
    Unsampled,
    /// With personal data, and without tracing.
    Disabled,
    NoClient,
    NoSubscriber,
}

const MOODS: [Mood; 7] = [
    Mood::Sampler,
    Mood::SamplerOfNone,
    Mood::Sampled,
    Mood::Unsampled,
    Mood::Disabled,
    Mood::NoClient,
    Mood::NoSubscriber,
];

pub(crate) struct World {
    pub(crate) mood: Mood,
    around: world::World,
    spans: Spans,
}

/// What was told of one call.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) transactions: Vec<SpanStatus>,
    pub(crate) events: usize,
    pub(crate) spans_made: usize,
    pub(crate) spans_closed: usize,
}

pub(crate) struct Worlds(Vec<World>);

impl Worlds {
    pub(crate) fn new() -> Self {
        Self(MOODS.into_iter().map(World::new).collect())
    }

    /// Any number is one of a world.
    pub(crate) fn get(&self, number: usize) -> &World {
        &self.0[number % MOODS.len()]
    }
}

impl World {
    fn new(mood: Mood) -> Self {
        let options = |options: ClientOptions| match mood {
            Mood::Sampler => options.traces_sampler(|_| 1.0).send_default_pii(true),
            Mood::SamplerOfNone => options.traces_sampler(|_| 0.0),
            Mood::Sampled => options.traces_sample_rate(1.0),
            Mood::Unsampled => options.traces_sample_rate(0.0),
            Mood::Disabled => options.send_default_pii(true),
            Mood::NoClient | Mood::NoSubscriber => options,
        };
        let spans = Spans::default();
        let layers = registry().with(SentryTracingLayer::new());
        let mut around = world::World::of(options, layers.with(spans.clone()));
        if matches!(mood, Mood::NoClient | Mood::NoSubscriber) {
            around.hub.bind_client(None);
        }
        if mood == Mood::NoSubscriber {
            around.dispatch = Dispatch::none();
        }
        Self {
            mood,
            around,
            spans,
        }
    }

    /// Runs on this thread.
    pub(crate) fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        self.around.sync(f)
    }

    /// Takes what Sentry was sent.
    pub(crate) fn received(&self) -> Received {
        self.around.received()
    }

    /// Takes it.
    pub(crate) fn told(&self) -> Told {
        let received = self.received();
        let statuses = received.statuses().into_iter();
        Told {
            transactions: statuses.map(|(_, status)| status).collect(),
            events: received.events.len(),
            spans_made: self.spans.0[0].swap(0, Ordering::Relaxed),
            spans_closed: self.spans.0[1].swap(0, Ordering::Relaxed),
        }
    }
}

/// Counts spans of calls as they are made, and as they are closed.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<[AtomicUsize; 2]>);

impl<S> Layer<S> for Spans
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if attrs.metadata().target() == "sentry_tonic" {
            self.0[0].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        if ctx.metadata(&id).unwrap().target() == "sentry_tonic" {
            self.0[1].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// In the order of the codes.
pub(crate) const STATUSES: [SpanStatus; 17] = [
    SpanStatus::Ok,
    SpanStatus::Cancelled,
    SpanStatus::UnknownError,
    SpanStatus::InvalidArgument,
    SpanStatus::DeadlineExceeded,
    SpanStatus::NotFound,
    SpanStatus::AlreadyExists,
    SpanStatus::PermissionDenied,
    SpanStatus::ResourceExhausted,
    SpanStatus::FailedPrecondition,
    SpanStatus::Aborted,
    SpanStatus::OutOfRange,
    SpanStatus::Unimplemented,
    SpanStatus::InternalError,
    SpanStatus::Unavailable,
    SpanStatus::DataLoss,
    SpanStatus::Unauthenticated,
];
