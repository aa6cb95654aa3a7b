//! Which hub a thread has in a span.

use std::sync::Arc;

use sentry_core::Hub;

use crate::bridge::hub_slot::HubSlot;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::span_state::LiveSpan;
use crate::span_ext::Enterer;

impl SpanCell {
    /// A hub for this thread to make current as it enters the span, while it is in no other
    /// span of the root.
    ///
    /// The task that runs the span gets its home: the root's own hub, or a fork that the span
    /// keeps. Any other task that enters the span, such as one that was spawned in it, runs
    /// beside it, and gets a new fork each time: such tasks cannot be told apart, and must not
    /// find what another one left on the scope.
    pub(crate) fn acquire_slot(&self, live: &LiveSpan, thread: u64, by: Enterer) -> Arc<HubSlot> {
        // The middleware says who runs an RPC; any other span is run by whoever comes first.
        let is_guest = by == Enterer::Guest && self.is_of_middleware() && !self.is_run_by_others();
        if let Some(fork) = &self.fork
            && !is_guest
            && !live.is_root
            && Arc::ptr_eq(&fork.hub, &Hub::current())
        {
            // The application itself has made the hub current on this thread.
            let slot = Arc::new(HubSlot::new(Arc::clone(&fork.hub)));
            slot.acquire(thread);
            return slot;
        }
        let home = match self.home.get() {
            Some(home) => home,
            None => {
                let made = if self.runs_root(live) {
                    Arc::clone(&live.root.main)
                } else if let Some(fork) = &self.fork {
                    // The hub may still be current on another thread.
                    live.root.fork(&fork.hub)
                } else {
                    live.root.fork(&self.inherited_hub(&live.root))
                };
                self.home.get_or_init(|| made)
            }
        };
        if !is_guest && home.acquire(thread) {
            return Arc::clone(home);
        }
        let fork = live.root.fork(&home.hub);
        fork.acquire(thread);
        fork
    }

    fn is_run_by_others(&self) -> bool {
        self.started_rpc().is_some_and(|rpc| rpc.is_run_by_others)
    }

    /// Whether the task that runs this span runs its root: it is the root, or the RPC in a root
    /// that is entered around the call alone, such as the span of
    /// `tonic::transport::Server::trace_fn`.
    fn runs_root(&self, live: &LiveSpan) -> bool {
        live.is_root || self.is_server() && !live.root.is_rpc
    }

    /// The hub of the nearest span around it in `root` that has one.
    fn inherited_hub(&self, root: &LocalRoot) -> Arc<Hub> {
        let ancestors =
            std::iter::successors(self.parent.as_deref(), |cell| cell.parent.as_deref());
        let hubs = ancestors.map(|cell| cell.hub_in(root));
        // Spans that were never entered have none: those around them are asked.
        let hub = hubs.map_while(|hub| hub).flatten().next();
        hub.unwrap_or_else(|| Arc::clone(&root.main.hub))
    }

    /// The hub to fork for what names the span as its parent, and happens elsewhere.
    pub(crate) fn hub_beside(&self, root: &LocalRoot) -> Arc<Hub> {
        match &self.fork {
            Some(fork) => Arc::clone(&fork.hub),
            None => Arc::clone(&root.main.hub),
        }
    }

    /// The hub that the span has in `root`, if it has one; `None` for a span that is not in
    /// `root`.
    pub(crate) fn hub_in(&self, root: &LocalRoot) -> Option<Option<Arc<Hub>>> {
        let is_in_root = std::ptr::eq(Arc::as_ptr(&self.live()?.root), root);
        let home = self.home.get().map(|home| &home.hub);
        let hub = home.or(self.fork.as_ref().map(|fork| &fork.hub));
        is_in_root.then(|| hub.cloned())
    }
}
