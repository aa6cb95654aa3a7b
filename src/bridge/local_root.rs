//! The part of a trace that this process reports as one transaction.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sentry_core::{Client, Hub, TransactionOrSpan};

use crate::bridge::begun::{Begun, RootStart};
use crate::bridge::collector::Collector;
use crate::bridge::hub_slot::HubSlot;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::trail::Trail;

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
    /// Of the client, where the root is a transaction that goes through it.
    collector: Option<Arc<Collector>>,
    /// Recorded spans inside, not counting the root's, that have not finished.
    open: AtomicUsize,
    /// The root's own span, once it has ended and only waits for those.
    waiting: Mutex<Option<Arc<SpanCell>>>,
}

impl LocalRoot {
    pub(crate) fn begin(start: &RootStart<'_>) -> Arc<Self> {
        let hub = Arc::new(Hub::new_from_top(start.base));
        let client = hub.client();
        let Begun {
            span,
            is_sampled,
            is_transaction,
            trace,
            collector,
        } = Begun::new(start, &hub, client.as_ref());
        let trail = Trail::new(trace, start.base, is_transaction);
        if let Some((service, method)) = start.rpc {
            trail.set_rpc(service, method);
        }
        if start.inside.is_none() && !start.only_if_parent {
            trail.set_transaction(start.name);
        }
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
        let root = Arc::new(Self {
            is_sampled,
            span,
            is_rpc: start.rpc.is_some(),
            main: Arc::new(HubSlot::new(hub)),
            trail,
            client,
            collector,
            open: AtomicUsize::new(0),
            waiting: Mutex::new(None),
        });
        root.trail.set_root(&root);
        root
    }

    /// Sends the root.
    pub(crate) fn finish(&self, ended_at: SystemTime) {
        self.trail.set_over();
        self.span.clone().finish_with_timestamp(ended_at);
        if let Some(collector) = self.collector.as_ref().filter(|_| !self.is_sampled) {
            collector.report_losses();
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

    /// The root's span, if it has only waited for this child.
    pub(crate) fn child_finished(&self) -> Option<Arc<SpanCell>> {
        match self.open.fetch_sub(1, Ordering::SeqCst) {
            1 => self.lock_waiting().take(),
            _ => None,
        }
    }

    /// Has the root's span, which has ended, wait for spans inside; `false` where
    /// there is none to wait for.
    pub(crate) fn wait_for_children(&self, own: &Arc<SpanCell>) -> bool {
        *self.lock_waiting() = Some(Arc::clone(own));
        // The last of them may have finished meanwhile. Whoever takes the span out
        // again finishes it.
        self.open.load(Ordering::SeqCst) > 0 || self.lock_waiting().take().is_none()
    }

    fn lock_waiting(&self) -> MutexGuard<'_, Option<Arc<SpanCell>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
