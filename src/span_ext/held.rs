//! Events of panics that are held until it is known whether the panic ends a call. If it does,
//! and the failure of the call was reported already, they are dropped.

use std::cell::{Cell, RefCell};
use std::thread;

use sentry_core::Hub;
use sentry_core::protocol::Event;

use crate::span_ext::thread_guard::guarded;

/// How many events are held in one poll.
const MAX_HELD: usize = 32;

thread_local! {
    /// How many polls of calls this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The held events, and in which poll each came, the outermost first.
    static HELD: RefCell<Vec<(usize, Event<'static>)>> = const { RefCell::new(Vec::new()) };
    static IS_RELEASING: Cell<bool> = const { Cell::new(false) };
}

/// One poll of a call whose panics are caught.
///
/// If a panic ends the poll, that was the last one held: it is dropped. Somebody has caught the
/// others, and they are sent.
#[derive(Debug)]
pub(crate) struct HeldPanics(());

impl HeldPanics {
    pub(crate) fn new() -> Self {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Self(())
    }
}

impl Drop for HeldPanics {
    fn drop(&mut self) {
        let poll = depth();
        let _ = DEPTH.try_with(|depth| depth.set(poll.saturating_sub(1)));
        let take = |held: &mut Vec<(usize, Event<'static>)>| {
            held.last().filter(|(of, _)| *of >= poll)?;
            let last_before = held.iter().rposition(|(of, _)| *of < poll);
            Some(held.split_off(last_before.map_or(0, |last_before| last_before + 1)))
        };
        let Some(mut held) = with_held(take).flatten() else {
            return;
        };
        if thread::panicking() {
            held.pop();
        }
        let before = set_releasing(true);
        guarded(|| {
            Hub::with_active(|hub| {
                for (_, event) in held {
                    hub.capture_event(event);
                }
            });
        });
        set_releasing(before);
    }
}

/// Holds the event of a panic until it is known whether the panic ends a call. Returns it to the
/// caller where the thread polls no call. If too many are held, returns the first of them: that
/// panic was caught.
pub(crate) fn hold_panic(mut event: Event<'static>) -> Result<(), Box<Event<'static>>> {
    let poll = depth();
    if poll == 0 || is_releasing() {
        return Err(Box::new(event));
    }
    // The scope adds them when the event is captured once more.
    let breadcrumbs = std::mem::take(&mut event.breadcrumbs);
    let first = with_held(|held| {
        held.push((poll, event));
        let first = held.iter().position(|(of, _)| *of == poll)?;
        (held.len() - first > MAX_HELD).then(|| held.remove(first).1)
    });
    match first.flatten() {
        Some(first) => Err(Box::new(Event {
            breadcrumbs,
            ..first
        })),
        None => Ok(()),
    }
}

fn depth() -> usize {
    DEPTH.try_with(Cell::get).unwrap_or(0)
}

fn with_held<T>(f: impl FnOnce(&mut Vec<(usize, Event<'static>)>) -> T) -> Option<T> {
    let run = |held: &RefCell<Vec<(usize, Event<'static>)>>| {
        let mut held = held.try_borrow_mut().ok()?;
        Some(f(&mut held))
    };
    HELD.try_with(run).ok().flatten()
}

fn is_releasing() -> bool {
    IS_RELEASING.try_with(Cell::get).unwrap_or(false)
}

fn set_releasing(releasing: bool) -> bool {
    let set = IS_RELEASING.try_with(|is_releasing| is_releasing.replace(releasing));
    set.unwrap_or(false)
}
