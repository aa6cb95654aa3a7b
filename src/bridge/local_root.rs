//! The part of a trace that this process reports as one transaction.

use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use sentry_core::protocol::SpanId;
use sentry_core::{Client, Hub, TransactionOrSpan};

use crate::bridge::begun::{BegunRoot, RootStart};
use crate::bridge::collector::Collector;
use crate::bridge::hub_slot::HubSlot;
use crate::bridge::part_clock;
use crate::bridge::parts::Parts;
use crate::bridge::sent_events::SentEvents;
use crate::bridge::sessions;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::trail::Trail;
use crate::bridge::trails;
use crate::report;
use crate::send::{Records, SpanRecord};
use crate::span_ext::RpcFacts;
use crate::sync::{Mutex, MutexGuard};

/// Shared by all spans of a local root.
#[derive(Debug)]
pub(crate) struct LocalRoot {
    /// The span that the root began with.
    pub(crate) first: TransactionOrSpan,
    /// Set where it is to be cut into parts.
    pub(crate) parts: Option<Parts>,
    /// Whether the spans in it are sent, and so worth making.
    pub(crate) is_sampled: bool,
    /// Whether the root is the span of an RPC.
    pub(crate) is_rpc: bool,
    /// The root's own hub.
    pub(crate) main: Arc<HubSlot>,
    pub(crate) trail: Arc<Trail>,
    /// The client of the hub when the root began. Not asked of the hub later: sentry-core calls
    /// `before_breadcrumb` with the hub locked, and events that are traced in there need the
    /// client too.
    pub(crate) client: Option<Arc<Client>>,
    /// That of `client`, where the root is a transaction and tracing is enabled.
    collector: Option<Arc<Collector>>,
    inner: Mutex<InnerSpans>,
}

/// The recorded spans inside a root, without the root's own span.
#[derive(Debug, Default)]
struct InnerSpans {
    /// How many have not finished.
    open: usize,
    /// The root's own span, once it has ended and only waits for those.
    waiting: Option<Arc<SpanCell>>,
    /// The root is being sent: it takes no more spans.
    is_sealed: bool,
    records: Records,
}

impl LocalRoot {
    pub(crate) fn begin(start: &RootStart<'_>) -> Arc<Self> {
        let hub = Arc::new(Hub::new_from_top(start.base));
        let client = hub.client();
        let BegunRoot {
            span,
            is_sampled,
            is_transaction,
            trace,
            collector,
        } = BegunRoot::new(start, &hub, client.as_ref());
        let sent_events = start
            .rpc
            .map_or_else(SentEvents::closed, |_| SentEvents::default());
        let trail = Trail::new(
            trace,
            start.base,
            is_transaction,
            sent_events,
            start.deduplicate_errors,
        );
        let is_named = start.app_span.is_none() && !start.only_if_parent;
        match start.rpc {
            Some(rpc) => trail.set_rpc(rpc, is_named),
            None if is_named => trail.set_transaction(start.name),
            None => {}
        }
        let max_breadcrumbs = client
            .as_ref()
            .map_or(0, |client| client.options().max_breadcrumbs);
        hub.configure_scope(|scope| {
            if start.app_span.is_none() {
                scope.clear_breadcrumbs();
            }
            scope.set_span(Some(span.clone()));
            scope.add_event_processor(trail.processor(max_breadcrumbs));
        });
        let root = Arc::new(Self {
            is_sampled,
            parts: start
                .part_duration
                .zip(collector.as_ref())
                .filter(|_| is_sampled)
                .map(|(after, collector)| {
                    part_clock::start(after);
                    let hub = collector.hub();
                    Parts::new(after, start.start, hub, trail.root_id(), span.clone())
                }),
            first: span,
            is_rpc: start.rpc.is_some(),
            main: Arc::new(HubSlot::new(hub)),
            trail,
            client,
            collector,
            inner: Mutex::default(),
        });
        root.trail.set_root(&root);
        root
    }

    /// Sets user and tags of the call on the scope, and begins its session.
    pub(crate) fn open_call(&self, facts: &RpcFacts) {
        let hub = &self.main.hub;
        if facts.user.is_some() || !facts.tags.is_empty() {
            hub.configure_scope(|scope| {
                if let Some(user) = &facts.user {
                    scope.set_user(Some(user.as_ref().clone()));
                }
                for (key, value) in &facts.tags {
                    scope.set_tag(key, value);
                }
            });
        }
        if facts.is_session {
            sessions::begin(hub);
        }
    }

    /// Sends the root, or counts it as not sampled.
    pub(crate) fn finish(&self, ended_at: SystemTime) {
        if self.is_unsampled_transaction() {
            if let Some(collector) = self
                .collector
                .as_ref()
                .filter(|_| self.trail.is_discarded())
            {
                collector.discard(&self.main.hub);
            }
            return;
        }
        // Finishing a transaction applies the scope of the current hub.
        Hub::run(Arc::clone(&self.main.hub), || {
            if self.trail.is_transaction() {
                self.tell_user(&self.main.hub);
            }
            let id = self.later_part_id();
            let finish = || self.span().into_owned().finish_with_timestamp(ended_at);
            let id = id.unwrap_or_else(|| self.trail.root_id());
            trails::while_sending(&self.trail, id, finish);
        });
    }

    /// Whether the root's span is only for the application, and keeps no attributes.
    pub(crate) fn is_unsampled_transaction(&self) -> bool {
        self.trail.is_transaction() && !self.is_sampled
    }

    /// Sets the user that fields named on the scope: sentry-core takes the user of a transaction
    /// from there alone.
    pub(crate) fn tell_user(&self, hub: &Hub) {
        if let Some(user) = self.trail.user() {
            hub.configure_scope(|scope| {
                let known = scope.user().cloned().unwrap_or_default();
                scope.set_user(Some(report::merged_users(known, user)));
            });
        }
    }

    /// Whether attributes are set on the spans of this root while they are open. Else they are
    /// added to spans when these are sent, and to errors when they are captured.
    pub(crate) fn tells_attributes(&self) -> bool {
        self.is_sampled && self.collector.is_none()
    }

    /// The records of the spans that have finished in the transaction of this id.
    pub(crate) fn take_records(&self, id: SpanId) -> Records {
        self.take_records_of_part(id)
            .unwrap_or_else(|| std::mem::take(&mut self.lock_inner().records))
    }

    /// A fork of `busy`, for a thread that must not use `busy` itself.
    pub(crate) fn fork(&self, busy: &Arc<Hub>) -> Arc<HubSlot> {
        let hub = Hub::new_from_top(busy);
        hub.configure_scope(|scope| scope.set_span(Some(self.span().into_owned())));
        Arc::new(HubSlot::new(Arc::new(hub)))
    }

    /// Counts an open span inside, which must be made after this and finish. Returns `false`
    /// once the root is being sent: then it takes no more spans.
    pub(crate) fn child_opened(&self) -> bool {
        let mut inner = self.lock_inner();
        if !inner.is_sealed {
            inner.open += 1;
        }
        !inner.is_sealed
    }

    /// Counts a span inside as finished, and keeps its record. Returns the root's own span if it
    /// has only waited for this one: the caller has to finish it.
    #[must_use]
    pub(crate) fn child_finished(&self, record: Option<SpanRecord>) -> Option<Arc<SpanCell>> {
        let mut inner = self.lock_inner();
        inner.records.add(record);
        inner.open = inner.open.saturating_sub(1);
        if inner.open > 0 {
            return None;
        }
        let own = inner.waiting.take()?;
        self.seal(&mut inner);
        Some(own)
    }

    /// Has the root's own span, which has ended, wait for open spans inside. Returns `false`
    /// where there are none.
    pub(crate) fn wait_for_children(&self, own: &Arc<SpanCell>) -> bool {
        let mut inner = self.lock_inner();
        let waits = inner.open > 0;
        if waits {
            inner.waiting = Some(Arc::clone(own));
        } else {
            self.seal(&mut inner);
        }
        waits
    }

    /// Takes no more spans from now on; but a root inside a transaction of the application does,
    /// until that is sent.
    fn seal(&self, inner: &mut InnerSpans) {
        self.trail.set_over();
        inner.is_sealed = self.trail.is_over();
    }

    fn lock_inner(&self) -> MutexGuard<'_, InnerSpans> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
