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

thread_local! {
    /// The enter that is under way.
    static ENTERING: Cell<Option<(u64, Enterer)>> = const { Cell::new(None) };
    /// What the layer would look up for it.
    static SINK: Cell<Option<Arc<dyn SpanSink>>> = const { Cell::new(None) };
}

/// Enters the span of an RPC, whose sink is `sink`.
pub(crate) fn enter<'a>(
    span: &'a Span,
    sink: Option<&Arc<dyn SpanSink>>,
    by: Enterer,
) -> Entered<'a> {
    struct Reset {
        has_sink: bool,
    }
    impl Drop for Reset {
        fn drop(&mut self) {
            let _ = ENTERING.try_with(|cell| cell.set(None));
            if self.has_sink {
                drop(take_sink());
            }
        }
    }
    let _reset = Reset {
        has_sink: sink.is_some(),
    };
    let entering = span.id().map(|id| (id.into_u64(), by));
    let _ = ENTERING.try_with(|cell| cell.set(entering));
    if let Some(sink) = sink {
        put_sink(Arc::clone(sink));
    }
    span.enter()
}

/// Who enters `span`, if the enter that is under way is one of [`enter`]: then there is
/// nothing to look up.
pub(crate) fn entering(span: &Id) -> Option<Enterer> {
    let (id, by) = ENTERING.try_with(Cell::get).ok()??;
    (id == span.into_u64()).then_some(by)
}

/// The sink of the span that is being entered. A layer to which it does not belong
/// [puts it back](put_sink).
pub(crate) fn take_sink() -> Option<Arc<dyn SpanSink>> {
    SINK.try_with(Cell::take).ok().flatten()
}

pub(crate) fn put_sink(sink: Arc<dyn SpanSink>) {
    let _ = SINK.try_with(|cell| cell.set(Some(sink)));
}
