//! Finds out which layers of this crate see the spans of calls, by a probe: a span like these.

use std::cell::RefCell;
use std::sync::Arc;

use sentry_core::Hub;
use tracing::span::Id;
use tracing::{Dispatch, Span};

use crate::propagation::W3cSpanContext;
use crate::span_ext::thread_guard::guarded;

thread_local! {
    /// `None` where no probe is open.
    static SEEN: RefCell<Option<Vec<LayerSeen>>> = const { RefCell::new(None) };
}

/// Returns the ids of a span; may have the OpenTelemetry layer in the dispatcher start it.
pub(crate) type OtelIdsFn = fn(&Id, &Dispatch) -> Option<W3cSpanContext>;

/// The setup of a layer that saw the probe.
pub(crate) struct LayerSeen {
    pub(crate) hub: Option<Arc<Hub>>,
    pub(crate) captures_errors: bool,
    /// How it learns the ids that a span has in OpenTelemetry.
    pub(crate) otel_ids: Option<OtelIdsFn>,
}

/// Called by a layer that sees a probe.
pub(crate) fn saw_probe(layer: LayerSeen) {
    let _ = SEEN.try_with(|seen| {
        if let Some(seen) = &mut *seen.borrow_mut() {
            seen.push(layer);
        }
    });
}

/// The layers that see the probe that `open` opens on this thread.
pub(crate) fn seen_by(open: impl FnOnce()) -> Vec<LayerSeen> {
    let _ = SEEN.try_with(|seen| *seen.borrow_mut() = Some(vec![]));
    open();
    let seen = SEEN.try_with(|seen| seen.borrow_mut().take());
    seen.ok().flatten().unwrap_or_default()
}

/// Whether an open probe has ids in OpenTelemetry, as the layers that saw it learn them.
pub(crate) fn has_otel_ids(probe: &Span) -> bool {
    let ask = SEEN.try_with(|seen| {
        let seen = seen.borrow();
        seen.as_ref()?.iter().find_map(|layer| layer.otel_ids)
    });
    let Some(ask) = ask.ok().flatten() else {
        return false;
    };
    let ids = || probe.with_subscriber(|(id, dispatch)| ask(id, dispatch));
    guarded(ids).flatten().flatten().is_some()
}
