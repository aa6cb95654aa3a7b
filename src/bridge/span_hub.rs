//! Whose hub a thread has in a span.

use std::sync::Arc;

use sentry_core::Hub;

use crate::bridge::hub_slot::HubSlot;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::span_state::LiveSpan;
use crate::span_ext::Enterer;

impl SpanCell {
    /// A hub for this thread to make current for the span, which it enters
    /// while it is in no other span of the root.
    ///
    /// Who runs the span has its home: the root's own hub, or a fork that the
    /// span keeps. Whoever else comes with the span in hand runs beside it, as
    /// a task that was spawned in it does, and gets a fork for the while: tasks
    /// cannot be told apart, and must not find what another one left.
    pub(crate) fn acquire_slot(&self, live: &LiveSpan, thread: u64, by: Enterer) -> Arc<HubSlot> {
        // Of an RPC it is known who runs it; of another span it is whoever
        // comes first.
        let is_guest = by == Enterer::Guest && self.is_of_middleware() && !self.is_run_by_others();
        if let Some(fork) = &self.fork
            && !is_guest
            && !live.is_root
            && Arc::ptr_eq(&fork.hub, &Hub::current())
        {
            // The application has bound it on this thread, and knows of no slots.
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
                    // Somewhere else it may still be current.
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

    /// Whether who runs this span runs its root: it is the root, or the RPC in
    /// a span that is entered around the call alone, as that of
    /// `tonic::transport::Server::trace_fn` is.
    fn runs_root(&self, live: &LiveSpan) -> bool {
        live.is_root || self.is_server() && !live.root.is_rpc
    }

    /// The hub of who runs the nearest span around it in `root`.
    fn inherited_hub(&self, root: &LocalRoot) -> Arc<Hub> {
        let ancestors =
            std::iter::successors(self.parent.as_deref(), |cell| cell.parent.as_deref());
        let hubs = ancestors.map(|cell| cell.hub_in(root));
        // Of spans that were not entered, those around them are asked.
        let hub = hubs.map_while(|hub| hub).flatten().next();
        hub.unwrap_or_else(|| Arc::clone(&root.main.hub))
    }

    /// A hub to fork for what happens in the span by its own word, elsewhere.
    pub(crate) fn hub_beside(&self, root: &LocalRoot) -> Arc<Hub> {
        match &self.fork {
            Some(fork) => Arc::clone(&fork.hub),
            None => Arc::clone(&root.main.hub),
        }
    }

    /// `None` for a span that is not in `root`.
    pub(crate) fn hub_in(&self, root: &LocalRoot) -> Option<Option<Arc<Hub>>> {
        let is_in_root = std::ptr::eq(Arc::as_ptr(&self.live()?.root), root);
        let home = self.home.get().map(|home| &home.hub);
        let hub = home.or(self.fork.as_ref().map(|fork| &fork.hub));
        is_in_root.then(|| hub.cloned())
    }
}
