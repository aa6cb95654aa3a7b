//! How the middleware enters spans.

use std::cell::Cell;
use std::sync::Arc;

use tracing::Span;
use tracing::dispatcher::{Dispatch, get_default, with_default};
use tracing::span::{Entered, Id};
use tracing_subscriber::Registry;

use crate::span_ext::sink::SpanSink;
use crate::span_ext::thread_guard::is_thread_gone;

/// Who enters the span of an RPC, which decides the hub it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enterer {
    /// Polls the RPC itself: gets the hub of the RPC.
    Runner,
    /// Was given the span, such as a task that reads the request: gets a fork of that hub.
    Guest,
}

thread_local! {
    /// The span that the middleware is entering or leaving.
    static MIDDLEWARE_SPAN: Cell<Option<u64>> = const { Cell::new(None) };
    /// The innermost RPC that this thread is in.
    static CURRENT_RPC: Cell<Option<RpcKey>> = const { Cell::new(None) };
}

/// Identifies an RPC while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RpcKey(usize);

impl RpcKey {
    /// The key of the RPC that `shared` belongs to.
    pub(crate) fn of<T>(shared: &Arc<T>) -> Self {
        Self(Arc::as_ptr(shared).addr())
    }

    /// Whether it is the innermost RPC that this thread is in.
    pub(crate) fn is_current(self) -> bool {
        CURRENT_RPC.try_with(Cell::get).ok().flatten() == Some(self)
    }
}

/// In a span, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct SpanEntered<'a> {
    id: Option<u64>,
    sink: Option<&'a Arc<dyn SpanSink>>,
    entered: Option<Entered<'a>>,
    /// The RPC that the thread was in before.
    outer: Option<RpcKey>,
}

/// Enters the span of an RPC. Its `sink` is called directly, so that our layer need not look the
/// span up; see [`is_middleware_entering`].
pub(crate) fn enter<'a>(
    span: &'a Span,
    sink: Option<&'a Arc<dyn SpanSink>>,
    key: RpcKey,
    by: Enterer,
) -> SpanEntered<'a> {
    if is_thread_gone() {
        return SpanEntered::default();
    }
    let id = span.id().map(|id| id.into_u64());
    let entered = while_entering(id, || span.enter());
    if let Some(sink) = sink {
        Arc::clone(sink).enter(by);
    }
    SpanEntered {
        id,
        sink,
        entered: Some(entered),
        outer: set_current_rpc(Some(key)),
    }
}

impl Drop for SpanEntered<'_> {
    fn drop(&mut self) {
        if self.entered.is_none() {
            return;
        }
        set_current_rpc(self.outer);
        if let Some(sink) = self.sink {
            sink.exit();
        }
        while_entering(self.id, || drop(self.entered.take()));
    }
}

/// Returns the one before.
fn set_current_rpc(key: Option<RpcKey>) -> Option<RpcKey> {
    CURRENT_RPC
        .try_with(|current| current.replace(key))
        .ok()
        .flatten()
}

/// Drops a span under its own dispatcher. As a span closes, its registry drops the parent by the
/// current dispatcher: another one would be asked to close a span that it does not know, and may
/// panic.
pub(crate) fn drop_span(span: Span) {
    let own = span.with_subscriber(|(_, own)| {
        let registry = |of: &Dispatch| of.downcast_ref::<Registry>().map(std::ptr::from_ref);
        let is_here = get_default(|current| registry(current) == registry(own));
        (!is_here).then(|| own.clone())
    });
    match own.flatten() {
        Some(own) => with_default(&own, || drop(span)),
        None => drop(span),
    }
}

fn while_entering<T>(id: Option<u64>, f: impl FnOnce() -> T) -> T {
    /// Restores the value before: another layer may make a call of its own from `on_enter`.
    struct Reset(Option<u64>);
    impl Drop for Reset {
        fn drop(&mut self) {
            let _ = MIDDLEWARE_SPAN.try_with(|span| span.set(self.0));
        }
    }
    let before = MIDDLEWARE_SPAN.try_with(|span| span.replace(id));
    let _reset = Reset(before.ok().flatten());
    f()
}

/// Whether the middleware is entering or leaving `span` at this moment, and tells its sink
/// itself.
pub(crate) fn is_middleware_entering(span: &Id) -> bool {
    let entering = MIDDLEWARE_SPAN.try_with(Cell::get).ok().flatten();
    entering == Some(span.into_u64())
}
