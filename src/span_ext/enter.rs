//! How the middleware enters spans.

use std::cell::Cell;
use std::sync::Arc;

use tracing::Span;
use tracing::span::{Entered, Id};

use crate::span_ext::sink::SpanSink;

/// Who enters the span of an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enterer {
    /// Polls the RPC itself: its hub is theirs.
    Runner,
    /// Was given the span, as a task that reads the request.
    Guest,
}

/// What the layer would look up for an enter that is under way.
#[derive(Debug)]
pub(crate) struct Entering {
    span: Id,
    pub(crate) sink: Option<Arc<dyn SpanSink>>,
    pub(crate) by: Enterer,
}

thread_local! {
    static ENTERING: Cell<Option<Entering>> = const { Cell::new(None) };
}

/// Enters the span of an RPC, whose sink is `sink`.
pub(crate) fn enter<'a>(
    span: &'a Span,
    sink: Option<&Arc<dyn SpanSink>>,
    by: Enterer,
) -> Entered<'a> {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            put_entering(None);
        }
    }
    let _reset = Reset;
    put_entering(span.id().map(|span| Entering {
        span,
        sink: sink.cloned(),
        by,
    }));
    span.enter()
}

/// What is known of the enter of `span` that is under way, if it is one of [`enter`]. Who
/// has no use for it [puts it back](put_entering), for another layer.
pub(crate) fn take_entering(span: &Id) -> Option<Entering> {
    let entering = ENTERING.try_with(Cell::take).ok()??;
    if entering.span == *span {
        return Some(entering);
    }
    put_entering(Some(entering));
    None
}

pub(crate) fn put_entering(entering: Option<Entering>) {
    let _ = ENTERING.try_with(|cell| cell.set(entering));
}
