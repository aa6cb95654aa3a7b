//! Finds transactions that sentry-tower's `SentryHttpLayer` makes of gRPC calls.

use std::sync::atomic::{AtomicBool, Ordering};

use sentry_core::Envelope;
use sentry_core::protocol::{Context, EnvelopeItem, Request, Transaction};

/// The origin of its transactions, in sentry-tower 0.49.
const ORIGIN: &str = "auto.http.tower";

/// The content types of gRPC and grpc-web begin with it.
const GRPC: &str = "application/grpc";

/// Whether this process has sent such a transaction.
static IS_FOUND: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_found() -> bool {
    IS_FOUND.load(Ordering::Relaxed)
}

/// Looks at an envelope that is about to be sent.
pub(crate) fn look_at(envelope: &Envelope) {
    let is_one = |item: &EnvelopeItem| match item {
        EnvelopeItem::Transaction(transaction) => is_of_grpc(transaction),
        _ => false,
    };
    if !is_found() && envelope.items().any(is_one) {
        IS_FOUND.store(true, Ordering::Relaxed);
    }
}

/// Looks at the request of the transaction. The span on the scope is no substitute:
/// `SentryHttpLayer` sets it only after it has called the service inside, and a service that an
/// HTTP handler calls finds it there, too.
fn is_of_grpc(transaction: &Transaction<'_>) -> bool {
    // The transactions of this crate have no request.
    let request = transaction.request.as_ref();
    request.is_some_and(has_content_type) && has_origin(transaction)
}

fn has_content_type(request: &Request) -> bool {
    let value = request.headers.get("content-type");
    let start = value.and_then(|value| value.get(..GRPC.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

fn has_origin(transaction: &Transaction<'_>) -> bool {
    match transaction.contexts.get("trace") {
        Some(Context::Trace(trace)) => trace.origin.as_deref() == Some(ORIGIN),
        _ => false,
    }
}
