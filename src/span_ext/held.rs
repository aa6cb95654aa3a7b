//! Panics that may turn out to be that of a call, whose failure was told already.

use std::cell::{Cell, RefCell};
use std::thread;

use sentry_core::Hub;
use sentry_core::protocol::Event;

use crate::span_ext::thread_guard::guarded;

type Events = Vec<Event<'static>>;

thread_local! {
    /// What is held, for each poll of a call that this thread is in.
    static POLLS: RefCell<Vec<Events>> = const { RefCell::new(Vec::new()) };
    static IS_RELEASING: Cell<bool> = const { Cell::new(false) };
}

/// One poll of a call whose panics are caught.
///
/// The last panic that is held in it goes with the poll, if a panic ends that.
/// Somebody has caught the others, and they are told.
#[derive(Debug)]
pub(crate) struct HeldPanics(());

impl HeldPanics {
    pub(crate) fn new() -> Self {
        with_polls(|polls| polls.push(Events::new()));
        Self(())
    }
}

impl Drop for HeldPanics {
    fn drop(&mut self) {
        let mut held = with_polls(Vec::pop).flatten().unwrap_or_default();
        if thread::panicking() {
            held.pop();
        }
        if held.is_empty() {
            return;
        }
        let before = set_releasing(true);
        guarded(|| {
            Hub::with_active(|hub| {
                for event in held {
                    hub.capture_event(event);
                }
            });
        });
        set_releasing(before);
    }
}

/// Holds the event of a panic until it is known whether that ends a call; gives it
/// back where the thread is in none.
pub(crate) fn hold(mut event: Event<'static>) -> Result<(), Box<Event<'static>>> {
    let is_held = with_polls(|polls| !polls.is_empty() && !is_releasing());
    if is_held != Some(true) {
        return Err(Box::new(event));
    }
    // The scope adds them once more.
    event.breadcrumbs.values.clear();
    with_polls(|polls| {
        if let Some(held) = polls.last_mut() {
            held.push(event);
        }
    });
    Ok(())
}

fn with_polls<T>(f: impl FnOnce(&mut Vec<Events>) -> T) -> Option<T> {
    let run = |polls: &RefCell<Vec<Events>>| {
        let mut polls = polls.try_borrow_mut().ok()?;
        Some(f(&mut polls))
    };
    POLLS.try_with(run).ok().flatten()
}

fn is_releasing() -> bool {
    IS_RELEASING.try_with(Cell::get).unwrap_or(false)
}

fn set_releasing(releasing: bool) -> bool {
    let set = IS_RELEASING.try_with(|is_releasing| is_releasing.replace(releasing));
    set.unwrap_or(false)
}
