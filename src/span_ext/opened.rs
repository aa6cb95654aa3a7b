//! How the layer hands the sink of a call's span to the middleware that opens the span: both run on
//! one thread, and nothing has to be looked up.

use std::cell::RefCell;
use std::sync::Arc;

use tracing::Span;
use tracing::span::Id;

use crate::span_ext::sink::SpanSink;

/// Whether the middleware opens a span on this thread.
enum Opening {
    No,
    Yes,
    Opened(u64, Arc<dyn SpanSink>),
}

thread_local! {
    static OPENING: RefCell<Opening> = const { RefCell::new(Opening::No) };
}

/// Opens a span, and returns its sink if a layer of ours records it.
pub(crate) fn opened(open: impl FnOnce() -> Span) -> (Span, Option<Arc<dyn SpanSink>>) {
    let set = |opening| OPENING.try_with(|state| state.replace(opening));
    // Another layer may make a call of its own while it sees the span.
    let before = set(Opening::Yes);
    let span = open();
    let after = before.ok().and_then(|before| set(before).ok());
    let sink = match after {
        Some(Opening::Opened(id, sink)) => {
            span.id().filter(|own| own.into_u64() == id).map(|_| sink)
        }
        Some(Opening::No | Opening::Yes) | None => None,
    };
    (span, sink)
}

/// Hands over the sink of a span that has been made. Of two layers in one registry, the first has
/// the span.
pub(crate) fn hand_over(id: &Id, sink: &Arc<dyn SpanSink>) {
    let _ = OPENING.try_with(|opening| {
        let mut opening = opening.borrow_mut();
        if matches!(*opening, Opening::Yes) {
            *opening = Opening::Opened(id.into_u64(), Arc::clone(sink));
        }
    });
}
