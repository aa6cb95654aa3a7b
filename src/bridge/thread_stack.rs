//! The spans that this thread is in, and the hubs it has switched to for them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sentry_core::{Hub, HubSwitchGuard, TransactionOrSpan};

use crate::bridge::hub_slot::{Acquired, HubSlot};
use crate::bridge::local_root::LocalRoot;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::trail::{self, TrailId};

/// One enter of one span.
struct Entry {
    cell: Arc<SpanCell>,
    root: Arc<LocalRoot>,
    slot: Arc<HubSlot>,
    /// What `scope.span` was before, where this enter changed it.
    restore: Option<Option<TransactionOrSpan>>,
    guard: Option<HubSwitchGuard>,
    /// The trail of this thread before.
    trail_before: TrailId,
    /// Exited while spans entered later were still in: it leaves with them.
    exited: bool,
}

struct ThreadStack {
    number: u64,
    entries: RefCell<Vec<Entry>>,
}

thread_local! {
    static STACK: ThreadStack = ThreadStack::new();
}

impl ThreadStack {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            entries: RefCell::default(),
        }
    }

    fn last<T>(&self, f: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.entries.try_borrow().ok()?.last().map(f)
    }
}

fn with<T>(f: impl FnOnce(&ThreadStack) -> T) -> Option<T> {
    STACK.try_with(f).ok()
}

/// The span that this thread is in, if `hub` is the hub it has there.
pub(crate) fn span_of(hub: &Arc<Hub>) -> Option<Arc<SpanCell>> {
    with(|stack| {
        stack.last(|entry| Arc::ptr_eq(&entry.slot.hub, hub).then(|| Arc::clone(&entry.cell)))
    })
    .flatten()
    .flatten()
}

/// Makes the hub of the cell's root current, and the cell its span.
pub(crate) fn enter(cell: &Arc<SpanCell>) {
    let live = cell.start();
    let Some((number, here)) = with(|stack| {
        let here = stack.last(|e| (Arc::ptr_eq(&e.root, &live.root), Arc::clone(&e.slot)));
        (stack.number, here)
    }) else {
        return;
    };
    let current = Hub::current();
    let (slot, first) = match here {
        Some((true, slot)) => {
            // Where the application switched to a hub of its own inside the
            // span, its choice holds for the spans inside.
            let slot = if Arc::ptr_eq(&slot.hub, &current) {
                slot
            } else {
                Arc::new(HubSlot::new(Arc::clone(&current)))
            };
            slot.acquire(number, cell.key());
            (slot, false)
        }
        _ => {
            let (slot, acquired) = cell.acquire_slot(&live.root, number);
            (slot, acquired == Acquired::First)
        }
    };
    // A slot that nobody holds has its root's span in the scope already.
    let restore = match &live.recorded {
        Some(span) if !(first && live.is_root) => set_span(&slot.hub, span),
        _ => None,
    };
    let guard =
        (!Arc::ptr_eq(&slot.hub, &current)).then(|| HubSwitchGuard::new(Arc::clone(&slot.hub)));
    let entry = Entry {
        trail_before: trail::set_current(live.root.trail.id()),
        cell: Arc::clone(cell),
        root: live.root,
        slot,
        restore,
        guard,
        exited: false,
    };
    with(move |stack| stack.entries.borrow_mut().push(entry));
}

/// Undoes the last enter of the span with this key.
pub(crate) fn exit(key: u64, layer: u64) {
    with(|stack| {
        let mut entries = stack.entries.borrow_mut();
        let entry = entries
            .iter_mut()
            .rev()
            .find(|entry| !entry.exited && entry.cell.key() == key && entry.cell.layer() == layer);
        if let Some(entry) = entry {
            entry.exited = true;
        }
    });
    while let Some(entry) = with(pop_exited).flatten() {
        entry.leave();
    }
}

fn pop_exited(stack: &ThreadStack) -> Option<Entry> {
    let mut entries = stack.entries.borrow_mut();
    entries.pop_if(|entry| entry.exited)
}

impl Entry {
    fn leave(self) {
        let Self {
            slot,
            restore,
            guard,
            trail_before,
            ..
        } = self;
        if let Some(span) = restore {
            slot.hub.configure_scope(|scope| scope.set_span(span));
        }
        drop(guard);
        trail::set_current(trail_before);
        slot.release();
    }
}

/// Sets the span of the hub's scope; what was there before, if it changed.
fn set_span(hub: &Hub, span: &TransactionOrSpan) -> Option<Option<TransactionOrSpan>> {
    hub.configure_scope(|scope| {
        let before = scope.get_span();
        if before.as_ref() == Some(span) {
            return None;
        }
        scope.set_span(Some(span.clone()));
        Some(before)
    })
}
