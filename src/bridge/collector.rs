//! Sends transactions with the sampling context of their trace.
//!
//! sentry-core neither takes a sampling context for a transaction, nor a sampling decision that
//! was made elsewhere. So each transaction is started on a second client, which samples everything
//! and has no other options. Its transport joins the transaction to what this crate keeps of it,
//! and sends both by the real client.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use sentry_core::client_report::{Reason as LossReason, Recorder};
use sentry_core::protocol::client_report::{Category, Item, Reason};
use sentry_core::protocol::{ClientReport, Context, EnvelopeItem, Transaction};
use sentry_core::{
    Client, ClientOptions, Envelope, Hub, TracesSamplingStrategy, TransactionContext, Transport,
    TransportFactory, TransportOptions,
};
use tracing::debug;

use crate::bridge::due::Due;
use crate::bridge::duration;
use crate::bridge::parts;
use crate::bridge::trails;
use crate::fields;
use crate::propagation;
use crate::report;
use crate::send::{self, ClientInfo, Records, SegmentTransaction};
use crate::span_ext::guarded;

/// How often unsampled transactions are reported, where no sampled one takes the report along.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// The loss of a transaction that is not sampled: it counts as a span, too.
static NOT_SAMPLED: LazyLock<ClientReport> = LazyLock::new(|| {
    let categories = [Category::Transaction, Category::Span];
    ClientReport::new(categories.map(|category| Item::new(category, Reason::SampleRate, 1)))
});

/// The second client of a real one.
#[derive(Debug)]
pub(crate) struct Collector {
    real: Weak<Client>,
    /// A hub with the second client.
    hub: Arc<Hub>,
    /// Counts what the real client loses; `None` where its transport is not of this crate.
    recorder: Option<Recorder>,
    made_at: Instant,
    /// In milliseconds from `made_at`.
    report_due: Due,
}

thread_local! {
    /// The one that this thread has used last: most processes have one client.
    static LAST: RefCell<Option<(Weak<Client>, Weak<Collector>)>> = const { RefCell::new(None) };
}

/// One for each client that is alive.
static COLLECTORS: RwLock<Vec<(Weak<Client>, Arc<Collector>)>> = RwLock::new(Vec::new());

impl Collector {
    /// The collector of `client`; `None` where it cannot be made.
    pub(crate) fn of(client: &Arc<Client>) -> Option<Arc<Self>> {
        if let Some(last) = last(client) {
            return Some(last);
        }
        let found = find(client).or_else(|| Self::make(client))?;
        let last = (Arc::downgrade(client), Arc::downgrade(&found));
        let _ = LAST.try_with(|known| known.replace(Some(last)));
        Some(found)
    }

    fn make(client: &Arc<Client>) -> Option<Arc<Self>> {
        // No lock is held meanwhile; of two threads that meet here, the first
        // to be done wins.
        let made = guarded(|| Arc::new(Self::new(client)))?;
        let mut collectors = COLLECTORS.write().unwrap_or_else(PoisonError::into_inner);
        let found = position(&collectors, client).and_then(|index| collectors.get(index));
        Some(match found {
            Some((_, collector)) => {
                let collector = Arc::clone(collector);
                drop(collectors);
                drop(made);
                collector
            }
            None => {
                collectors.push((Arc::downgrade(client), Arc::clone(&made)));
                made
            }
        })
    }

    fn new(real: &Arc<Client>) -> Self {
        if !send::is_trace_transport_installed() {
            debug!(
                target: fields::TARGET,
                "without a TraceTransport, sentry's transports drop the sampling \
                 context of transactions"
            );
        }
        let known = real.options();
        // Nothing else: sentry-core would copy it into each transaction.
        let mut options = ClientOptions::new();
        options.dsn.clone_from(&known.dsn);
        // sentry-core looks for it in the DSN as each transaction starts.
        options.org_id = propagation::org_id(known);
        options.traces_sampling_strategy = TracesSamplingStrategy::FixedRate(1.0);
        options.transport = Some(Arc::new(Forwarder {
            real: Arc::downgrade(real),
            known: OnceLock::new(),
        }));
        let client = Client::with_options(options);
        Self {
            real: Arc::downgrade(real),
            hub: Arc::new(Hub::new(Some(Arc::new(client)), Arc::default())),
            recorder: send::recorder_of(real),
            made_at: Instant::now(),
            report_due: Due::default(),
        }
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Counts a transaction that is not sampled. `hub` is that of its root.
    pub(crate) fn discard(&self, hub: &Hub) {
        let Some(real) = self.real.upgrade() else {
            return;
        };
        guarded(|| match &self.recorder {
            // The report has a reason of its own.
            Some(recorder) => recorder.record_lost_data(&*NOT_SAMPLED, LossReason::InternalError),
            // The real client would ask its sampler.
            None if has_sampler(&real) => self.discard_here(),
            None => match hub.client() {
                Some(client) if Arc::ptr_eq(&client, &real) => discard_by(hub),
                _ => discard_by(&Hub::new(Some(real), Arc::default())),
            },
        });
    }

    /// Has the second client count a transaction that is not sampled, and report what it has
    /// counted once in a while: most of the time, a sampled transaction takes the report along.
    fn discard_here(&self) {
        discard_by(&self.hub);
        let [now, interval] = [self.made_at.elapsed(), REPORT_INTERVAL]
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        if self.report_due.has_come(now, interval)
            && let Some(client) = self.hub.client()
        {
            // A client adds its pending report to any envelope, even an empty one.
            client.send_envelope(Envelope::new());
        }
    }
}

/// Has sentry-core count a transaction that is not sampled.
fn discard_by(hub: &Hub) {
    let mut context = TransactionContext::new("", "");
    context.set_sampled(Some(false));
    hub.start_transaction(context).finish();
}

fn has_sampler(client: &Client) -> bool {
    let strategy = &client.options().traces_sampling_strategy;
    matches!(strategy, TracesSamplingStrategy::Function(_))
}

fn last(client: &Arc<Client>) -> Option<Arc<Collector>> {
    let last = LAST.try_with(|last| {
        let last = last.borrow();
        let (of, collector) = last.as_ref()?;
        is_of(of, client).then(|| collector.upgrade())
    });
    last.ok()??
}

fn find(client: &Arc<Client>) -> Option<Arc<Collector>> {
    let (found, has_gone) = {
        let collectors = COLLECTORS.read().unwrap_or_else(PoisonError::into_inner);
        let found = position(&collectors, client).and_then(|index| collectors.get(index));
        let has_gone = collectors.iter().any(|(client, _)| is_gone(client));
        (found.map(|(_, collector)| Arc::clone(collector)), has_gone)
    };
    if has_gone {
        // Dropping a client waits for its threads: not under the lock.
        drop(take_gone());
    }
    found
}

fn is_gone(client: &Weak<Client>) -> bool {
    client.strong_count() == 0
}

fn take_gone() -> Vec<(Weak<Client>, Arc<Collector>)> {
    let mut collectors = COLLECTORS.write().unwrap_or_else(PoisonError::into_inner);
    collectors
        .extract_if(.., |(client, _)| is_gone(client))
        .collect()
}

fn position(collectors: &[(Weak<Client>, Arc<Collector>)], client: &Arc<Client>) -> Option<usize> {
    collectors.iter().position(|(real, _)| is_of(real, client))
}

/// Whether both are the same client. A weak reference keeps the address from being used again.
fn is_of(real: &Weak<Client>, client: &Arc<Client>) -> bool {
    std::ptr::eq(real.as_ptr(), Arc::as_ptr(client))
}

/// The transport of a collector.
struct Forwarder {
    real: Weak<Client>,
    known: OnceLock<KnownClient>,
}

/// What is known of the real client since its first transaction.
struct KnownClient {
    info: ClientInfo,
    /// Whether its transport takes written transactions.
    takes_offers: bool,
}

impl TransportFactory for Forwarder {
    fn create_transport_with_options(&self, _: TransportOptions) -> Arc<dyn Transport> {
        Arc::new(Self {
            real: Weak::clone(&self.real),
            known: OnceLock::new(),
        })
    }
}

impl Transport for Forwarder {
    fn send_envelope(&self, envelope: Envelope) {
        let Some(real) = self.real.upgrade() else {
            return;
        };
        // Client reports.
        let mut rest = Envelope::new();
        let mut transaction = None;
        for item in envelope.into_items() {
            match item {
                EnvelopeItem::Transaction(own) => transaction = Some(own),
                item => rest.add_item(item),
            }
        }
        match transaction {
            Some(transaction) => self.forward(&real, transaction, rest),
            None if rest.items().next().is_some() => real.send_envelope(rest),
            None => {}
        }
    }
}

impl Forwarder {
    /// Sends a transaction by the real client, with `beside` in its envelope.
    fn forward(&self, real: &Client, mut set: Box<Transaction<'static>>, beside: Envelope) {
        let sdk = set.sdk.take().map(Cow::into_owned);
        let KnownClient { info, takes_offers } = self.known.get_or_init(|| KnownClient {
            info: ClientInfo::new(real, sdk),
            takes_offers: send::takes_offers(real),
        });
        repair(&mut set);
        let transaction = completed(set);
        let mut beside = Some(beside);
        if *takes_offers && let Ok(written) = transaction.to_json(info, report::now()) {
            let send = || real.send_envelope(beside.take().unwrap_or_default());
            if send::offer(written, send) {
                return;
            }
        }
        let mut envelope = transaction.into_typed(info);
        let beside = beside.into_iter().flat_map(Envelope::into_items);
        beside.for_each(|item| envelope.add_item(item));
        real.send_envelope(envelope);
    }
}

/// Joins a transaction to what is known of its segment.
fn completed(set: Box<Transaction<'static>>) -> SegmentTransaction {
    let trace = match set.contexts.get("trace") {
        Some(Context::Trace(trace)) => Some(&**trace),
        _ => None,
    };
    let found = || {
        // The application has finished the transaction itself. Where the scope has a trace context
        // of its own, the parents of the spans lead to the transaction.
        let parents = set.spans.iter().filter_map(|span| span.parent_span_id);
        let by_own = trace.and_then(trails::find_by);
        let trail = by_own.or_else(|| parents.into_iter().find_map(trails::find))?;
        let own = trace.filter(|trace| parts::is_part_of(trace, trail.root_id()));
        let id = own.map_or_else(|| trail.root_id(), |own| own.span_id);
        Some((trail, id))
    };
    let Some((trail, id)) = trails::take_sending().or_else(found) else {
        return SegmentTransaction::new(set, Records::default(), None, None);
    };
    let is_own = trace.is_some_and(|trace| trace.span_id == id);
    let root = trail.root_if_kept();
    let records = root.as_ref().map(|root| root.take_records(id));
    if let Some(root) = trail.root() {
        root.hand_on(id, &set);
    }
    let name = set.name.as_deref().filter(|name| !name.is_empty());
    let sampling = is_own.then(|| trail.sampling_context(name).envelope());
    let own = is_own.then(|| trail.take_segment_facts());
    SegmentTransaction::new(set, records.unwrap_or_default(), own, sampling.flatten())
}

/// Makes no span end before it starts: Sentry would reject the whole transaction.
fn repair(transaction: &mut Transaction<'_>) {
    if let Some(ended_at) = &mut transaction.timestamp {
        *ended_at = duration::end(transaction.start_timestamp, *ended_at);
    }
    for span in &mut transaction.spans {
        if let Some(ended_at) = &mut span.timestamp {
            *ended_at = duration::end(span.start_timestamp, *ended_at);
        }
    }
}
