//! A Sentry client, a subscriber, and what the application of a plan holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use sentry::integrations::panic::PanicIntegration;
use sentry::protocol::Event;
use sentry::{
    Client, ClientOptions, Envelope, Hub, SessionMode, TransactionContext, TransactionOrSpan,
    Transport, TransportFactory, TransportOptions,
};
use sentry_tonic::{
    PanicPolicy, SentryClientLayer, SentryServerLayer, SentrySpanExt, SentryTracingLayer,
    TraceTransport,
};
use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Span, dispatcher, info_span};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use crate::calls::Task;
use crate::headers::KNOWN;
use crate::plan::{AROUND, HubMode, Number, Setup};

const DSN: &str = "https://public@sentry.invalid/1";

/// The name of the last transaction, which takes reports of lost data along.
pub(crate) const LAST: &str = "last";

/// The operation of transactions that the application makes.
pub(crate) const OWN: &str = "own";

/// How a client samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    None,
    Half,
    All,
    /// Tracing is disabled.
    Off,
}

pub(crate) const RATES: [Rate; 4] = [Rate::None, Rate::Half, Rate::All, Rate::Off];

/// What was seen, apart from what was sent.
pub(crate) type Seen = Arc<Mutex<Vec<Value>>>;

/// Things by their numbers.
pub(crate) struct Slots<T>(Mutex<BTreeMap<Number, T>>);

pub(crate) struct World {
    sent: Arc<Sent>,
    pub(crate) seen: Seen,
    client: Arc<Client>,
    pub(crate) hub: Arc<Hub>,
    /// Whether each thread has the hub, or a fork of it, for its current one.
    pub(crate) is_hub_current: bool,
    pub(crate) dispatch: Dispatch,
    pub(crate) server: SentryServerLayer,
    pub(crate) client_layer: SentryClientLayer,
    pub(crate) spans: Slots<Span>,
    pub(crate) hubs: Slots<Arc<Hub>>,
    pub(crate) app_spans: Slots<TransactionOrSpan>,
    pub(crate) tasks: Slots<Task>,
    pub(crate) entered: Mutex<Vec<(ThreadId, Number, Span)>>,
}

/// A transport that keeps each envelope as it is written.
#[derive(Default)]
struct Sent(Mutex<Vec<Vec<u8>>>);

impl Transport for Sent {
    fn send_envelope(&self, envelope: Envelope) {
        let mut bytes = vec![];
        if envelope.to_writer(&mut bytes).is_ok() {
            lock(&self.0).push(bytes);
        }
    }
}

struct SentFactory(Arc<Sent>);

impl TransportFactory for SentFactory {
    fn create_transport_with_options(&self, _: TransportOptions) -> Arc<dyn Transport> {
        Arc::clone(&self.0) as _
    }
}

impl<T> Slots<T> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    pub(crate) fn put(&self, number: Number, value: T) {
        let before = lock(&self.0).insert(number, value);
        drop(before);
    }

    pub(crate) fn take(&self, number: Number) -> Option<T> {
        lock(&self.0).remove(&number)
    }

    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        drop(all);
    }
}

impl<T: Clone> Slots<T> {
    pub(crate) fn get(&self, number: Number) -> Option<T> {
        lock(&self.0).get(&number).cloned()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(setup: &Setup, seed: u64, rate: Rate) -> Arc<Self> {
        let (sent, seen) = (Arc::new(Sent::default()), Seen::default());
        let options = options(setup, seed, rate, &sent, &seen);
        let client = Arc::new(Client::with_options(options));
        let hub = match setup.hub {
            HubMode::Main => {
                Hub::main().bind_client(Some(Arc::clone(&client)));
                Hub::main()
            }
            _ => Arc::new(Hub::new(Some(Arc::clone(&client)), Arc::default())),
        };
        let app_spans = Slots::new();
        if setup.is_around {
            let context = TransactionContext::new("around", OWN);
            let around: TransactionOrSpan = hub.start_transaction(context).into();
            hub.configure_scope(|scope| scope.set_span(Some(around.clone())));
            app_spans.put(AROUND, around);
        }
        let subscriber = registry().with(layer(setup, &hub));
        Arc::new(Self {
            sent,
            seen,
            client,
            is_hub_current: matches!(setup.hub, HubMode::Current | HubMode::PinnedAndCurrent),
            hub,
            dispatch: subscriber.into(),
            server: SentryServerLayer::new()
                .force_transaction(setup.force_transaction)
                .panic_policy(match setup.panic_policy {
                    0 => PanicPolicy::ReturnInternal,
                    1 => PanicPolicy::ResumeUnwind,
                    _ => PanicPolicy::Ignore,
                }),
            client_layer: SentryClientLayer::new()
                .propagate_traceparent(setup.traceparent)
                .only_if_parent(setup.only_if_parent),
            spans: Slots::new(),
            hubs: Slots::new(),
            app_spans,
            tasks: Slots::new(),
            entered: Mutex::default(),
        })
    }

    pub(crate) fn saw(&self, what: Value) {
        lock(&self.seen).push(what);
    }

    /// Drops all that the application holds.
    pub(crate) fn clear(&self) {
        self.tasks.clear();
        self.spans.clear();
        self.app_spans.clear();
        self.hubs.clear();
    }

    /// Closes the client; returns the envelopes that it sent.
    pub(crate) fn close(&self) -> Vec<Vec<u8>> {
        self.hub.configure_scope(sentry::Scope::clear);
        let last = || {
            dispatcher::with_default(&self.dispatch, || {
                // Envelopes of the client, and of whatever else counts losses.
                sentry::capture_message(LAST, sentry::Level::Info);
                let span = info_span!(target: "app", parent: None, LAST);
                let header = format!("{KNOWN}{:024x}-{:016x}-1", 1, 1);
                let _ = span.continue_trace([("sentry-trace", header.as_str())]);
                span.in_scope(|| {});
            });
        };
        Hub::run(Arc::new(Hub::new_from_top(&self.hub)), last);
        self.client.close(None);
        if Arc::ptr_eq(&self.hub, &Hub::main()) {
            self.hub.bind_client(None);
        }
        std::mem::take(&mut *lock(&self.sent.0))
    }
}

/// Some of what the crate does depends on whether the process ever had a `TraceTransport`. So no
/// tree depends on those before it.
pub(crate) fn install_trace_transport() {
    let transport = TraceTransport::new(SentFactory(Arc::default()));
    drop(Client::with_options(
        ClientOptions::new().dsn(DSN).transport(transport),
    ));
}

fn layer(setup: &Setup, hub: &Arc<Hub>) -> SentryTracingLayer {
    let mut layer = SentryTracingLayer::new()
        .span_level(LevelFilter::from_level(setup.span_level))
        .breadcrumb_level(LevelFilter::from_level(setup.breadcrumb_level))
        .capture_errors(setup.capture_errors)
        .deduplicate_errors(setup.deduplicate)
        .tag_params(["table"]);
    if matches!(setup.hub, HubMode::Pinned | HubMode::PinnedAndCurrent) {
        layer = layer.hub(Arc::clone(hub));
    }
    if let Some(duration) = setup.parts {
        layer = layer.max_transaction_duration(duration);
    }
    layer
}

fn options(setup: &Setup, seed: u64, rate: Rate, sent: &Arc<Sent>, seen: &Seen) -> ClientOptions {
    let mut options = ClientOptions::new()
        .dsn(DSN)
        .default_integrations(false)
        .server_name("server")
        .max_breadcrumbs(setup.max_breadcrumbs)
        .send_default_pii(setup.pii)
        .auto_session_tracking(setup.sessions)
        .session_mode(SessionMode::Request)
        // Room for all.
        .transport_channel_capacity(100_000);
    options = match setup.has_trace_transport {
        true => options.transport(TraceTransport::new(SentFactory(Arc::clone(sent)))),
        false => options.transport(SentFactory(Arc::clone(sent))),
    };
    if setup.release {
        options = options.release("app@1.0").environment("test");
    }
    if setup.panic_integration {
        options = options.add_integration(PanicIntegration::new());
    }
    if setup.before_send {
        options = options.before_send(|event| (!is_dropped(&event)).then_some(event));
    }
    if setup.before_breadcrumb {
        options = options.before_breadcrumb(|mut breadcrumb| {
            let message = breadcrumb.message.as_mut()?;
            message.push_str(" (seen)");
            (!message.contains('7')).then_some(breadcrumb)
        });
    }
    match rate {
        Rate::Off => options,
        Rate::None if !setup.by_sampler => options.traces_sample_rate(0.0),
        Rate::All if !setup.by_sampler => options.traces_sample_rate(1.0),
        _ => {
            let seen = Arc::clone(seen);
            options.traces_sampler(move |context| {
                lock(&seen).push(json!({
                    "sampler": [context.name(), context.operation()],
                    "sampled": context.sampled(),
                    "custom": context.custom(),
                }));
                sampled(context, seed, rate)
            })
        }
    }
}

/// Decides by the seed. At a rate that is neither 0 nor 1, `sample_rand` decides: that is random
/// for a trace that begins here, and for a transaction of the application.
fn sampled(context: &TransactionContext, seed: u64, rate: Rate) -> f32 {
    let is_own = context.operation() == OWN;
    match rate {
        _ if context.name() == LAST => 1.0,
        Rate::Half if !is_own && context.trace_id().to_string().starts_with(KNOWN) => 0.5,
        Rate::Half => {
            let hash = context.name().bytes().fold(seed, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            f32::from((hash >> 20) as u8 & 1)
        }
        Rate::All => 1.0,
        Rate::None | Rate::Off => 0.0,
    }
}

fn is_dropped(event: &Event<'_>) -> bool {
    let exceptions = event.exception.values.iter();
    let texts = exceptions.filter_map(|exception| exception.value.as_deref());
    texts
        .chain(event.message.as_deref())
        .any(|text| text.contains('7'))
}
