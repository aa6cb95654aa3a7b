//! The spans that this thread is in, and the hubs it has switched to for them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sentry_core::{Hub, HubSwitchGuard, TransactionOrSpan};

use crate::bridge::hub_slot::HubSlot;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::trail::{self, TrailId};
use crate::span_ext::Enterer;

/// A span that was entered once.
struct Entry {
    cell: Arc<SpanCell>,
    slot: Arc<HubSlot>,
    /// The span on the scope before, where entering replaced it.
    restore: Option<Option<TransactionOrSpan>>,
    guard: Option<HubSwitchGuard>,
    /// The trail that the thread was in before.
    trail_before: TrailId,
    /// It was exited before spans that were entered later: it is removed after them.
    exited: bool,
    /// The thread was panicking as it was entered.
    in_panic: bool,
}

/// Where a thread is in a root.
struct Here {
    slot: Arc<HubSlot>,
    /// No span of another root was entered since.
    is_last: bool,
    cell: Arc<SpanCell>,
}

impl Here {
    /// Whether this is where the thread is, in `cell` and with the hub of that.
    fn is_at(&self, cell: &Arc<SpanCell>, hub: &Arc<Hub>) -> bool {
        self.is_last && Arc::ptr_eq(&self.cell, cell) && Arc::ptr_eq(&self.slot.hub, hub)
    }
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

    /// The innermost span of `root` that this thread is in.
    fn here(&self, root: &Arc<LocalRoot>) -> Option<Here> {
        let entries = self.entries.try_borrow().ok()?;
        let index = entries.iter().rposition(|entry| entry.is_in(root))?;
        let entry = entries.get(index)?;
        Some(Here {
            slot: Arc::clone(&entry.slot),
            is_last: index + 1 == entries.len(),
            cell: Arc::clone(&entry.cell),
        })
    }

    fn enter(&self, cell: Arc<SpanCell>, by: Enterer) {
        let Some(live) = cell.live() else { return };
        let here = self.here(&live.root);
        let current = Hub::current();
        let is_inside = here.is_some();
        // Entered in itself, as where a handler reads the body of its request.
        let is_again = here
            .as_ref()
            .is_some_and(|here| here.is_at(&cell, &current));
        let slot = match here {
            Some(here) => {
                // If the application has switched to a hub of its own inside the span, the
                // spans inside use that.
                let slot = if here.is_last && !Arc::ptr_eq(&here.slot.hub, &current) {
                    Arc::new(HubSlot::new(Arc::clone(&current)))
                } else {
                    here.slot
                };
                slot.acquire(self.number);
                slot
            }
            None => cell.acquire_slot(live, self.number, by),
        };
        // The hub of a root has the root's span from the start; if the application has replaced
        // it, that stays.
        let has_span = is_again || live.is_root && !is_inside;
        let restore = match live.recorded() {
            Some(span) if !has_span => set_span(&slot.hub, &span),
            _ => None,
        };
        if has_span {
            renew_span(&slot, &live.root);
        }
        let guard =
            (!Arc::ptr_eq(&slot.hub, &current)).then(|| HubSwitchGuard::new(Arc::clone(&slot.hub)));
        let trail_before = trail::set_current(live.root.trail.id());
        self.entries.borrow_mut().push(Entry {
            cell,
            slot,
            restore,
            guard,
            trail_before,
            exited: false,
            in_panic: thread::panicking(),
        });
    }

    fn mark_exited(&self, key: u64, layer: u64) {
        let mut entries = self.entries.borrow_mut();
        let entry = entries
            .iter_mut()
            .rev()
            .find(|entry| !entry.exited && entry.cell.key() == key && entry.cell.layer() == layer);
        if let Some(entry) = entry {
            entry.exited = true;
            if thread::panicking() && !entry.in_panic {
                entry.cell.saw_panic();
            }
        }
    }

    fn pop_exited(&self) -> Option<Entry> {
        self.entries.borrow_mut().pop_if(|entry| entry.exited)
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

/// The span that this thread is in, if it belongs to `root`.
pub(crate) fn last_in(root: &Arc<LocalRoot>) -> Option<Arc<SpanCell>> {
    with(|stack| stack.last(|entry| entry.is_in(root).then(|| Arc::clone(&entry.cell))))
        .flatten()
        .flatten()
}

/// Whether the span that this thread is in belongs to `root`.
pub(crate) fn is_in(root: &Arc<LocalRoot>) -> bool {
    last_in(root).is_some()
}

/// The innermost span that this thread is in; `current` is the one that tracing takes for it.
/// tracing is wrong where a span is entered again inside another one, as when a server reads its
/// request on the task of the client: the request body enters the span of the client.
pub(crate) fn innermost(current: Arc<SpanCell>) -> Arc<SpanCell> {
    let inner = with(|stack| {
        let entries = stack.entries.try_borrow().ok()?;
        let mut entered = entries.iter().rev().filter(|entry| !entry.exited);
        let last = entered.next()?;
        let is_current = |entry: &Entry| Arc::ptr_eq(&entry.cell, &current);
        let is_of_same = last.cell.layer() == current.layer();
        let is_around = is_of_same && !is_current(last) && entered.any(is_current);
        is_around.then(|| Arc::clone(&last.cell))
    });
    inner.flatten().unwrap_or(current)
}

/// Enters the span: makes a hub of its root current, with the span on its scope.
pub(crate) fn enter(cell: Arc<SpanCell>, by: Enterer) {
    if !cell.may_start() {
        return;
    }
    cell.start();
    with(|stack| stack.enter(cell, by));
}

/// Runs `f` as if in the span, on a fork of its hub, on a thread that is not in it.
pub(crate) fn run_beside(cell: &SpanCell, f: impl FnOnce()) {
    let live = cell.start();
    let slot = live.root.fork(&cell.hub_beside(&live.root));
    if let Some(span) = live.recorded() {
        set_span(&slot.hub, &span);
    }
    let trail_before = trail::set_current(live.root.trail.id());
    Hub::run(Arc::clone(&slot.hub), f);
    trail::set_current(trail_before);
}

/// Undoes the last enter of the span with this key.
pub(crate) fn exit(key: u64, layer: u64) {
    with(|stack| {
        stack.mark_exited(key, layer);
        while let Some(entry) = stack.pop_exited() {
            entry.leave();
        }
    });
}

impl Entry {
    fn is_in(&self, root: &Arc<LocalRoot>) -> bool {
        self.cell
            .live()
            .is_some_and(|live| Arc::ptr_eq(&live.root, root))
    }

    fn leave(self) {
        let Self {
            cell,
            slot,
            restore,
            guard,
            trail_before,
            ..
        } = self;
        if let Some(span) = restore {
            let root = cell.live().map(|live| &live.root);
            let renewed = root
                .zip(span.as_ref())
                .and_then(|(root, span)| root.renewed(span));
            let span = renewed.or(span);
            slot.hub.configure_scope(|scope| scope.set_span(span));
        }
        drop(guard);
        trail::set_current(trail_before);
        slot.release();
    }
}

/// Replaces the span on the scope by that of the root's current part, if it is of an earlier one.
fn renew_span(slot: &HubSlot, root: &LocalRoot) {
    let part = root.part();
    if slot.part.swap(part, Ordering::Relaxed) != part {
        slot.hub.configure_scope(|scope| {
            let renewed = scope.get_span().and_then(|span| root.renewed(&span));
            if renewed.is_some() {
                scope.set_span(renewed);
            }
        });
    }
}

/// Sets the span on the hub's scope; returns what was there before, if that was another.
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
