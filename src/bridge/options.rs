//! What the spans of a layer are told of it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::report::ParamOptions;

#[derive(Debug, Clone)]
pub(crate) struct LayerOptions {
    /// Tells the layers of a process apart.
    pub(crate) id: u64,
    /// Whether a failure that was told is not told again.
    pub(crate) is_told_once: bool,
    pub(crate) params: ParamOptions,
}

impl LayerOptions {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            is_told_once: true,
            params: ParamOptions::default(),
        }
    }
}
