//! Calls that are left alone: no transaction begins in them.

use std::cell::Cell;

thread_local! {
    static IS_MUTED: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, no span begins a local root on this thread.
#[derive(Debug)]
pub(crate) struct Muted {
    before: bool,
}

impl Muted {
    pub(crate) fn new() -> Self {
        let before = IS_MUTED.try_with(|muted| muted.replace(true));
        Self {
            before: before.unwrap_or(false),
        }
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        let _ = IS_MUTED.try_with(|muted| muted.set(self.before));
    }
}

pub(crate) fn is_muted() -> bool {
    IS_MUTED.try_with(Cell::get).unwrap_or(false)
}
