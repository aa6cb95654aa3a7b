//! The part of a trace that this process reports as one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use sentry_core::{
    Client, Hub, TransactionContext, TransactionOrSpan, start_transaction_with_timestamp,
};

use crate::bridge::hub_slot::HubSlot;
use crate::bridge::thread_guard::guarded;
use crate::bridge::trail::Trail;
use crate::propagation::IncomingTrace;

/// Shared by all spans of a local root.
#[derive(Debug)]
pub(crate) struct LocalRoot {
    /// The transaction; where the root is a span inside a transaction of the
    /// application, that span.
    pub(crate) span: TransactionOrSpan,
    /// Whether the spans in it are worth making.
    pub(crate) is_sampled: bool,
    /// Whether the root is the span of an RPC.
    pub(crate) is_rpc: bool,
    pub(crate) main: Arc<HubSlot>,
    pub(crate) trail: Arc<Trail>,
    /// That of the hub when the root began. Kept apart from it, for sentry-core
    /// calls `before_breadcrumb` with its hub locked, and what is traced there
    /// as a breadcrumb comes by here.
    pub(crate) client: Option<Arc<Client>>,
    /// Recorded spans inside, not counting the root's, that have not finished.
    open: AtomicUsize,
}

/// How to begin a local root.
#[derive(Debug)]
pub(crate) struct RootStart<'a> {
    pub(crate) base: &'a Arc<Hub>,
    /// A span of the application to go on from.
    pub(crate) inside: Option<&'a TransactionOrSpan>,
    pub(crate) name: &'a str,
    pub(crate) op: &'a str,
    pub(crate) origin: &'a str,
    pub(crate) incoming: Option<&'a IncomingTrace>,
    pub(crate) started_at: SystemTime,
    /// Service and method.
    pub(crate) rpc: Option<(&'a str, &'a str)>,
}

impl LocalRoot {
    pub(crate) fn begin(start: &RootStart<'_>) -> Self {
        let hub = Arc::new(Hub::new_from_top(start.base));
        let trail = Arc::new(Trail::default());
        if let Some((service, method)) = start.rpc {
            trail.set_rpc(service, method);
        }
        let (span, is_sampled) = match start.inside {
            Some(parent) => {
                let span = parent.start_child_with_details(
                    start.op,
                    start.name,
                    Default::default(),
                    start.started_at,
                );
                (span.into(), is_sampled(parent))
            }
            None => {
                trail.set_transaction(start.name);
                begin_transaction(&hub, start)
            }
        };
        let client = hub.client();
        let max_breadcrumbs = client
            .as_ref()
            .map_or(0, |client| client.options().max_breadcrumbs);
        hub.configure_scope(|scope| {
            if start.inside.is_none() {
                scope.clear_breadcrumbs();
            }
            scope.set_span(Some(span.clone()));
            scope.add_event_processor(trail.processor(max_breadcrumbs));
        });
        Self {
            span,
            is_sampled,
            is_rpc: start.rpc.is_some(),
            main: Arc::new(HubSlot::new(hub)),
            trail,
            client,
            open: AtomicUsize::new(0),
        }
    }

    /// A hub for a thread that finds `busy` in use on another thread.
    pub(crate) fn fork(&self, busy: &HubSlot) -> Arc<HubSlot> {
        let hub = Hub::new_from_top(&busy.hub);
        hub.configure_scope(|scope| scope.set_span(Some(self.span.clone())));
        Arc::new(HubSlot::new(Arc::new(hub)))
    }

    pub(crate) fn sends_pii(&self) -> bool {
        let client = self.client.as_ref();
        client.is_some_and(|client| client.options().send_default_pii)
    }

    pub(crate) fn child_opened(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether it was the last.
    pub(crate) fn child_finished(&self) -> bool {
        self.open.fetch_sub(1, Ordering::SeqCst) == 1
    }

    pub(crate) fn has_open_children(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }
}

fn begin_transaction(hub: &Arc<Hub>, start: &RootStart<'_>) -> (TransactionOrSpan, bool) {
    let context = match start.incoming {
        Some(incoming) => {
            TransactionContext::continue_from_headers(start.name, start.op, incoming.headers())
        }
        None => TransactionContext::new(start.name, start.op),
    };
    let begin = || {
        Hub::run(Arc::clone(hub), || {
            start_transaction_with_timestamp(context.clone(), start.started_at)
        })
    };
    // Where the application's sampler panics, the trace goes on unsampled, as
    // without a client.
    let transaction = guarded(begin)
        .unwrap_or_else(|| Hub::new(None, Arc::default()).start_transaction(context.clone()));
    transaction.set_origin(start.origin);
    let span = transaction.into();
    let is_sampled = is_sampled(&span);
    (span, is_sampled)
}

fn is_sampled(span: &TransactionOrSpan) -> bool {
    #[expect(
        deprecated,
        reason = "deprecated for propagation; tells exactly whether finishing will send"
    )]
    span.is_sampled()
}
