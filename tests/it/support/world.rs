//! A Sentry client, a subscriber and a runtime of a test's own.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use sentry::test::TestTransport;
use sentry::{Client, ClientOptions, Hub, HubSwitchGuard};
use sentry_tonic::SentryTracingLayer;
use tokio::runtime::Runtime;
use tracing::Dispatch;
use tracing::dispatcher::{self, DefaultGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::registry::LookupSpan;

use crate::support::received::Received;
use crate::support::wire;

pub(crate) const DSN: &str = "https://public@sentry.invalid/1";

/// Sampled, not sampled, and with tracing disabled.
pub(crate) const RATES: [Option<f32>; 3] = [Some(1.0), Some(0.0), None];

/// Nothing in it is shared with another test.
///
/// As in an application, one thread has the hub, here that of the test, and all others have forks
/// of it. No layer has it pinned.
#[derive(Debug)]
pub(crate) struct World {
    transport: Arc<Collected>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) dispatch: Dispatch,
    /// On which the hub is current.
    thread: ThreadId,
}

/// The envelopes so far; `TestTransport` has no `Debug`.
pub(crate) struct Collected(Arc<TestTransport>);

impl std::fmt::Debug for Collected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestTransport")
    }
}

impl World {
    /// Everything is sampled.
    pub(crate) fn new() -> Self {
        Self::sampled(1.0)
    }

    pub(crate) fn sampled(rate: f32) -> Self {
        Self::with(|options| options.traces_sample_rate(rate), |layer| layer)
    }

    /// At one of the [`RATES`].
    pub(crate) fn rated(
        rate: Option<f32>,
        options: impl FnOnce(ClientOptions) -> ClientOptions,
        layer: impl FnOnce(SentryTracingLayer) -> SentryTracingLayer,
    ) -> Self {
        let rated = |client: ClientOptions| match rate {
            Some(rate) => options(client.traces_sample_rate(rate)),
            None => options(client),
        };
        Self::with(rated, layer)
    }

    /// At one of the [`RATES`], with personal data or without.
    pub(crate) fn with_pii(rate: Option<f32>, pii: bool) -> Self {
        Self::rated(rate, |options| options.send_default_pii(pii), |layer| layer)
    }

    pub(crate) fn with(
        options: impl FnOnce(ClientOptions) -> ClientOptions,
        layer: impl FnOnce(SentryTracingLayer) -> SentryTracingLayer,
    ) -> Self {
        Self::of(options, registry().with(layer(SentryTracingLayer::new())))
    }

    /// Now with a layer that has the hub pinned.
    pub(crate) fn pinned(mut self) -> Self {
        let layer = SentryTracingLayer::new().hub(Arc::clone(&self.hub));
        self.dispatch = Dispatch::new(registry().with(layer));
        self
    }

    /// With a subscriber of the test's own.
    pub(crate) fn subscribed<S>(subscriber: S) -> Self
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
    {
        Self::subscribed_at(1.0, subscriber)
    }

    pub(crate) fn subscribed_at<S>(rate: f32, subscriber: S) -> Self
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
    {
        Self::of(|options| options.traces_sample_rate(rate), subscriber)
    }

    /// With a client and a subscriber of the test's own.
    pub(crate) fn of<S>(options: impl FnOnce(ClientOptions) -> ClientOptions, subscriber: S) -> Self
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
    {
        let transport = TestTransport::new();
        let options = options(
            ClientOptions::new()
                .dsn(DSN)
                .transport(Arc::clone(&transport)),
        );
        let client = Arc::new(Client::from(options));
        Self {
            transport: Arc::new(Collected(transport)),
            hub: Arc::new(Hub::new(Some(client), Arc::default())),
            dispatch: Dispatch::new(subscriber),
            thread: thread::current().id(),
        }
    }

    /// Makes it that of this process, as an application does at its start.
    pub(crate) fn install(&self) {
        Hub::main().bind_client(self.hub.client());
        dispatcher::set_global_default(self.dispatch.clone()).unwrap();
    }

    /// Runs on this thread, without a runtime.
    pub(crate) fn sync<T>(&self, f: impl FnOnce() -> T) -> T {
        let hub = if thread::current().id() == self.thread {
            Arc::clone(&self.hub)
        } else {
            Arc::new(Hub::new_from_top(&self.hub))
        };
        Hub::run(hub, || dispatcher::with_default(&self.dispatch, f))
    }

    /// Runs on this thread, in a runtime that ends with it.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        // The runtime drops what is left over while the subscriber is there.
        self.sync(move || runtime.block_on(future))
    }

    /// Runs on threads of a runtime that ends with it.
    pub(crate) fn run_threads<F>(&self, threads: usize, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let runtime = self.runtime(threads);
        self.sync(move || {
            let handle = runtime.spawn(future);
            let result = runtime.block_on(handle).unwrap();
            drop(runtime);
            result
        })
    }

    /// A runtime on whose threads the subscriber and the client are there.
    pub(crate) fn runtime(&self, threads: usize) -> Runtime {
        thread_local! {
            static GUARDS: RefCell<Option<(DefaultGuard, HubSwitchGuard)>> =
                const { RefCell::new(None) };
        }
        let (dispatch, hub) = (self.dispatch.clone(), Arc::clone(&self.hub));
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .on_thread_start(move || {
                let hub = HubSwitchGuard::new(Arc::new(Hub::new_from_top(&hub)));
                GUARDS.set(Some((dispatcher::set_default(&dispatch), hub)));
            })
            .on_thread_stop(|| drop(GUARDS.take()))
            .build()
            .unwrap()
    }

    /// Takes what Sentry received so far, as it is sent.
    pub(crate) fn written(&self) -> String {
        let envelopes = self.transport.0.fetch_and_clear_envelopes();
        let bytes = envelopes.iter().flat_map(wire::bytes);
        String::from_utf8(bytes.collect()).unwrap()
    }

    /// Takes what Sentry received so far.
    pub(crate) fn received(&self) -> Received {
        Received::new(&self.transport.0.fetch_and_clear_envelopes())
    }
}
