//! The options of a layer that its spans need.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tracing::Dispatch;
use tracing::dispatcher::WeakDispatch;

use crate::bridge::otel_ids::DEFAULT;
use crate::report::ParamOptions;
use crate::span_ext::{OtelIdsFn, OtelParentFn};

#[derive(Debug, Clone)]
pub(crate) struct LayerOptions {
    /// Tells the layers of a process apart.
    pub(crate) id: u64,
    /// Whether a failure that was reported is not reported again.
    pub(crate) deduplicate_errors: bool,
    /// The time after which a transaction is cut into parts.
    pub(crate) part_duration: Option<Duration>,
    pub(crate) params: ParamOptions,
    pub(crate) otel_ids: Option<OtelIdsFn>,
    pub(crate) otel_parent: Option<OtelParentFn>,
    /// The first dispatcher of the subscriber that the layer is in, once that is known.
    dispatch: Arc<RwLock<Option<WeakDispatch>>>,
}

impl LayerOptions {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            deduplicate_errors: true,
            part_duration: None,
            params: ParamOptions::default(),
            otel_ids: DEFAULT,
            otel_parent: None,
            dispatch: Arc::default(),
        }
    }

    /// Remembers the subscriber, unless it is known. Called on several occasions: a layer in an
    /// `Option` or a `Vec` gets no `on_register_dispatch`.
    pub(crate) fn learn_dispatch(&self, dispatch: &Dispatch) {
        if self.otel_ids.is_some() && self.dispatch().is_none() {
            let learnt = Some(dispatch.downgrade());
            *self
                .dispatch
                .write()
                .unwrap_or_else(PoisonError::into_inner) = learnt;
        }
    }

    pub(crate) fn dispatch(&self) -> Option<Dispatch> {
        let dispatch = self.dispatch.read().unwrap_or_else(PoisonError::into_inner);
        dispatch.as_ref()?.upgrade()
    }
}
