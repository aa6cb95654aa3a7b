//! Sends transactions with the sampling context of their trace.
//!
//! sentry-core neither takes a sampling context for a transaction, nor a sampling decision that
//! was made elsewhere. So each transaction is started on a second client, which samples
//! everything, and whose transport adds the context and hands the transaction to the real
//! client.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use sentry_core::protocol::{
    Context, DynamicSamplingContext, EnvelopeHeaders, EnvelopeItem, Transaction,
};
use sentry_core::{
    Client, Envelope, Hub, Integration, TracesSamplingStrategy, Transport, TransportFactory,
    TransportOptions,
};
use tracing::debug;

use crate::bridge::due::Due;
use crate::bridge::duration;
use crate::bridge::parts;
use crate::bridge::trace_transport;
use crate::bridge::trails;
use crate::fields;
use crate::propagation;
use crate::span_ext::guarded;

/// How often unsampled transactions are reported, where no sampled one takes the report along.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// The second client of a real one.
#[derive(Debug)]
pub(crate) struct Collector {
    /// A hub with the second client.
    hub: Arc<Hub>,
    client: Arc<Client>,
    made_at: Instant,
    /// In milliseconds from `made_at`.
    report_due: Due,
}

/// One for each client that is alive.
static COLLECTORS: RwLock<Vec<(Weak<Client>, Arc<Collector>)>> = RwLock::new(Vec::new());

impl Collector {
    /// The collector of `client`; `None` where it cannot be made.
    pub(crate) fn of(client: &Arc<Client>) -> Option<Arc<Self>> {
        if let Some(collector) = find(client) {
            return Some(collector);
        }
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
        if !trace_transport::is_installed() {
            debug!(
                target: fields::TARGET,
                "without a TraceTransport, sentry's transports drop the sampling \
                 context of transactions"
            );
        }
        let mut options = real.options().clone();
        // Transactions list the names of integrations; these themselves must not be set up twice.
        let named = |integration: &Arc<dyn Integration>| {
            Arc::new(NamedIntegration(integration.name())) as _
        };
        options.integrations = options.integrations.iter().map(named).collect();
        // sentry-core looks for it in the DSN as each transaction starts.
        options.org_id = propagation::org_id(&options);
        options.traces_sampling_strategy = TracesSamplingStrategy::FixedRate(1.0);
        options.transport = Some(Arc::new(Forwarder {
            real: Arc::downgrade(real),
        }));
        let client = Arc::new(Client::with_options(options));
        Self {
            hub: Arc::new(Hub::new(Some(Arc::clone(&client)), Arc::default())),
            client,
            made_at: Instant::now(),
            report_due: Due::default(),
        }
    }

    /// The second client: where options are asked for a sampling context, as good as the real one.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Has unsampled transactions reported to Sentry, once in a while.
    pub(crate) fn report_losses(&self) {
        let [now, interval] = [self.made_at.elapsed(), REPORT_INTERVAL]
            .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        if self.report_due.has_come(now, interval) {
            // A client adds its pending report to any envelope, even an empty one.
            guarded(|| self.client.send_envelope(Envelope::new()));
        }
    }
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
    // A weak reference keeps the address from being used again.
    let is_of_client = |real: &Weak<Client>| std::ptr::eq(real.as_ptr(), Arc::as_ptr(client));
    collectors.iter().position(|(real, _)| is_of_client(real))
}

/// Has the name of an integration that was set up for the real client.
struct NamedIntegration(&'static str);

impl Integration for NamedIntegration {
    fn name(&self) -> &'static str {
        self.0
    }
}

/// The transport of a collector.
struct Forwarder {
    real: Weak<Client>,
}

impl TransportFactory for Forwarder {
    fn create_transport_with_options(&self, _: TransportOptions) -> Arc<dyn Transport> {
        let real = Weak::clone(&self.real);
        Arc::new(Self { real })
    }
}

impl Transport for Forwarder {
    fn send_envelope(&self, envelope: Envelope) {
        let Some(real) = self.real.upgrade() else {
            return;
        };
        let mut forwarded = Envelope::new();
        for mut item in envelope.into_items() {
            if let EnvelopeItem::Transaction(transaction) = &mut item {
                if let Some(context) = complete(transaction) {
                    let headers = EnvelopeHeaders::new().with_trace(context);
                    forwarded = forwarded.with_headers(headers);
                }
                repair(transaction);
            }
            forwarded.add_item(item);
        }
        if forwarded.items().next().is_some() {
            real.send_envelope(forwarded);
        }
    }
}

/// Adds what is known of its call to a transaction, and returns the sampling context for its
/// envelope.
fn complete(transaction: &mut Transaction<'_>) -> Option<DynamicSamplingContext> {
    // Where the scope has a trace context of its own, the parents of the spans lead to the
    // transaction.
    let parents = transaction
        .spans
        .iter()
        .filter_map(|span| span.parent_span_id);
    let mut trace = match transaction.contexts.get_mut("trace") {
        Some(Context::Trace(trace)) => Some(trace),
        _ => None,
    };
    let found = || {
        // The application has finished the transaction itself.
        let by_own = trace.as_ref().and_then(|trace| trails::find_by(trace));
        let trail = by_own.or_else(|| parents.into_iter().find_map(trails::find))?;
        let own = trace
            .as_ref()
            .filter(|trace| parts::is_part_of(trace, trail.root_id()));
        let id = own.map_or_else(|| trail.root_id(), |own| own.span_id);
        Some((trail, id))
    };
    let (trail, id) = trails::take_sending().or_else(found)?;
    trace = trace.filter(|trace| trace.span_id == id);
    let is_named = trace.is_some();
    trail.complete(id, trace.map(Box::as_mut), &mut transaction.spans);
    if let Some(root) = trail.root() {
        root.hand_on(id, transaction);
    }
    let context = is_named.then(|| trail.sampling_context(transaction.name.as_deref()));
    context?.envelope()
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
