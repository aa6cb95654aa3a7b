//! A transport that keeps the sampling context of envelopes.

use std::any::type_name_of_val;
use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sentry_core::protocol::DynamicSamplingContext;
use sentry_core::types::Uuid;
use sentry_core::{Envelope, Transport, TransportFactory, TransportOptions};

use crate::send::handover::{self, Found};
use crate::send::http_layer;
use crate::send::queue::{EndKind, SendQueue};

/// The default capacity of sentry's transports.
const DEFAULT_CAPACITY: usize = 30;

/// How many envelopes sentry's transports are given at once. Waiting for each would cost as much
/// as sending it; and with more, the end of a client would have to wait for more.
const AT_ONCE: usize = 8;

/// Older events were dropped on their way, and are forgotten.
const MAX_EXPECTED: usize = 8;

/// Whether there is a transport that takes expected events.
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Events that are being captured on this thread, and the sampling contexts of their traces:
    /// capturing and sending are one call. `before_send` may capture another one meanwhile, or
    /// drop the first.
    static EXPECTED: RefCell<Vec<(Uuid, DynamicSamplingContext)>> =
        const { RefCell::new(Vec::new()) };
}

pub(crate) fn is_installed() -> bool {
    IS_INSTALLED.load(Ordering::Relaxed)
}

/// Remembers the sampling context for an event that is about to be sent on this thread.
pub(crate) fn expect_event(id: Uuid, context: impl FnOnce() -> Option<DynamicSamplingContext>) {
    if is_installed()
        && let Some(context) = context()
    {
        let _ = EXPECTED.try_with(|expected| {
            let mut expected = expected.borrow_mut();
            let surplus = (expected.len() + 1).saturating_sub(MAX_EXPECTED);
            expected.drain(..surplus);
            expected.push((id, context));
        });
    }
}

fn take_expected(id: Uuid) -> Option<DynamicSamplingContext> {
    let found = EXPECTED.try_with(|expected| {
        let mut expected = expected.borrow_mut();
        let index = expected.iter().position(|(expected, _)| *expected == id)?;
        Some(expected.remove(index).1)
    });
    found.ok().flatten()
}

/// Wraps the transport of a Sentry client, so that transactions and errors reach
/// Sentry with the [sampling context of their trace][dsc].
///
/// sentry 0.49 makes that context, the `trace` header of an envelope, and drops
/// it again: its transports pass each envelope through
/// [`Envelope::filter`](sentry_core::Envelope), which keeps none of the headers
/// but `event_id`. Sentry then takes each service's part of a trace for a trace
/// of its own when it samples and when it extrapolates counts.
///
/// This transport hands such envelopes to the inner transport as bytes. Transactions of this crate
/// are written as they end, on the thread where they end; other envelopes are serialized on a
/// thread of this transport. All without a sampling context go through as they are. The order stays. The thread
/// takes the first envelope at once, and those that follow a hundred times a second, or as soon
/// as a quarter of the room is taken or 32 of them wait.
///
/// The queue has room for `ClientOptions::transport_channel_capacity` of them, or for 30 if that
/// is not set; `sentry_tonic::init` sets 1000. Envelopes that do not fit are dropped, and counted
/// as `queue_overflow` in a client report. The inner transport gets one
/// at a time, or up to eight where sentry's `DefaultTransportFactory` makes it, whose queue has
/// room for them. Client reports go out with an envelope that is not serialized, with a flush,
/// or by themselves after half a minute.
///
/// Of a serialized envelope, the inner transport knows only the bytes. It obeys only
/// rate limits that cover all kinds of data; Sentry enforces the others on arrival,
/// and counts what it refuses. What is lost to the network, or to limits that cover
/// everything, is not reported.
///
/// [`Client::flush`](sentry_core::Client::flush) and
/// [`Client::close`](sentry_core::Client::close) wait for this queue, too, whatever the inner
/// transport is: a test transport has all envelopes only after a flush.
///
/// ```
/// use sentry_tonic::TraceTransport;
///
/// let options = sentry::ClientOptions::new()
///     .transport(TraceTransport::new(sentry::transports::DefaultTransportFactory));
/// # let _ = options;
/// ```
///
/// [dsc]: https://develop.sentry.dev/sdk/foundations/trace-propagation/dynamic-sampling-context/
#[derive(Clone)]
pub struct TraceTransport {
    inner: Arc<dyn TransportFactory>,
    is_inner_of_sentry: bool,
}

impl TraceTransport {
    /// Wraps the transport that `inner` makes.
    #[must_use]
    pub fn new(inner: impl TransportFactory + 'static) -> Self {
        Self {
            is_inner_of_sentry: is_of_sentry(&inner),
            inner: Arc::new(inner),
        }
    }
}

impl fmt::Debug for TraceTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceTransport").finish_non_exhaustive()
    }
}

impl Drop for TraceTransport {
    fn drop(&mut self) {
        handover::remove_factory(self);
    }
}

impl TransportFactory for TraceTransport {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        IS_INSTALLED.store(true, Ordering::Relaxed);
        handover::add_factory(self);
        let capacity = options.transport_channel_capacity;
        let recorder = options.client_report_recorder.clone();
        let inner = self.inner.create_transport_with_options(options);
        let capacity = capacity.map_or(DEFAULT_CAPACITY, NonZeroUsize::get);
        let at_once = match self.is_inner_of_sentry {
            true => AT_ONCE.min(capacity),
            false => 1,
        };
        Arc::new(QueueTransport {
            queue: SendQueue::new(inner, capacity, at_once, recorder),
        })
    }
}

/// Whether the factory makes sentry's transports, whose queues have the capacity in the options.
/// What others have is not known. A type that is not recognized is sent one envelope at a time:
/// slower, but nothing is lost.
fn is_of_sentry(factory: &impl TransportFactory) -> bool {
    type_name_of_val(factory).starts_with("sentry::transports::")
}

struct QueueTransport {
    queue: SendQueue,
}

impl Transport for QueueTransport {
    fn send_envelope(&self, envelope: Envelope) {
        match handover::take(self.queue.recorder()) {
            Found::Transaction(transaction) => self.queue.send_written(transaction, &envelope),
            // All that may be in it is a client report.
            Found::Question => self.queue.keep_losses(&envelope),
            Found::Nothing => {
                http_layer::look_at(&envelope);
                self.queue.send(with_trace_of_event(envelope));
            }
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.queue.end(EndKind::Flush, timeout)
    }

    fn shutdown(&self, timeout: Duration) -> bool {
        self.queue.end(EndKind::Shutdown, timeout)
    }
}

/// Adds the sampling context of its root to the envelope of an error.
fn with_trace_of_event(envelope: Envelope) -> Envelope {
    let Some(event_id) = envelope.event().map(|event| event.event_id) else {
        return envelope;
    };
    match take_expected(event_id) {
        Some(context) => {
            let headers = envelope.headers().clone().with_trace(context);
            envelope.with_headers(headers)
        }
        None => envelope,
    }
}
