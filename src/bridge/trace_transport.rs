//! A transport that does not lose what envelopes say of their trace.

use std::any::type_name_of_val;
use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sentry_core::types::Uuid;
use sentry_core::{Envelope, Transport, TransportFactory, TransportOptions};

use crate::bridge::outbox::{EndKind, Outbox};
use crate::bridge::trail::Trail;

/// That of sentry's transports.
const DEFAULT_CAPACITY: usize = 30;

/// What sentry's transports are given at once: to wait for each costs as much as to send it,
/// and of more, a client that has gone would have to wait for the last.
const AT_ONCE: usize = 8;

/// Events that were dropped on their way are not waited for any longer.
const MAX_EXPECTED: usize = 8;

/// Whether there is a transport to look for what events leave here.
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Events that are being captured on this thread, and the roots that they
    /// belong to: capturing and sending are one call. `before_send` may capture
    /// another one meanwhile, or drop the first.
    static EXPECTED: RefCell<Vec<(Uuid, Weak<Trail>)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn is_installed() -> bool {
    IS_INSTALLED.load(Ordering::Relaxed)
}

/// Remembers the root of an event that is about to be sent on this thread.
pub(crate) fn expect_event(id: Uuid, trail: &Arc<Trail>) {
    if is_installed() {
        let _ = EXPECTED.try_with(|expected| {
            let mut expected = expected.borrow_mut();
            let surplus = (expected.len() + 1).saturating_sub(MAX_EXPECTED);
            expected.drain(..surplus);
            expected.push((id, Arc::downgrade(trail)));
        });
    }
}

fn take_expected(id: Uuid) -> Option<Arc<Trail>> {
    let found = EXPECTED.try_with(|expected| {
        let mut expected = expected.borrow_mut();
        let index = expected.iter().position(|(expected, _)| *expected == id)?;
        Some(expected.remove(index).1)
    });
    found.ok()??.upgrade()
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
/// This transport writes such envelopes out, on a thread of its own, which hands
/// them to the inner one. All other envelopes go through as they are, in their order.
/// The thread comes for the first of them at once, and for what follows a hundred times a
/// second, or where a quarter of the room is taken or 32 of them wait.
///
/// Up to `ClientOptions::transport_channel_capacity` of them wait, 30 if that is not
/// set ([1000 is better](crate#at-high-rates)); what comes while there is no room is lost,
/// and reported to Sentry as lost to a `queue_overflow`. The inner transport gets one at a
/// time, or up to eight where it is sentry's `DefaultTransportFactory` that makes it, whose
/// queue has room for them. Client reports go on with an envelope that is not written out,
/// with a flush,
/// or by themselves after half a minute.
///
/// Of what is written out, the inner transport knows but the bytes. It obeys only
/// rate limits that cover all kinds of data; Sentry enforces the others on arrival,
/// and counts what it refuses. What is lost to the network, or to limits that cover
/// everything, is not reported.
///
/// What was sent has left with [`Client::flush`](sentry_core::Client::flush) and
/// [`Client::close`](sentry_core::Client::close), also with transports that keep nothing
/// waiting, such as those for tests.
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

impl TransportFactory for TraceTransport {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        IS_INSTALLED.store(true, Ordering::Relaxed);
        let capacity = options.transport_channel_capacity;
        let recorder = options.client_report_recorder.clone();
        let inner = self.inner.create_transport_with_options(options);
        let capacity = capacity.map_or(DEFAULT_CAPACITY, NonZeroUsize::get);
        let at_once = match self.is_inner_of_sentry {
            true => AT_ONCE.min(capacity),
            false => 1,
        };
        Arc::new(OutboxTransport {
            outbox: Outbox::new(inner, capacity, at_once, recorder),
        })
    }
}

/// Whether its transports have a queue of the capacity that the options say. What others
/// have is not known. A name that is not recognized makes things slow, and loses nothing.
fn is_of_sentry(factory: &impl TransportFactory) -> bool {
    type_name_of_val(factory).starts_with("sentry::transports::")
}

struct OutboxTransport {
    outbox: Outbox,
}

impl Transport for OutboxTransport {
    fn send_envelope(&self, envelope: Envelope) {
        self.outbox.send(with_trace_of_event(envelope));
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.outbox.end(EndKind::Flush, timeout)
    }

    fn shutdown(&self, timeout: Duration) -> bool {
        self.outbox.end(EndKind::Shutdown, timeout)
    }
}

/// Gives the envelope of an error the context of the root that it belongs to.
fn with_trace_of_event(envelope: Envelope) -> Envelope {
    let Some(event_id) = envelope.event().map(|event| event.event_id) else {
        return envelope;
    };
    let context = take_expected(event_id).and_then(|trail| trail.sampling_context(None).envelope());
    match context {
        Some(context) => {
            let headers = envelope.headers().clone().with_trace(context);
            envelope.with_headers(headers)
        }
        None => envelope,
    }
}
