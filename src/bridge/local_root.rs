//! The part of a trace that this process reports as one transaction.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use sentry_core::protocol::SpanId;
use sentry_core::{Client, Hub, TransactionOrSpan};

use crate::bridge::begun::{Begun, RootStart};
use crate::bridge::collector::Collector;
use crate::bridge::hub_slot::HubSlot;
use crate::bridge::late::{self, Late};
use crate::bridge::part_clock;
use crate::bridge::parts::Parts;
use crate::bridge::sessions;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::told::Told;
use crate::bridge::trail::Trail;
use crate::bridge::trails;
use crate::report;
use crate::span_ext::RpcFacts;
use crate::sync::{Mutex, MutexGuard};

/// Shared by all spans of a local root.
#[derive(Debug)]
pub(crate) struct LocalRoot {
    /// What the root began as.
    pub(crate) first: TransactionOrSpan,
    /// Where it is cut.
    pub(crate) parts: Option<Parts>,
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
    inside: Mutex<Inside>,
}

/// The recorded spans inside a root, not counting its own.
#[derive(Debug, Default)]
struct Inside {
    /// How many have not finished.
    open: usize,
    /// The root's own span, once it has ended and only waits for those.
    waiting: Option<Arc<SpanCell>>,
    /// The root is being sent: it takes no more spans.
    is_sealed: bool,
    late: VecDeque<(SpanId, Late)>,
    /// How many have something to be told late, which are all where anything is.
    finished: u64,
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
        let told = start.rpc.map_or_else(Told::closed, |_| Told::default());
        let trail = Trail::new(trace, start.base, is_transaction, told, start.is_told_once);
        let is_named = start.inside.is_none() && !start.only_if_parent;
        match start.rpc {
            Some(rpc) => trail.set_rpc(rpc, is_named),
            None if is_named => trail.set_transaction(start.name),
            None => {}
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
            inside: Mutex::default(),
        });
        root.trail.set_root(&root);
        root
    }

    /// Has the scope know who makes the call that this root is.
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

    /// Sends the root; its hub is current.
    pub(crate) fn finish(&self, ended_at: SystemTime) {
        if self.trail.is_transaction() {
            self.tell_user(&self.main.hub);
        }
        let id = self.later_part_id();
        let finish = || self.span().into_owned().finish_with_timestamp(ended_at);
        let id = id.unwrap_or_else(|| self.trail.root_id());
        trails::while_sending(&self.trail, id, finish);
        if let Some(collector) = self.collector.as_ref().filter(|_| !self.is_sampled) {
            collector.report_losses();
        }
    }

    /// Sentry takes the user of a transaction from the scope alone.
    pub(crate) fn tell_user(&self, hub: &Hub) {
        if let Some(user) = self.trail.user() {
            hub.configure_scope(|scope| {
                let known = scope.user().cloned().unwrap_or_default();
                scope.set_user(Some(report::merged_users(known, user)));
            });
        }
    }

    /// Whether its span has the attributes of the RPC that it is, and the spans inside
    /// theirs. Else they get them as they are sent, and errors as they are captured.
    pub(crate) fn tells_attributes(&self) -> bool {
        self.is_sampled && self.collector.is_none()
    }

    /// What is kept for the spans in the transaction of this id, and how many have finished.
    pub(crate) fn take_late(&self, id: SpanId) -> (VecDeque<(SpanId, Late)>, u64) {
        self.take_late_of_part(id).unwrap_or_else(|| {
            let mut inside = self.lock_inside();
            let finished = std::mem::take(&mut inside.finished);
            (std::mem::take(&mut inside.late), finished)
        })
    }

    /// A hub for a thread that finds `busy` in use on another thread.
    pub(crate) fn fork(&self, busy: &Arc<Hub>) -> Arc<HubSlot> {
        let hub = Hub::new_from_top(busy);
        hub.configure_scope(|scope| scope.set_span(Some(self.span().into_owned())));
        Arc::new(HubSlot::new(Arc::new(hub)))
    }

    /// Counts a span inside, which must be made after this and finish; `false`
    /// once the root is being sent.
    pub(crate) fn child_opened(&self) -> bool {
        let mut inside = self.lock_inside();
        if !inside.is_sealed {
            inside.open += 1;
        }
        !inside.is_sealed
    }

    /// The root's own span, to be finished, if it has only waited for this child. Keeps what
    /// the child is told as it is sent.
    #[must_use]
    pub(crate) fn child_finished(&self, late: Option<(SpanId, Late)>) -> Option<Arc<SpanCell>> {
        let mut inside = self.lock_inside();
        inside.finished += u64::from(late.is_some());
        if inside.late.len() < late::MAX {
            inside.late.extend(late);
        }
        inside.open = inside.open.saturating_sub(1);
        if inside.open > 0 {
            return None;
        }
        let own = inside.waiting.take()?;
        self.seal(&mut inside);
        Some(own)
    }

    /// Has the root's own span, which has ended, wait for spans inside; `false`
    /// where there is none to wait for.
    pub(crate) fn wait_for_children(&self, own: &Arc<SpanCell>) -> bool {
        let mut inside = self.lock_inside();
        let waits = inside.open > 0;
        if waits {
            inside.waiting = Some(Arc::clone(own));
        } else {
            self.seal(&mut inside);
        }
        waits
    }

    /// A root inside the application's transaction takes spans until that is sent.
    fn seal(&self, inside: &mut Inside) {
        self.trail.set_over();
        inside.is_sealed = self.trail.is_over();
    }

    fn lock_inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
