//! When to leave a thread alone: while Sentry calls back into user code, and
//! while its thread locals are destroyed.

use std::cell::Cell;
use std::sync::LazyLock;

use sentry_core::Hub;
use tracing::Subscriber;
use tracing::span::Id;
use tracing_subscriber::Registry;

use crate::rpc;

struct ThreadGuard {
    /// Set while sentry-core works for us, and may call back into user code.
    busy: Cell<bool>,
    /// Whether sentry-core's hub of this thread was there when this was made.
    has_hub: bool,
}

impl Drop for ThreadGuard {
    /// Without a destructor a thread local is never gone.
    fn drop(&mut self) {
        IS_GONE.set(true);
    }
}

/// Not the subscriber of anybody.
static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::default);

thread_local! {
    static IS_GONE: Cell<bool> = const { Cell::new(false) };

    // sentry-core's thread-local hub panics once it is destroyed. Thread locals
    // go in the reverse order of their making, so that after this look at it
    // ours is gone first, and a look at ours is enough to know.
    static GUARD: ThreadGuard = {
        // A registry has a number for the thread in another one, made as the first span is
        // entered there, and panics once that is destroyed: it is to be gone after ours, too.
        let span = Id::from_u64(1);
        rpc::contained(|| {
            REGISTRY.enter(&span);
            REGISTRY.exit(&span);
        });
        ThreadGuard {
            busy: Cell::new(false),
            has_hub: rpc::contained(Hub::current).is_some(),
        }
    };
}

/// Whether this thread has traced, and is past it: no span can be made or entered any more.
pub(crate) fn is_thread_gone() -> bool {
    IS_GONE.get()
}

/// Whether this thread still has its hub: not in the destructors of its thread
/// locals.
pub(crate) fn is_thread_alive() -> bool {
    GUARD.try_with(|guard| guard.has_hub).unwrap_or(false)
}

/// Whether this thread is alive and not inside a callback of Sentry.
pub(crate) fn is_thread_free() -> bool {
    GUARD
        .try_with(|guard| guard.has_hub && !guard.busy.get())
        .unwrap_or(false)
}

/// Runs what may call user code by way of Sentry: a sampler, `before_send`, a
/// transport. What that code traces is not ours to record, or it would call
/// itself; and where it panics, the call that is observed must not.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Option<T> {
    let before = set_busy(true);
    let result = rpc::contained(f);
    set_busy(before);
    result
}

fn set_busy(busy: bool) -> bool {
    GUARD
        .try_with(|guard| guard.busy.replace(busy))
        .unwrap_or(true)
}
