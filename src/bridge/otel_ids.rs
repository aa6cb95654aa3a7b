//! The ids that a span has in OpenTelemetry.

use std::cell::Cell;

#[cfg(feature = "opentelemetry")]
use crate::span_ext;
use crate::span_ext::OtelIdsFn;

/// Used unless the application gives the layer another function.
#[cfg(feature = "opentelemetry")]
pub(crate) const DEFAULT: Option<OtelIdsFn> = Some(span_ext::otel_span);
#[cfg(not(feature = "opentelemetry"))]
pub(crate) const DEFAULT: Option<OtelIdsFn> = None;

thread_local! {
    static IS_FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, no ids are asked for on this thread: an OpenTelemetry layer locks a span
/// while it starts it, and may trace an event of its own meanwhile.
#[derive(Debug)]
pub(crate) struct OtelIdsForbidden {
    before: bool,
}

impl OtelIdsForbidden {
    pub(crate) fn new() -> Self {
        let before = IS_FORBIDDEN.try_with(|forbidden| forbidden.replace(true));
        Self {
            before: before.unwrap_or(true),
        }
    }
}

impl Drop for OtelIdsForbidden {
    fn drop(&mut self) {
        let _ = IS_FORBIDDEN.try_with(|forbidden| forbidden.set(self.before));
    }
}

pub(crate) fn may_ask() -> bool {
    IS_FORBIDDEN
        .try_with(|forbidden| !forbidden.get())
        .unwrap_or(false)
}
